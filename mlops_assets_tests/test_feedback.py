"""Votes on answers: whose they are, that they are kept, and what they are joined to."""

import errno
import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import pytest
import requests

from mlops_assets.feedback_record import last_votes, read_feedback
from mlops_assets.home import Home
from mlops_assets.monitoring.feedback.feedback_rows import make_rows, read_said
from mlops_assets.monitoring.feedback.feedback_spec import FeedbackSpec
from mlops_assets.monitoring.log.prediction_log import PredictionLogSpec, collect
from mlops_assets.request_record import CANARY
from mlops_assets.serving.gateway.api_keys import CHAT, FEEDBACK, SCOPES, new_key
from mlops_assets.serving.records import feedback, request_log
from mlops_assets.serving.records.logged_requests import find_request
from mlops_assets.serving.traffic.route import Route
from mlops_assets_tests.engine_server import EngineServer, serve_engine
from mlops_assets_tests.gateway_server import (
    MODEL,
    RELEASE,
    RunningGateway,
    serve_gateway,
    upstream_of,
)
from mlops_assets_tests.said import make_splits


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineServer]:
    with serve_engine() as server:
        yield server


class InExperiment:
    """Routes everything to a canary that an experiment is about."""

    def __init__(self, url: str) -> None:
        self.upstream = upstream_of(url)

    def route(self, *_: object) -> Route:
        return Route(CANARY, self.upstream, None, {"tone": "b"})


@pytest.fixture
def gateway(engine: EngineServer, tmp_path: Path) -> Iterator[RunningGateway]:
    engine.switch()
    routes = InExperiment(engine.url)
    with serve_gateway(tmp_path, routes=routes, feedback_per_day=4) as running:
        yield running


