"""What a key may use, what the gateway takes on, and how it says that it is enough."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
import requests

from mlops_assets.serving.gateway.api_keys import ADMIN, CHAT, new_key
from mlops_assets.serving.gateway.limits import Bucket
from mlops_assets_tests.engine_server import EngineServer, serve_engine
from mlops_assets_tests.gateway_server import MODEL, RunningGateway, serve_gateway, upstream_of
from mlops_assets_tests.waiting import wait_until


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineServer]:
    with serve_engine() as server:
        yield server


@pytest.fixture(autouse=True)
def _right_answers(engine: EngineServer) -> None:
    engine.switch()


def ask(
    gateway: RunningGateway, key: str | None = None, timeout: float = 20, **others: Any
) -> requests.Response:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello there"}], **others}
    headers = {"Authorization": f"Bearer {key or gateway.key}"}
    url = f"{gateway.url}/v1/chat/completions"
    return requests.post(url, json=body, headers=headers, timeout=timeout)


def test_a_bucket_fills_evenly_and_pays_its_debts() -> None:
    bucket = Bucket(60, 0.0)
    bucket.spend(60)
    assert bucket.wait(1, 0.0) == 1.0
    assert bucket.wait(1, 0.5) == 0.5
    assert bucket.wait(1, 1.0) == 0.0
    bucket.spend(91)
    assert bucket.wait(1, 1.0) == 91.0
    assert bucket.wait(60, 1e6) == 0.0


def test_a_key_gets_its_requests_and_no_other_key_suffers(
    engine: EngineServer, tmp_path: Path
) -> None:
    with serve_gateway(tmp_path, upstream_of(engine.url)) as gateway:
        _, few = new_key(gateway.files.keys, "few", [CHAT], requests_per_minute=2)
        answers = [ask(gateway, few) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        refused = answers[-1]
        assert 1 <= int(refused.headers["retry-after"]) <= 30
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert ask(gateway).status_code == 200


def test_a_key_gets_its_tokens(engine: EngineServer, tmp_path: Path) -> None:
    with serve_gateway(tmp_path, upstream_of(engine.url)) as gateway:
        _, few = new_key(gateway.files.keys, "few", [CHAT], tokens_per_minute=5)
        assert ask(gateway, few).json()["usage"]["total_tokens"] == 5
        assert "tokens a minute" in ask(gateway, few).json()["error"]["message"]


def test_a_scope_that_is_missing_is_403(engine: EngineServer, tmp_path: Path) -> None:
    with serve_gateway(tmp_path, upstream_of(engine.url)) as gateway:
        _, admin = new_key(gateway.files.keys, "admin", [ADMIN])
        assert ask(gateway, admin).status_code == 403
        _, chat = new_key(gateway.files.keys, "chat", [CHAT])
        headers = {"Authorization": f"Bearer {chat}"}
        answer = requests.get(f"{gateway.url}/metrics", headers=headers, timeout=60)
        assert answer.status_code == 403


def test_load_beyond_places_and_queue_is_shed(engine: EngineServer, tmp_path: Path) -> None:
    engine.switch(always="slow:1")  # all have come by then
    with (
        serve_gateway(
            tmp_path, upstream_of(engine.url), maximum_in_flight=2, maximum_waiting=2
        ) as gateway,
        ThreadPoolExecutor(8) as callers,
    ):
        answers = list(callers.map(lambda _: ask(gateway), range(8)))
        statuses = sorted(answer.status_code for answer in answers)
        assert statuses == [200] * 4 + [429] * 4
        shed = next(answer for answer in answers if answer.status_code == 429)
        assert shed.headers["retry-after"] == "1"
        assert shed.json()["error"]["code"] == "overloaded"
        assert ask(gateway).status_code == 200, "the places are free again"
        assert (gateway.gateway.admission.in_flight, gateway.gateway.admission.waiting) == (0, 0)


def test_a_wait_for_a_place_is_limited(engine: EngineServer, tmp_path: Path) -> None:
    engine.switch(replies=("slow:1",))
    with (
        serve_gateway(
            tmp_path, upstream_of(engine.url), maximum_in_flight=1, waiting_timeout=0.1
        ) as gateway,
        ThreadPoolExecutor(3) as callers,
    ):
        answers = list(callers.map(lambda _: ask(gateway), range(3)))
        assert sorted(answer.status_code for answer in answers) == [200, 429, 429]
        assert gateway.gateway.admission.waiting == 0


def test_the_official_client_tries_again_when_it_is_told_to(
    engine: EngineServer, tmp_path: Path
) -> None:
    engine.switch(replies=("error:500",))
    with (
        serve_gateway(tmp_path, upstream_of(engine.url)) as gateway,
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key) as client,
    ):
        answer = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Hello there"}]
        )
        assert answer.choices[0].message.content == "/models/engine: Hello there"
        assert [each["status"] for each in gateway.records] == [503, 200]


@pytest.mark.parametrize(
    ("reply", "stream", "limit"),
    [
        ("hang", False, {"total_timeout": 0.3}),
        ("hang", True, {"first_byte_timeout": 0.3}),
        ("stall", True, {"chunk_timeout": 0.3}),
        ("trickle:0.15", True, {"total_timeout": 0.4}),
    ],
)
def test_an_engine_that_is_too_slow_is_given_up(
    engine: EngineServer, tmp_path: Path, reply: str, stream: bool, limit: dict[str, float]
) -> None:
    engine.switch(always=reply)
    left = engine.left
    with serve_gateway(tmp_path, upstream_of(engine.url), **limit) as gateway:
        answer = ask(gateway, stream=stream)
        error = answer.text.rstrip().rpartition("data: ")[2]
        assert '"code":"engine_timeout"' in error
        assert "[DONE]" not in answer.text
        assert answer.status_code == (200 if reply in ("stall", "trickle:0.15") else 503)
        assert gateway.records[-1]["status"] == 503
        if reply != "trickle:0.15":
            wait_until(lambda: engine.left > left, "the end of what the engine does for nobody")


def test_a_caller_who_leaves_is_499_and_stops_the_engine(
    engine: EngineServer, tmp_path: Path
) -> None:
    engine.switch(always="stall")
    left = engine.left
    with serve_gateway(tmp_path, upstream_of(engine.url)) as gateway:
        with (
            openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key) as client,
            client.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": "Hello there"}],
                stream=True,
            ) as stream,
        ):
            next(event for event in stream if event.choices[0].delta.content)
        wait_until(lambda: gateway.records and engine.left > left, "the end of the request")
        record = gateway.records[-1]
        assert (record["status"], record["error"]) == (499, "client_closed_request")
        assert record["output"].startswith("/models/engine:")
        assert record["tokens_out"] >= 1, "what was made for nobody counts"


def test_a_caller_who_gives_up_waiting_stops_the_engine_too(
    engine: EngineServer, tmp_path: Path
) -> None:
    engine.switch(always="hang")
    left = engine.left
    with serve_gateway(tmp_path, upstream_of(engine.url)) as gateway:
        with pytest.raises(requests.ReadTimeout):
            ask(gateway, timeout=0.2)
        wait_until(lambda: gateway.records and engine.left > left, "the end of the request")
        record = gateway.records[-1]
        assert (record["status"], record["tokens_out"]) == (499, 0)
        assert record["tokens_in"] == 3, "what was read for nobody counts"
        assert gateway.gateway.admission.in_flight == 0


def test_requests_in_flight_finish_when_the_gateway_stops(
    engine: EngineServer, tmp_path: Path
) -> None:
    engine.switch(always="slow:1.5")
    with serve_gateway(tmp_path, upstream_of(engine.url)) as gateway:
        answers: list[requests.Response] = []
        asking = threading.Thread(target=lambda: answers.append(ask(gateway)))
        asking.start()
        wait_until(lambda: gateway.gateway.admission.in_flight, "the request")
        gateway.server.handle_exit(15, None)
        assert requests.get(f"{gateway.url}/health", timeout=60).json()["status"] == "stopping"
        assert ask(gateway).json()["error"]["code"] == "stopping"
        asking.join()
        assert answers[0].status_code == 200


def test_what_does_not_finish_in_time_ends_with_an_error_and_no_silent_cut(
    engine: EngineServer, tmp_path: Path
) -> None:
    engine.switch(always="stall")
    with serve_gateway(tmp_path, upstream_of(engine.url), drain_timeout=0) as gateway:
        answers: list[requests.Response] = []
        asking = threading.Thread(target=lambda: answers.append(ask(gateway, stream=True)))
        asking.start()
        wait_until(lambda: engine.asked and gateway.gateway.admission.in_flight, "the request")
        gateway.server.handle_exit(15, None)
        asking.join()
        assert "The gateway is stopping." in answers[0].text
        assert "[DONE]" not in answers[0].text
    assert gateway.records[-1]["status"] == 503
