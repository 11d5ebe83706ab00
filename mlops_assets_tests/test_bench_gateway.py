"""The gateway's benchmark counts what really came, and refuses to time wrong answers."""

from collections.abc import Iterator

import pytest

from mlops_assets_tests.bench_gateway import (
    DIRECT,
    OURS,
    PROXY,
    RELAY,
    Figures,
    Server,
    load,
    measure,
    print_figures,
    print_ratios,
    printed,
)
from mlops_assets_tests.engine_server import serve_engine


@pytest.fixture(scope="module")
def engine() -> Iterator[Server]:
    with printed("instant_engine") as url:
        yield Server(url, "instant")


@pytest.mark.parametrize("stream", [False, True])
def test_answers_are_timed_through_a_relay(engine: Server, stream: bool) -> None:
    with printed("bare_relay", engine.url) as url:
        relayed = load(Server(url), 4, 0.2, stream=stream)
    direct = load(engine, 4, 0.2, stream=stream)
    assert direct.per_second > relayed.per_second > 0
    assert 0 < direct.p50_ms < relayed.p50_ms <= relayed.p99_ms


@pytest.mark.parametrize("reply", ["error:500", "cut", "late_error"])
def test_wrong_answers_are_not_timed(reply: str) -> None:
    with serve_engine() as server:
        server.switch(reply)
        with pytest.raises(SystemExit, match="were not right"):
            load(Server(server.url), 2, 0.2, stream=True)


def test_the_first_round_is_dropped_and_every_case_measured(engine: Server) -> None:
    servers = dict.fromkeys((DIRECT, OURS), engine)
    measured = measure(servers, (2,), 2, 0.05)
    assert set(measured) == {(stream, 2, name) for stream in (False, True) for name in servers}


def test_the_ratios_are_what_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    figures = {
        DIRECT: Figures(50_000, 0.01, 0.02),
        RELAY: Figures(6000, 0.15, 0.3),
        OURS: Figures(3000, 0.41, 0.9),
        PROXY: Figures(120, 7.5, 17.0),
    }
    measured = {
        (stream, count, name): found
        for stream in (False, True)
        for count in (1, 16)
        for name, found in figures.items()
    }
    print_figures(measured)
    print_ratios(measured)
    told = capsys.readouterr().out
    assert "| plain | 1 | mlops serve | 3,000 | 0.41 | 0.90 | 0.40 | 0.88 |" in told
    assert "plain: 0.40 ms added at p50 with 1 connection (wanted: at most 1)" in told
    assert "streamed: 25, 25 times the requests/s of the LiteLLM proxy at 1, 16" in told
    assert "plain: 0.5, 0.5 times the requests/s of the bare aiohttp relay" in told
