"""The answer cache in the running gateway: what is given twice, and what never is."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from mlops_assets.request_record import CANARY, CHAMPION
from mlops_assets.serving.caching.cache import AnswerCache
from mlops_assets.serving.caching.cache_spec import CacheSpec
from mlops_assets.serving.caching.cached_answer import CachedAnswer
from mlops_assets.serving.caching.exact_cache import OVERHEAD, ExactCache
from mlops_assets.serving.gateway.answer import Answer
from mlops_assets.serving.gateway.api_keys import CHAT, new_key
from mlops_assets.serving.gateway.chat_request import parse
from mlops_assets.serving.gateway.upstream import Upstream
from mlops_assets.serving.gateway_spec import GatewaySpec
from mlops_assets.serving.traffic.route import Route
from mlops_assets_tests.engine_server import EngineServer, serve_engine
from mlops_assets_tests.gateway_server import (
    MODEL,
    RELEASE,
    RunningGateway,
    serve_gateway,
    upstream_of,
)

QUESTION = "My router blinks red."


class Switched:
    """Routes that a test changes."""

    def __init__(self, route: Route) -> None:
        self.now = route

    def route(self, caller: str, user: str, attributes: Mapping[str, Any]) -> Route:
        return self.now


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineServer]:
    with serve_engine() as server:
        yield server


@pytest.fixture(scope="module")
def routes(engine: EngineServer) -> Switched:
    return Switched(Route(CHAMPION, upstream_of(engine.url, generation={"temperature": 0})))


@pytest.fixture(scope="module")
def running(routes: Switched, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    with serve_gateway(tmp_path_factory.mktemp("cache"), routes=routes, cache_exact_mib=1) as found:
        yield found


@pytest.fixture
def gateway(running: RunningGateway, routes: Switched, engine: EngineServer) -> RunningGateway:
    """With an empty cache, before a champion that answers."""
    engine.switch()
    routes.now = Route(CHAMPION, upstream_of(engine.url, generation={"temperature": 0}))
    running.gateway.cache.flush()
    return running


def ask(
    gateway: RunningGateway,
    question: str = QUESTION,
    *,
    key: str = "",
    control: str = "",
    **fields: object,
) -> requests.Response:
    headers = {"Authorization": f"Bearer {key or gateway.key}", "Cache-Control": control}
    body = {"model": MODEL, "messages": [{"role": "user", "content": question}], **fields}
    return requests.post(
        f"{gateway.url}/v1/chat/completions", json=body, headers=headers, timeout=60
    )


def said(gateway: RunningGateway, question: str = QUESTION, **more: Any) -> str:
    """What the header X-Cache says."""
    return ask(gateway, question, **more).headers.get("X-Cache", "")


def test_a_repeated_question_asks_no_engine(gateway: RunningGateway, engine: EngineServer) -> None:
    first, count = ask(gateway), engine.count
    again = ask(gateway)
    assert engine.count == count
    assert (first.headers["X-Cache"], again.headers["X-Cache"]) == ("miss", "exact")
    assert again.json()["choices"][0]["message"] == first.json()["choices"][0]["message"]
    assert again.json()["usage"] == first.json()["usage"]
    assert again.json()["id"] == again.headers["X-Request-Id"] != first.json()["id"]
    missed, hit = gateway.records[-2:]
    assert (missed["cached"], hit["cached"]) == ("", "exact")
    assert hit["output"] == missed["output"]
    assert (hit["tokens_in"], hit["tokens_out"], hit["finish"]) == (0, 0, "stop")
    metrics = requests.get(f"{gateway.url}/metrics", headers=gateway.authorization, timeout=60).text
    assert 'mlops_cache_hits_total{kind="exact"} 1.0' in metrics


def test_plain_and_streamed_answers_are_one(gateway: RunningGateway, engine: EngineServer) -> None:
    streamed = ask(gateway, stream=True)
    count = engine.count
    plain, again = ask(gateway), ask(gateway, stream=True, stream_options={"include_usage": True})
    assert engine.count == count
    assert plain.headers["X-Cache"] == again.headers["X-Cache"] == "exact"
    text = plain.json()["choices"][0]["message"]["content"]
    assert text.endswith(QUESTION)
    assert text in again.text
    assert '"total_tokens"' in again.text
    assert '"total_tokens"' not in streamed.text
    assert again.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    "other",
    [
        {"max_tokens": 7},
        {"seed": 3},
        {"stop": ["x"]},
        {"response_format": {"type": "json_object"}},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "?"},
            ]
        },
    ],
)
def test_what_changes_the_answer_is_part_of_the_name(
    gateway: RunningGateway, other: dict[str, object]
) -> None:
    said(gateway)
    assert said(gateway, **other) == "miss"
    assert said(gateway, **other) == "exact"


def test_no_tenant_gets_anothers_answer(gateway: RunningGateway) -> None:
    _, other = new_key(gateway.files.keys, "other", (CHAT,))
    said(gateway)
    assert said(gateway, key=other) == "miss"
    assert said(gateway, key=other) == "exact"


@pytest.mark.parametrize("field", ["release", "prompt"])
def test_no_release_gives_anothers_answer(
    gateway: RunningGateway, routes: Switched, field: str
) -> None:
    said(gateway)
    champion = routes.now
    routes.now = Route(CANARY, replace(champion.upstream, **{field: "cd" * 32}))
    assert said(gateway) == "miss"
    routes.now = champion
    assert said(gateway) == "exact"  # a canary beside it flushes nothing


def test_a_promotion_and_a_rollback_flush(gateway: RunningGateway, routes: Switched) -> None:
    said(gateway)
    before = routes.now
    routes.now = Route(CHAMPION, replace(before.upstream, release="cd" * 32))
    assert said(gateway) == "miss"
    routes.now = before  # rolled back: what it said before it was replaced is forgotten
    assert said(gateway) == "miss"


@pytest.mark.parametrize("fields", [{"temperature": 0.7}, {"temperature": 0, "logprobs": True}])
def test_what_is_not_determined_is_not_looked_up(
    gateway: RunningGateway, fields: dict[str, object]
) -> None:
    assert [said(gateway, **fields) for _ in range(2)] == ["", ""]


@pytest.mark.parametrize(
    ("control", "then"), [("no-cache", "exact"), ("max-age=0, no-store", "miss")]
)
def test_the_caller_can_ask_for_a_new_answer(
    gateway: RunningGateway, control: str, then: str
) -> None:
    assert said(gateway, control=control) == "miss"
    assert said(gateway) == then
    assert said(gateway, control=control) == "miss"


@pytest.mark.parametrize("reply", ["cut", "crash", "late_error", "empty", "tool_call"])
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_no_whole_answer_is_never_kept(
    gateway: RunningGateway, engine: EngineServer, reply: str, stream: bool
) -> None:
    engine.switch(reply)
    ask(gateway, stream=stream)
    engine.switch()
    assert said(gateway, stream=stream) == "miss"
    assert said(gateway, stream=stream) == "exact"


@pytest.mark.parametrize(
    "other",
    [
        {"finish": "length"},
        {"finish": ""},
        {"text": " "},
        {"tool_calls": True},
        {"refusal": True},
        {"tokens_out": None},
    ],
)
def test_only_whole_answers_in_text_are_kept(other: dict[str, Any]) -> None:
    whole = Answer("id", text="Yes.", finish="stop", tokens_in=1, tokens_out=2)
    assert CachedAnswer.of(whole) == CachedAnswer("Yes.", 1, 2)
    assert CachedAnswer.of(replace(whole, **other)) is None


def test_off_by_default(routes: Switched, engine: EngineServer, tmp_path: Path) -> None:
    with serve_gateway(tmp_path, routes=routes) as gateway:
        assert [said(gateway) for _ in range(2)] == ["", ""]


def test_the_exact_cache_is_bounded_in_size_and_time() -> None:
    now = [0.0]
    cache = ExactCache(3 * (OVERHEAD + 400), 60.0, lambda: now[0])
    for name in "abc":
        cache.put(name.encode(), CachedAnswer(name * 100, 1, 1))
    cache.find(b"a")
    cache.put(b"d", CachedAnswer("d" * 100, 1, 1))
    assert [cache.find(name.encode()) is not None for name in "abcd"] == [True, False, True, True]
    cache.put(b"large", CachedAnswer("x" * 10_000, 1, 1))
    assert cache.find(b"large") is None
    now[0] = 61.0
    assert cache.find(b"a") is None


def test_a_question_in_another_name_means_something_else() -> None:
    """The semantic cache compares texts: what else a message says is part of its scope."""
    cache, spec = AnswerCache(CacheSpec(cache_exact_mib=1)), GatewaySpec()
    route = Route(CHAMPION, Upstream(RELEASE, "http://engine/v1", "m"))

    def scope(**said: str) -> str:
        body = {"messages": [{"role": "user", "content": QUESTION, **said}], "temperature": 0}
        place = cache.place("team", route, parse(json.dumps(body).encode(), spec), "")
        assert place is not None
        return place.scope

    assert scope() == scope(content="Another question")
    assert len({scope(), scope(name="kim"), scope(name="lee")}) == 3
