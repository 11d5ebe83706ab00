"""The champion of a real run, behind a real `transformers serve`, through the real gateway: the
engine is killed under its users, then its adapter is changed."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mlops_assets.home import Home
from mlops_assets.ledger import RELEASED
from mlops_assets_tests.conftest import LineageRun
from mlops_assets_tests.serving_client import Answer, is_clean
from mlops_assets_tests.serving_process import ServingProcess, serving
from mlops_assets_tests.waiting import wait_until

pytestmark = pytest.mark.slow

QUESTION = "My parcel has not arrived, and nobody answers the phone."
FAST = {"engine_backoff_s": 0.1, "engine_watch_s": 0.1}


@pytest.fixture
def gateway(lineage: LineageRun, tmp_path: Path) -> Iterator[ServingProcess]:
    with serving(Home(lineage.copy(tmp_path).home), gateway=FAST) as gateway:
        yield gateway


def engine_of(gateway: ServingProcess) -> psutil.Process:
    """The one child that it has."""
    (engine,) = psutil.Process(gateway.process.pid).children(recursive=True)
    assert "transformers" in " ".join(engine.cmdline())
    return engine


def ask(gateway: ServingProcess) -> list[Answer]:
    """Four users at once, plain, then four with streams."""
    return [one for stream in (False, True) for one in gateway.ask(*[QUESTION] * 4, stream=stream)]


def test_a_real_engine_is_killed_comes_back_and_is_not_served_when_changed(
    gateway: ServingProcess,
) -> None:
    answers = ask(gateway)
    (right,) = {one.text for one in answers}
    assert right
    first = engine_of(gateway)
    first.kill()

    def comes_back() -> bool:
        answers.extend(asked := ask(gateway))
        return asked[0].acknowledged

    wait_until(comes_back, "another engine")
    assert engine_of(gateway) != first
    answers += ask(gateway)
    assert all(one.text == right if one.acknowledged else is_clean(one) for one in answers)
    assert not all(one.acknowledged for one in answers), "it was away for seconds"
    assert gateway.steps() == [RELEASED]
    assert gateway.unlogged(answers) == []

    champion = gateway.home.ledger.champion()
    assert champion is not None
    path = gateway.home.store.path(champion.decision.bundle.adapter) / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    wait_until(lambda: gateway.health()[0] == 503, "its end")
    refused = ask(gateway)
    assert [(one.status, is_clean(one)) for one in refused] == [(503, True)] * 8
    wait_until(lambda: not psutil.Process(gateway.process.pid).children(), "the engine's end")
