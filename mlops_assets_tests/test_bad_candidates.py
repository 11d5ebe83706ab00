"""A candidate that is no good is taken back by itself: users go on with the version before it."""

import json
from collections.abc import Iterator

import pytest

from mlops_assets.ledger import CANARY, RELEASED, ROLLED_BACK
from mlops_assets.serving.rollout.desired_state import COPY
from mlops_assets_tests.engine_server import EngineServer, serve_engine
from mlops_assets_tests.served_homes import approved_home, promote
from mlops_assets_tests.serving_client import find_breach, is_clean
from mlops_assets_tests.serving_process import (
    QUICK,
    V1,
    ServingProcess,
    hammering,
    hosted,
    serving,
    since,
    who,
)
from mlops_assets_tests.test_gateway_state_faults import locked
from mlops_assets_tests.waiting import wait_until

pytestmark = pytest.mark.slow

WARY = QUICK | {"shadow_share": 0.0, "hold_s": 600.0, "canary_steps": [50]}
"""Users meet the candidate at once, some of sixteen however they are drawn, and it is released to
all never."""
RARELY = {"engine_probe_s": 600.0}
"""The probes find nothing: what users get decides."""


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineServer]:
    with serve_engine() as engine:
        yield engine


@pytest.fixture(scope="module")
def gateway(
    engine: EngineServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServingProcess]:
    """Version 1 is released to all."""
    home = approved_home(tmp_path_factory.mktemp("bad"))
    with serving(home, gateway=hosted(engine) | RARELY, release=WARY) as gateway:
        wait_until(lambda: gateway.steps() == [RELEASED], "the first release")
        yield gateway


def begin(gateway: ServingProcess, engine: EngineServer) -> str:
    """Bring the next version before users; returns what its engine is called."""
    engine.switch()
    version = 2 + gateway.steps().count(ROLLED_BACK)
    promote(gateway.home, version, f"seed {version}")
    # The gateway's own word: the row is on the ledger a moment before the gateway heeds it.
    wait_until(lambda: gateway.health()[1]["stage"] == CANARY, "the canary")
    return f"release-{version}"


@pytest.mark.parametrize(
    ("reply", "criterion"),
    [
        ("garbage", "errors"),
        ("error:400", "errors"),
        ("empty", "empty"),
    ],
)
def test_what_users_get_takes_it_back(
    gateway: ServingProcess, engine: EngineServer, reply: str, criterion: str
) -> None:
    name = begin(gateway, engine)
    with hammering(gateway, 32) as crowd:
        assert who(since(crowd)) == {V1, name}
        engine.switch(by_model={name: reply})
        wait_until(lambda: gateway.steps()[-1] == ROLLED_BACK, "the rollback")
        assert who(since(crowd)) == {V1}
    assert crowd.lost == 0
    wrong = [one for one in crowd.answers if find_breach(one, [V1, name])]
    assert all(one.text == "" or is_clean(one, 400) for one in wrong)
    assert gateway.unlogged(crowd.answers) == []
    row = gateway.home.ledger.entries()[-1].decision
    failed = [each for each in row.evidence["verdict"]["criteria"] if each["verdict"] == "FAIL"]
    assert criterion in [each["name"] for each in failed]
    assert (row.version, row.outcome) == (1, ROLLED_BACK)


def test_a_ledger_that_cannot_be_written_holds_no_rollback_up(
    gateway: ServingProcess, engine: EngineServer
) -> None:
    """Users are back at once, and the row follows when it can."""
    name = begin(gateway, engine)
    steps = gateway.steps()
    with hammering(gateway, 16) as crowd, locked(gateway.home.root / "ledger.db"):
        since(crowd)
        engine.switch(by_model={name: "error:500"})
        wait_until(lambda: not gateway.health()[1]["candidate"], "the rollback")
        assert who(since(crowd)) == {V1}
    wait_until(lambda: gateway.steps() == [*steps, ROLLED_BACK], "its row")
    assert crowd.breaches([V1, name]) == []
    assert gateway.unlogged(crowd.answers) == []


def taken_off(gateway: ServingProcess) -> bool:
    """Whether the gateway has written down, for the next one, what it took off."""
    copy = gateway.home.root / "serving" / COPY
    return bool(json.loads(copy.read_bytes())["withdrawn"])


def test_killed_before_the_rollback_is_written_the_next_gateway_writes_it(
    gateway: ServingProcess, engine: EngineServer
) -> None:
    """What was taken off comes back for nobody, not even for a moment."""
    name = begin(gateway, engine)
    steps = gateway.steps()
    with hammering(gateway, 16) as crowd:
        with locked(gateway.home.root / "ledger.db"):
            engine.switch(by_model={name: "error:500"})
            wait_until(lambda: taken_off(gateway), "the rollback")
            gateway.kill()
        engine.switch()
        begun = len(crowd.answers)
        gateway.start()
        wait_until(lambda: gateway.steps() == [*steps, ROLLED_BACK], "its row")
        since(crowd)
    assert who(crowd.answers[begun:]) == {V1}
    assert gateway.unlogged(crowd.answers) == []
