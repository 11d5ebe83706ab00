"""The engine is killed, hangs, is slow or answers garbage: users get right answers or a clean 503.

Gateway and engine are processes of their own on loopback.
"""

import asyncio
from collections.abc import Iterator

import aiohttp
import pytest

from mlops_assets_tests.engine_replies import REFUSAL, REPLIES
from mlops_assets_tests.engine_server import EngineProcess, engine_process
from mlops_assets_tests.served_homes import approved_home
from mlops_assets_tests.serving_client import Answer, ask, find_breach, is_clean
from mlops_assets_tests.serving_process import ServingProcess, hosted, serving
from mlops_assets_tests.waiting import wait_until

pytestmark = pytest.mark.slow

RIGHT = ("answer", "slow:0.2", "trickle:0.02", "no_usage")
"""Replies that are as good as any."""
MODELS_OWN = {"empty": "", "refusal": REFUSAL, "tool_call": ""}
"""What the model says, and not the engine's fault: relayed, and counted."""
REFUSED = {"error:400": 400, "error:429": 429}
"""What an engine may say of a request, and what its caller is told then."""
FAULTS = (
    *("hang", "stall", "cut", "unfinished", "half_json", "garbage", "page", "slow:9"),
    *("error:404", "error:500", "error:503", "crash", "late_error", "nan", "odd_fields"),
)
EVERY = (*RIGHT, *MODELS_OWN, *REFUSED, *FAULTS)


def test_every_reply_is_known_to_these_tests() -> None:
    named = {reply.partition(":")[0] for reply in EVERY}
    assert named == set(REPLIES)


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineProcess]:
    with engine_process() as engine:
        yield engine


@pytest.fixture(scope="module")
def gateway(
    engine: EngineProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServingProcess]:
    home = approved_home(tmp_path_factory.mktemp("faults"))
    with serving(home, gateway=hosted(engine)) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def given(gateway: ServingProcess) -> dict[tuple[str, bool], Answer]:
    """What users got from each reply, plain and streamed; all asked at the same time."""
    found = {}
    for stream in (False, True):
        questions = [f"[engine: {reply}] please, {stream}" for reply in EVERY]
        answers = gateway.ask(*questions, stream=stream)
        found |= {(reply, stream): one for reply, one in zip(EVERY, answers, strict=True)}
    return found


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("reply", EVERY)
def test_users_get_what_the_model_says_or_a_clean_error(
    gateway: ServingProcess, given: dict[tuple[str, bool], Answer], reply: str, stream: bool
) -> None:
    answer = given[reply, stream]
    record = gateway.records()[answer.id]
    if reply in RIGHT:
        assert answer.acknowledged
        assert find_breach(answer) is None
    elif reply in MODELS_OWN:
        assert (answer.acknowledged, answer.text) == (True, MODELS_OWN[reply])
    else:
        assert answer.error is not None
        assert is_clean(answer, REFUSED.get(reply, 503))
        assert record["error"] == answer.error["code"]
    assert record["status"] == (200 if answer.acknowledged else REFUSED.get(reply, 503))
    assert gateway.unlogged([answer]) == []


def test_a_killed_engine_costs_clean_errors_until_it_is_back(
    gateway: ServingProcess, engine: EngineProcess
) -> None:
    crowd = gateway.crowd(16)
    killed = False

    def kill_in_the_midst() -> bool:
        nonlocal killed
        if not killed and len(crowd.answers) > 50:
            engine.kill()
            killed = True
        return killed and len(crowd.answers) > 200

    asyncio.run(crowd.run(kill_in_the_midst))
    assert crowd.breaches() == []
    assert crowd.lost == 0
    assert not crowd.answers[-1].acknowledged
    engine.start()
    wait_until(lambda: gateway.ask("again?")[0].acknowledged, "an answer")
    assert gateway.unlogged(crowd.answers) == []


def test_a_frozen_engine_is_given_up_on_in_time(
    gateway: ServingProcess, engine: EngineProcess
) -> None:
    engine.freeze()
    try:
        answers = gateway.ask(*(f"number {i}" for i in range(8)))
    finally:
        engine.thaw()
    assert [find_breach(one) for one in answers] == [None] * 8
    assert [one.status for one in answers] == [503] * 8
    wait_until(lambda: gateway.ask("again?")[0].acknowledged, "an answer")


def test_a_user_who_leaves_is_not_answered_further(
    gateway: ServingProcess, engine: EngineProcess
) -> None:
    """The engine is told, so that it does not go on for nobody."""
    before = engine.left

    async def leave() -> None:
        headers = {"Authorization": f"Bearer {gateway.key}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            asked = ask(session, gateway.url, "[engine: trickle:0.2] a b c d", stream=True)
            await asyncio.wait_for(asked, 0.5)

    with pytest.raises(TimeoutError):
        asyncio.run(leave())
    wait_until(lambda: engine.left > before, "the engine's notice")
    (record,) = (one for one in gateway.records().values() if one["status"] == 499)
    assert record["messages"][-1]["content"].endswith("a b c d")
