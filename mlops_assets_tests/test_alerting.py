"""From an engine that dies to a person who hears of it: gateway, Prometheus, Alertmanager, webhook.

All of them are real, on loopback.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from mlops_assets.home import Home
from mlops_assets.serving.gateway.api_keys import METRICS
from mlops_assets_tests.engine_server import EngineProcess, engine_process
from mlops_assets_tests.prometheus_server import alertmanager, program, prometheus, query
from mlops_assets_tests.served_homes import approved_home
from mlops_assets_tests.serving_process import V1, hosted, serving
from mlops_assets_tests.shown_metrics import CALM, report_drift
from mlops_assets_tests.waiting import wait_until

pytestmark = pytest.mark.slow


@dataclass
class Watched:
    """A gateway that is watched, and what people were told."""

    home: Home
    engine: EngineProcess
    prometheus: str
    alertmanager: str
    told: list[Any]
    """Bodies that the webhook got."""

    def attachment(self, title: str) -> dict[str, Any]:
        """The first message with this title, once it has come."""
        return wait_until(lambda: self._find(title), f"a message {title!r}")

    def _find(self, title: str) -> dict[str, Any] | None:
        sent = (one for body in self.told for one in body["attachments"])
        return next((one for one in sent if one["title"] == title), None)

    def firing(self) -> set[str]:
        """Names of the alerts that Prometheus has on."""
        found = query(self.prometheus, 'ALERTS{alertstate="firing"}')
        return {one["metric"]["alertname"] for one in found}

    def kept_back(self) -> set[str]:
        """Names of the alerts that people do not hear of, because of another."""
        url = f"{self.alertmanager}/api/v2/alerts?inhibited=true&active=false"
        found = requests.get(url, timeout=60).json()
        return {one["labels"]["alertname"] for one in found}


@pytest.fixture
def watched(tmp_path: Path, webhook: list[object]) -> Iterator[Watched]:
    for needed in ("prometheus", "prometheus-alertmanager"):
        program(needed)
    home = approved_home(tmp_path)
    with ExitStack() as stack:
        engine = stack.enter_context(engine_process(V1))
        settings = hosted(engine) | {"engine_backoff_s": 0.1}
        gateway = stack.enter_context(serving(home, gateway=settings))
        manager = stack.enter_context(
            alertmanager(tmp_path / "alertmanager", os.environ["MLOPS_ALERT_WEBHOOK"])
        )
        key = gateway.new_key("prometheus", METRICS)
        server = stack.enter_context(
            prometheus(tmp_path / "prometheus", key, gateway=gateway.url, alertmanager=manager)
        )
        wait_until(lambda: len(query(server, "up == 1")) == 2, "both targets")
        yield Watched(home, engine, server, manager, webhook)


def test_people_hear_of_a_dead_engine_and_of_drift_and_when_they_are_over(
    watched: Watched,
) -> None:
    wait_until(lambda: query(watched.prometheus, "mlops_engine_up == 1"), "metrics")
    assert not watched.firing() & {"GatewayDown", "EngineDown", "DriftDetected"}

    watched.engine.kill()
    report_drift(watched.home)
    dead = watched.attachment("CRITICAL: EngineDown")
    assert dead["color"] == "danger"
    assert "is not ready." in dead["text"]
    assert "/admin/state" in dead["text"], "the remedy"
    drifted = watched.attachment("WARNING: DriftDetected")
    assert "Production has drifted in the layer data." in drifted["text"]
    assert drifted["color"] == "warning"

    # That it is restarted again and again follows from that.
    wait_until(lambda: "EngineRestarts" in watched.kept_back(), "the inhibition")

    watched.engine.start()
    report_drift(watched.home, CALM)
    assert watched.attachment("Resolved: EngineDown")["color"] == "good"
    assert "is over" in watched.attachment("Resolved: DriftDetected")["text"]
    assert not watched.firing() & {"EngineDown", "DriftDetected"}

    groups = requests.get(f"{watched.prometheus}/api/v1/rules", timeout=60).json()["data"]["groups"]
    assert {rule["health"] for group in groups for rule in group["rules"]} == {"ok"}
    assert query(watched.prometheus, 'alertmanager_notifications_failed_total{integration="slack"}')
