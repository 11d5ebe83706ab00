"""The gateway dies of SIGKILL, in the midst of streams or between two steps of a release: what was
acknowledged is in the log, and the next one goes on from what the ledger says."""

import signal
import sys
from collections.abc import Iterator

import pytest

from mlops_assets.home import Home
from mlops_assets.ledger import CANARY, RELEASED, SHADOW
from mlops_assets.serving.accounting.counted_log import sum_of_log
from mlops_assets.serving.accounting.usage_ledger import usage_ledger
from mlops_assets.serving.accounting.usage_report import differences
from mlops_assets.serving.serving_home import ServingHome
from mlops_assets_tests.engine_server import EngineProcess, engine_process
from mlops_assets_tests.served_homes import promote
from mlops_assets_tests.serving_process import (
    QUICK,
    V1,
    V2,
    ServingProcess,
    hammering,
    hosted,
    serving,
    since,
    who,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineProcess]:
    with engine_process(V1, V2) as engine:
        yield engine


def test_killed_in_the_midst_of_streams(home: Home, engine: EngineProcess) -> None:
    """Users lose what they had not got whole; what they had is in the log, once, and charged."""
    promote(home, 1, "a")
    ledger = usage_ledger(ServingHome.of(home))
    engine.switch("trickle:0.01")
    with serving(home, gateway=hosted(engine)) as gateway:
        with hammering(gateway, 32) as crowd:
            since(crowd)
            gateway.kill()
            assert differences(ledger) == []
            before = len(crowd.answers)
            gateway.start()
            since(crowd)
        cut = [one for one in crowd.answers if one.broken]
        assert crowd.lost or cut, "it died under users"
        assert all(one.text == "" or "release-1: question".startswith(one.text[:9]) for one in cut)
        assert [why for why in crowd.breaches([V1]) if "cut off" not in why] == []
        assert len(crowd.answers) > before
        assert gateway.unlogged(crowd.answers) == []
    assert ledger.totals() == sum_of_log(ledger.log)


def test_killed_after_any_step_the_next_gateway_goes_on(home: Home, engine: EngineProcess) -> None:
    """Every life writes one row and dies of it; the rows are those of one life."""
    engine.switch()
    promote(home, 1, "a")
    whole, quick = [RELEASED, SHADOW, CANARY, RELEASED], QUICK | {"canary_steps": [50]}
    with ServingProcess(home, gateway=hosted(engine), release=quick) as gateway:
        gateway.key = gateway.new_key("tests")
        gateway.command = (sys.executable, "-m", "mlops_assets_tests.dying_gateway", "1")
        gateway.url = f"http://127.0.0.1:{gateway.port}/v1"
        with hammering(gateway, 16) as crowd:
            for lives in range(1, len(whole) + 1):
                gateway.start(ready=False)
                if lives == 2:
                    promote(home, 2, "b")
                assert gateway.process.wait(60) == -signal.SIGKILL
                assert gateway.steps() == whole[:lives]
            gateway.command = ()
            gateway.start()
            assert who(since(crowd)) == {V2}
    assert gateway.steps() == whole
    assert gateway.unlogged(crowd.answers) == []
