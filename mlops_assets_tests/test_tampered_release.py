"""One byte of what is served was changed: nobody is answered by it, whenever it happens."""

import os
from collections.abc import Iterator

import pytest

from mlops_assets.home import Home
from mlops_assets.ledger import CANARY, RELEASED, ROLLED_BACK, LedgerEntry
from mlops_assets_tests.engine_server import EngineServer, serve_engine
from mlops_assets_tests.served_homes import promote
from mlops_assets_tests.serving_client import find_breach
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
from mlops_assets_tests.waiting import wait_until

pytestmark = pytest.mark.slow

LASTING = QUICK | {"shadow_share": 0.0, "hold_s": 600.0}
"""A canary that does not come to an end by itself."""


@pytest.fixture
def engine() -> Iterator[EngineServer]:
    with serve_engine() as engine:
        yield engine


def tamper(home: Home, entry: LedgerEntry) -> None:
    """Change one byte of the adapter, and keep its size and its time."""
    path = home.store.path(entry.decision.bundle.adapter) / "adapter_model.safetensors"
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_changed_byte_is_served_to_nobody(home: Home, engine: EngineServer) -> None:
    first = promote(home, 1, "a")
    with serving(home, gateway=hosted(engine), release=LASTING) as gateway:
        wait_until(lambda: gateway.steps() == [RELEASED], "the first release")
        second = promote(home, 2, "b")
        with hammering(gateway, 16) as crowd:
            wait_until(lambda: gateway.steps()[-1] == CANARY, "the canary")
            since(crowd)
            tamper(home, second)
            wait_until(lambda: gateway.steps()[-1] == ROLLED_BACK, "rollback")
            assert who(since(crowd)) == {V1}
            assert crowd.breaches() == []
            assert not [one for one in crowd.answers if not one.acknowledged]
        tamper(home, first)
        wait_until(lambda: gateway.health()[0] == 503, "its end")
        refuses(gateway, engine)
    gateway.start(ready=False)
    gateway.wait_listening()
    refuses(gateway, engine)
    assert "was changed" in gateway.output.read_text()
    assert gateway.stop() == 0
    assert gateway.unlogged(crowd.answers) == []


def refuses(gateway: ServingProcess, engine: EngineServer) -> None:
    """Users get a clean error that says why, and the engine is not even asked."""
    asked = engine.count

    def told() -> bool:
        answers = gateway.ask("anybody?", "nobody?")
        assert [(one.status, find_breach(one)) for one in answers] == [(503, None)] * 2
        return all(one.error and one.error["code"] == "release_withheld" for one in answers)

    wait_until(told, "the reason")
    assert engine.count == asked
