"""A candidate in shadow: asked what users ask, seen by nobody, in nobody's way."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import openai
import pytest

from mlops_assets.request_record import CHAMPION
from mlops_assets.serving.traffic import shadow
from mlops_assets.serving.traffic.route import Route
from mlops_assets.serving.traffic.shadow_pairs import ShadowPair, read_pairs
from mlops_assets_tests.engine_server import EngineServer, serve_engine
from mlops_assets_tests.gateway_server import (
    MODEL,
    RELEASE,
    RunningGateway,
    serve_gateway,
    upstream_of,
)
from mlops_assets_tests.waiting import wait_until

CANDIDATE = "cd" * 32
TOKENS = 1_000_000


class Mirrored:
    """Routes everything to one engine, with a copy for another."""

    def __init__(self, live: EngineServer, candidate: EngineServer) -> None:
        self.live = upstream_of(live.url)
        self.candidate = upstream_of(
            candidate.url, release=CANDIDATE, model="/models/new", system="Be new."
        )

    def route(self, *_: object) -> Route:
        return Route(CHAMPION, self.live, self.candidate)


@pytest.fixture(scope="module")
def engines() -> Iterator[tuple[EngineServer, EngineServer]]:
    with serve_engine() as live, serve_engine() as candidate:
        yield live, candidate


@pytest.fixture
def live(engines: tuple[EngineServer, EngineServer]) -> EngineServer:
    engines[0].switch()
    return engines[0]


@pytest.fixture
def candidate(engines: tuple[EngineServer, EngineServer]) -> EngineServer:
    engines[1].switch()
    return engines[1]


Serve = Callable[..., "Serving"]


class Serving:
    """A gateway with a candidate in shadow, and a client."""

    def __init__(self, gateway: RunningGateway) -> None:
        self.gateway = gateway
        self.client = openai.OpenAI(
            base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0, timeout=10
        )

    def ask(self, text: str = "Hello", *, stream: bool = False) -> str:
        messages = [{"role": "user", "content": text}]
        if not stream:
            answer = self.client.chat.completions.create(model=MODEL, messages=messages)  # type: ignore[arg-type]
            return str(answer.choices[0].message.content)
        parts = self.client.chat.completions.create(model=MODEL, messages=messages, stream=True)  # type: ignore[arg-type]
        return "".join(part.choices[0].delta.content or "" for part in parts)

    def wait(self, **counts: int) -> None:
        wait_until(lambda: dict(self.gateway.gateway.shadow.counts) == counts, str(counts))

    @property
    def pairs(self) -> list[ShadowPair]:
        return list(read_pairs(self.gateway.files.root / "shadow"))


@pytest.fixture
def serve(live: EngineServer, candidate: EngineServer, tmp_path: Path) -> Iterator[Serve]:
    with ExitStack() as running:

        def start(tokens: int = TOKENS, **settings: object) -> Serving:
            running.pop_all().close()  # the home's one gateway before it
            gateway = serve_gateway(
                tmp_path, routes=Mirrored(live, candidate), shadow_tokens_per_day=tokens, **settings
            )
            serving = Serving(running.enter_context(gateway))
            running.callback(serving.client.close)
            return serving

        yield start


@pytest.mark.parametrize("stream", [False, True])
def test_users_get_the_champion_and_the_candidate_is_asked_too(
    serve: Serve, candidate: EngineServer, stream: bool
) -> None:
    serving = serve()
    assert serving.ask("My router blinks.", stream=stream) == "/models/engine: My router blinks."
    serving.wait(pairs=1)
    (pair,) = serving.pairs
    assert (pair.stable, pair.candidate) == (RELEASE, CANDIDATE)
    assert pair.question == "My router blinks."
    assert pair.live.output == "/models/engine: My router blinks."
    assert pair.shadow.output == "/models/new: My router blinks."
    assert pair.tokens > 0
    assert (pair.live.error, pair.shadow.error) == ("", "")
    asked = candidate.asked[-1].body
    assert asked["messages"][0] == {"role": "system", "content": "Be new."}
    assert not asked.get("stream")
    (record,) = serving.gateway.records
    assert record["id"] == pair.id  # the mirrored request is no request of a user
    metrics = asyncio.run(serving.gateway.gateway.metrics.render()).decode()
    assert 'mlops_shadow_requests{outcome="pairs"} 1.0' in metrics


@pytest.mark.parametrize(
    ("reply", "error", "output"),
    [
        ("error", "engine_error", ""),
        ("cut", "engine_error", ""),
        ("garbage", "engine_error", ""),
        ("page", "garbage", ""),
        ("hang", "timeout_error", ""),
        ("empty", "", ""),
    ],
)
def test_what_goes_wrong_with_the_candidate_is_in_the_pair_alone(
    serve: Serve, candidate: EngineServer, reply: str, error: str, output: str
) -> None:
    candidate.switch(reply)
    serving = serve(shadow_timeout=0.3 if reply == "hang" else 60)
    assert serving.ask() == "/models/engine: Hello"
    serving.wait(pairs=1)
    side = serving.pairs[0].shadow
    assert (side.error, side.output) == (error, output)


def test_a_champion_that_fails_is_compared_too(
    serve: Serve, live: EngineServer, candidate: EngineServer
) -> None:
    live.switch("error")
    serving = serve()
    with pytest.raises(openai.InternalServerError):
        serving.ask()
    serving.wait(pairs=1)
    assert serving.pairs[0].live.error
    assert serving.pairs[0].shadow.output


def test_a_candidate_that_hangs_slows_nobody(serve: Serve, candidate: EngineServer) -> None:
    candidate.switch("hang")
    serving = serve(shadow_queue=3, shadow_concurrency=2)
    times = []
    for number in range(30):
        began = time.perf_counter()
        assert serving.ask(f"Question {number}") == f"/models/engine: Question {number}"
        times.append(time.perf_counter() - began)
    assert sorted(times)[15] < 0.2
    # Two hang, three wait, the rest was dropped and counted.
    serving.wait(**{shadow.FULL: 25})
    assert serving.pairs == []


def test_its_tokens_of_a_day_are_limited_and_not_forgotten(serve: Serve) -> None:
    serving = serve(tokens=10, shadow_concurrency=1)
    serving.ask("one two three four five six seven eight nine ten")
    serving.wait(pairs=1)
    serving.ask()
    serving.wait(**{"pairs": 1, shadow.BUDGET: 1})
    again = serve(tokens=10)
    assert again.gateway.gateway.shadow.tokens_today == serving.pairs[0].tokens >= 10
    again.ask()
    again.wait(**{shadow.BUDGET: 1})


def test_it_waits_while_users_need_the_machine(
    serve: Serve, live: EngineServer, candidate: EngineServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = serve(shadow_timeout=0.2)
    monkeypatch.setattr(serving.gateway.gateway.shadow, "_has_room", lambda: False)
    before = candidate.count
    serving.ask()
    serving.wait(**{shadow.BUSY: 1})
    assert candidate.count == before
    monkeypatch.undo()
    serving.ask()
    serving.wait(**{shadow.BUSY: 1, "pairs": 1})