def ask(gateway: RunningGateway, user: str = "kim") -> str:
    """A question of this user; returns the request's id."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "user": user}
    answer = requests.post(
        f"{gateway.url}/v1/chat/completions", json=body, headers=gateway.authorization, timeout=60
    )
    assert answer.json()["id"] == answer.headers["x-request-id"]
    return str(answer.json()["id"])


def vote(gateway: RunningGateway, key: str = "", **body: Any) -> requests.Response:
    headers = {"Authorization": f"Bearer {key or gateway.key}"}
    return requests.post(f"{gateway.url}/v1/feedback", json=body, headers=headers, timeout=60)


def votes(gateway: RunningGateway) -> list[Any]:
    return list(read_feedback(gateway.files.feedback))


def test_a_vote_is_kept_with_what_answered(gateway: RunningGateway) -> None:
    id = ask(gateway)
    told = vote(gateway, request_id=id, rating="down", correction="Bye", comment="rude")
    assert told.status_code == 201
    assert told.json()["score"] == 0.0
    (kept,) = votes(gateway)
    assert (kept.request, kept.score, kept.metric) == (id, 0.0, "rating")
    assert (kept.correction, kept.comment) == ("Bye", "rude")
    assert (kept.release, kept.arm, kept.experiment) == (RELEASE, CANARY, {"tone": "b"})
    assert kept.user == gateway.records[-1]["user"]
    modes = {path.stat().st_mode & 0o777 for path in gateway.files.feedback.iterdir()}
    assert modes == {0o600}


def test_a_correction_becomes_a_row_and_an_echo_never(engine: EngineServer, home: Home) -> None:
    with serve_gateway(home.root, upstream_of(engine.url)) as gateway:
        right, echoed = ask(gateway), ask(gateway, "lee")
        said = gateway.records[-1]["output"]
        for id, correction in ((right, "Good day to you"), (echoed, said.upper())):
            assert vote(gateway, request_id=id, rating="down", correction=correction).ok
    spec = FeedbackSpec(max_person_share=1.0, max_tenant_share=1.0, regression_share=0.0, suites="")
    where = PredictionLogSpec(directory=str(gateway.files.requests))
    log, splits = collect(home.store, where, home.root), make_splits(home, labels={})
    made = make_rows(home, read_said(home, log, (), spec), splits, spec)
    assert made.summary["kinds"]["correction"] == {
        "received": 2, "training": 1, "cases": 0, "signals": 0, "quarantined": {"echo": 1}
    }  # fmt: skip
    (row,) = (home.store.path(made) / "training.jsonl").read_text().splitlines()
    assert [turn["content"] for turn in json.loads(row)["messages"]] == ["Hello", "Good day to you"]


def test_the_last_vote_counts(gateway: RunningGateway) -> None:
    one, other = ask(gateway), ask(gateway)
    assert vote(gateway, request_id=one, rating="up", user="kim").status_code == 201
    assert vote(gateway, request_id=other, score=0.25).status_code == 201
    assert vote(gateway, request_id=one, rating="down").status_code == 201
    assert vote(gateway, request_id=one, score=1, metric="resolved").status_code == 201
    counted = [(each.request, each.score) for each in last_votes(votes(gateway))]
    assert counted == [(one, 0.0), (other, 0.25)]
    assert [each.score for each in last_votes(votes(gateway), "resolved")] == [1.0]


def test_a_user_may_not_vote_without_end(gateway: RunningGateway) -> None:
    id, of_another = ask(gateway), ask(gateway, "lee")
    told = [vote(gateway, request_id=id, score=0.5).status_code for _ in range(5)]
    assert told == [201] * 4 + [429]
    refused = vote(gateway, request_id=id, score=0.5)
    assert 0 < int(refused.headers["retry-after"]) <= 86_400
    assert vote(gateway, request_id=of_another, score=0.5).status_code == 201


def test_what_the_log_does_not_hold_for_this_key_takes_no_vote(gateway: RunningGateway) -> None:
    id = ask(gateway)
    _, other = new_key(gateway.files.keys, "others", SCOPES)
    _, chat_only = new_key(gateway.files.keys, "chat-only", (CHAT,))
    unknown = vote(gateway, request_id=f"chatcmpl-{'0' * 32}", rating="up")
    foreign = vote(gateway, other, request_id=id, rating="up")
    assert unknown.status_code == foreign.status_code == 404
    assert unknown.json()["error"]["code"] == foreign.json()["error"]["code"]
    assert vote(gateway, chat_only, request_id=id, rating="up").status_code == 403
    assert FEEDBACK in vote(gateway, chat_only, request_id=id, rating="up").text
    stranger = vote(gateway, request_id=id, rating="up", user="lee")
    assert stranger.status_code == 400
    assert stranger.json()["error"]["param"] == "user"
    assert votes(gateway) == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "rating"),
        ({"rating": "up", "score": 1}, "either"),
        ({"rating": "sideways"}, "rating"),
        ({"score": 1.5}, "score"),
        ({"score": "high"}, "score"),
        ({"rating": "up", "stars": 5}, "stars"),
        ({"rating": "up", "correction": "x" * 40_000}, "correction"),
        ({"rating": "up", "metric": "no metric"}, "metric"),
        ({"rating": "up", "request_id": "../requests"}, "no request"),
    ],
)
def test_what_is_no_vote_is_refused(
    gateway: RunningGateway, body: dict[str, Any], said: str
) -> None:
    told = vote(gateway, **{"request_id": ask(gateway), **body})
    assert told.status_code in (400, 404)
    assert said in told.json()["error"]["message"]
    assert votes(gateway) == []


def test_a_vote_on_an_error_is_refused(gateway: RunningGateway, engine: EngineServer) -> None:
    engine.switch("error:500")
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
    answer = requests.post(
        f"{gateway.url}/v1/chat/completions", json=body, headers=gateway.authorization, timeout=60
    )
    assert answer.status_code == 503
    told = vote(gateway, request_id=answer.headers["x-request-id"], rating="up")
    assert "no answer" in told.json()["error"]["message"]


def test_votes_beyond_those_that_can_wait_are_shed(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each vote that waits for its search holds its text in memory."""
    go_on = threading.Event()
    monkeypatch.setattr(feedback, "find_request", lambda *_: go_on.wait(10) and None)
    monkeypatch.setattr(feedback, "MOST_WAITING", 3)
    with ThreadPoolExecutor(4) as callers:
        answers = [callers.submit(vote, gateway, request_id="x", rating="up") for _ in range(4)]
        first = next(as_completed(answers)).result()
        go_on.set()
    assert (first.status_code, first.headers["Retry-After"]) == (429, "1")
    assert sorted(each.result().status_code for each in answers) == [404, 404, 404, 429]


def test_what_cannot_be_kept_is_not_acknowledged(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = ask(gateway)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(request_log.os, "write", full)
    assert vote(gateway, request_id=id, rating="up").status_code == 503
    monkeypatch.undo()
    assert vote(gateway, request_id=id, rating="up").status_code == 201
    assert len(votes(gateway)) == 1


def test_a_record_is_found_wherever_it_stands(tmp_path: Path) -> None:
    def line(id: str, text: str = "x") -> str:
        record = {
            "id": id,
            "timestamp": "",
            "release": "r",
            "messages": [{"role": "user", "content": text}],
            "output": text,
            "status": 200,
        }
        return json.dumps(record, separators=(",", ":")) + "\n"

    (tmp_path / "00000001.jsonl").write_text(line("first") + line("mid") + line("last"))
    (tmp_path / "00000002.jsonl").write_text("")
    (tmp_path / "00000003.jsonl").write_text(line("quoted", '\n{"id":"mine",') + '{"id":"torn",')
    for id in ("first", "mid", "last", "quoted"):
        found = find_request(tmp_path, id, 0)
        assert found is not None
        assert found.id == id
    for id in ("mine", "torn", "none", "las", '"', ""):
        assert find_request(tmp_path, id, 0) is None
    os.utime(tmp_path / "00000001.jsonl", (1000, 1000))
    assert find_request(tmp_path, "first", 2000) is None  # too old
