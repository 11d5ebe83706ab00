"""The tests' engine: what others rest on is looked at here, as bytes."""

import asyncio

import aiohttp
import pytest

from mlops_assets_tests.engine_replies import REFUSAL, REPLIES
from mlops_assets_tests.engine_server import EngineServer, engine_process, serve_engine
from mlops_assets_tests.serving_client import Answer, ask, find_breach

SOON = aiohttp.ClientTimeout(total=0.5)
WHOLE = {"answer", "slow", "trickle", "no_usage"}
SAID = {"empty": "", "refusal": REFUSAL, "tool_call": ""}
SILENT = {"hang", "stall"}
NO_HTTP = {"garbage"}


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("name", REPLIES)
def test_every_reply_is_what_it_says(name: str, stream: bool) -> None:
    argument = {"slow": ":0.02", "trickle": ":0.01", "error": ":429"}.get(name, "")
    with serve_engine() as engine:
        found = asyncio.run(get(engine, f"[engine: {name}{argument}] please", stream))
    if name in WHOLE:
        assert isinstance(found, Answer)
        assert find_breach(found, ["support-tickets"]) is None
    elif name in SAID:
        assert isinstance(found, Answer)
        assert (found.acknowledged, found.text or "") == (True, SAID[name])
    elif name in SILENT:
        assert isinstance(found, TimeoutError)
        assert engine.left == 1
    elif name in NO_HTTP:
        assert isinstance(found, aiohttp.ClientResponseError)
    else:
        assert isinstance(found, Answer)
        assert find_breach(found) is not None
    assert [one.question for one in engine.asked] == [f"[engine: {name}{argument}] please"]


async def get(engine: EngineServer, question: str, stream: bool) -> Answer | Exception:
    """The answer, or why there is none."""
    async with aiohttp.ClientSession(timeout=SOON) as session:
        try:
            return await ask(session, engine.url, question, stream=stream)
        except (TimeoutError, aiohttp.ClientError) as error:
            return error


def test_it_is_told_by_list_by_model_and_for_all() -> None:
    with serve_engine() as engine:
        engine.switch(always="error:500", replies=("error:429",), by_model={"good": "answer"})

        async def statuses() -> list[int]:
            async with aiohttp.ClientSession(timeout=SOON) as session:
                asked = [{}, {}, {"model": "good"}]
                return [(await ask(session, engine.url, "?", **body)).status for body in asked]

        assert asyncio.run(statuses()) == [429, 500, 200]
        assert engine.count == 3


def test_a_process_dies_comes_back_on_its_port_and_tells_what_it_was_asked() -> None:
    with engine_process("one", "two") as engine:
        url = engine.url
        engine.kill()
        engine.start()
        assert engine.url == url
        engine.switch("error:503")

        async def status() -> int:
            async with aiohttp.ClientSession(headers={"X-Test": "yes"}) as session:
                return (await ask(session, url, "anybody?")).status

        assert asyncio.run(status()) == 503
        (asked,) = engine.asked
        assert (asked.question, asked.headers["X-Test"]) == ("anybody?", "yes")
