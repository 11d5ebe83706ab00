"""What was approved reaches users step by step while 64 of them ask without pause, and is taken
back: every one of them has right answers or clean errors, and the ledger says what happened."""

from collections.abc import Iterator

import pytest

from mlops_assets.home import Home
from mlops_assets.ledger import CANARY, RELEASED, ROLLED_BACK, SHADOW
from mlops_assets.serving.rollout.rollback import roll_back
from mlops_assets_tests.commands import run_command
from mlops_assets_tests.engine_server import EngineProcess, engine_process
from mlops_assets_tests.releases import MODEL, enlist
from mlops_assets_tests.served_homes import promote
from mlops_assets_tests.serving_process import (
    QUICK,
    ROLLBACK_S,
    V1,
    V2,
    V3,
    ServingProcess,
    hammering,
    hosted,
    serving,
    since,
    who,
)
from mlops_assets_tests.waiting import wait_until

pytestmark = pytest.mark.slow

ROOM = {"maximum_in_flight": 256}
"""More than the users take, so that requests are mirrored beside them."""


@pytest.fixture
def engine() -> Iterator[EngineProcess]:
    with engine_process(V1, V2, V3) as engine:
        yield engine


@pytest.fixture
def gateway(engine: EngineProcess, home: Home) -> Iterator[ServingProcess]:
    """Version 1 is released, and a gateway serves it."""
    promote(home, 1, "a")
    with serving(home, gateway=hosted(engine) | ROOM, release=QUICK) as gateway:
        wait_until(lambda: gateway.steps() == [RELEASED], "the first release")
        yield gateway


def status(gateway: ServingProcess) -> tuple[str, int]:
    """Stage of the release and version that users get, as `mlops status` has it."""
    told = run_command("mlops", "status", "--json", home=gateway.home.root).json["release"]
    return told["stage"], told["stable"]["version"]


def test_released_step_by_step_and_rolled_back_by_hand(gateway: ServingProcess) -> None:
    with hammering(gateway) as crowd:
        assert who(since(crowd)) == {V1}
        promote(gateway.home, 2, "b")
        wait_until(lambda: gateway.steps()[-1] == CANARY, "the canary")
        begun = len(crowd.answers)
        wait_until(lambda: gateway.health()[1]["stage"] == CANARY, "its notice")
        wait_until(lambda: gateway.steps()[-1] == RELEASED, "the release")
        canary = crowd.answers[begun:]
        wait_until(lambda: gateway.serves(2), "version 2 for all", ROLLBACK_S)
        assert who(since(crowd)) == {V2}
        assert status(gateway) == (RELEASED, 2)
        roll_back(gateway.home, "ada", "by hand", enlist(gateway.home, "ada").key)
        wait_until(lambda: gateway.serves(1), "version 1 again", ROLLBACK_S)
        assert who(since(crowd)) == {V1}
    assert status(gateway) == (ROLLED_BACK, 1)
    assert gateway.steps() == [RELEASED, SHADOW, CANARY, CANARY, RELEASED, ROLLED_BACK]
    assert crowd.breaches([V1, V2]) == []
    assert crowd.lost == 0
    assert who(canary) == {V1, V2}
    assert not [one for one in crowd.answers if not one.acknowledged]
    assert gateway.unlogged(crowd.answers) == []
    champion = gateway.home.ledger.champion(MODEL)
    assert champion is not None
    assert champion.decision.version == 1
