"""The release and the gateway in Dagster: what people see, and what follows a step by itself."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from dagster import AssetMaterialization, materialize

from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home
from mlops_assets.release_alert import send_release_alerts
from mlops_assets.resources import RESOURCES
from mlops_assets.serving.defs import NOT_RUNNING, gateway, release
from mlops_assets.serving.gateway_commands import chat
from mlops_assets.serving.gateway_spec import GatewaySpec
from mlops_assets.serving.running_gateway import ask_gateway
from mlops_assets.serving.serving_home import ServingHome
from mlops_assets.state import read_state
from mlops_assets.summary import print_summary
from mlops_assets_tests.daemon import Daemon
from mlops_assets_tests.releasing import Release
from mlops_assets_tests.served_homes import promote


def seen(home: Home) -> dict[str, dict[str, Any]]:
    """The metadata of both assets, by name."""
    result = materialize([release, gateway], resources=RESOURCES, raise_on_error=True)
    found: dict[str, AssetMaterialization] = {
        event.asset_key.path[-1]: event.materialization  # type: ignore[union-attr]
        for event in result.get_asset_materialization_events()
    }
    return {
        name: {key: value.value for key, value in made.metadata.items()}
        for name, made in found.items()
    }


def rows(table: Any) -> list[dict[str, Any]]:
    return [record.data for record in table]


def rolled_back(home: Home) -> None:
    """Version 1 is released, version 2 was taken back by its error rate."""

    async def story() -> None:
        under_way = Release(home)
        promote(home, 1, "a")
        await under_way.reach("released 0 v1")
        promote(home, 2, "b")
        await under_way.reach("canary 5 v1")
        under_way.both(status=503, output="", error="engine_failed")
        await under_way.reach("rolled_back 0 v1")

    asyncio.run(story())


def test_without_a_gateway_a_promotion_waits(home: Home) -> None:
    promote(home, 1, "a")
    shown = seen(home)
    assert "waits for a gateway" in shown["release"]["state"]
    assert shown["gateway"]["status"] == NOT_RUNNING
    assert rows(shown["release"]["steps"].records) == []


def test_the_steps_and_the_numbers_that_decided_are_shown(home: Home) -> None:
    rolled_back(home)
    shown = seen(home)["release"]
    assert [row["step"] for row in rows(shown["steps"].records)] == [
        "released: version 1, 100%",
        "canary: version 2, 5%",
        "rolled_back: version 1, 100%",
    ]
    failed = [row for row in rows(shown["criteria"].records) if row["verdict"] == "FAIL"]
    assert failed[0]["criterion"] == "errors"
    assert [(row["version"], row["percent"]) for row in rows(shown["traffic"].records)] == [
        (1, 100)
    ]


class Health(BaseHTTPRequestHandler):
    """A gateway that is not ready, as load balancers see it."""

    def do_GET(self) -> None:
        engine = {"release": Home.from_environment().ledger.champion().decision.bundle.digest}  # type: ignore[union-attr]
        told = {
            "status": "unavailable",
            "config": GatewaySpec().digest,
            "stage": "canary",
            "percent": 5,
            "verdict": "No verdict yet: errors.",
            "engines": [engine | {"engine": "transformers", "state": "ready"}],
            "ledger": {"reachable": True, "read": "2026-11-22T10:00:00+00:00"},
        }
        body = json.dumps(told).encode()
        self.send_response(503)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def running(home: Home) -> Iterator[str]:
    promote(home, 1, "a")
    with HTTPServer(("127.0.0.1", 0), Health) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        files = ServingHome.of(home)
        files.prepare()
        files.note_address({"url": url})
        yield url
        server.shutdown()
        thread.join()


def test_the_running_gateway_is_asked(home: Home, running: str) -> None:
    shown = seen(home)["gateway"]
    assert shown["status"] == "unavailable"
    assert shown["verdict"] == "No verdict yet: errors."
    assert [row["state"] for row in rows(shown["engines"].records)] == ["ready"]
    assert shown["runs_with_these_settings"] is True
    assert shown["address"] == f"{running}/health"


def test_another_server_on_its_port_is_not_the_gateway(home: Home, running: str) -> None:
    """It was killed, so its address is still noted: no key goes there."""
    files = ServingHome.of(home)
    files.note_address({"url": running, "instance": "one that was killed"})
    assert seen(home)["gateway"]["status"] == NOT_RUNNING
    with pytest.raises(LineageError, match="No gateway"):
        chat("My router blinks red.")


def test_status_tells_of_the_gateway(
    home: Home, running: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_summary(read_state(home), ask_gateway(ServingHome.of(home)))
    shown = " ".join(capsys.readouterr().out.split())
    assert f"unavailable on {running}; version 1 ready; No verdict yet: errors" in shown
    assert "mlops chat" in shown.split("Next")[1]


def test_a_gateway_that_stopped_is_not_running(home: Home) -> None:
    files = ServingHome.of(home)
    files.prepare()
    files.note_address({"url": "http://127.0.0.1:9"})
    assert seen(home)["gateway"]["status"] == NOT_RUNNING


def test_people_are_told_once(home: Home, webhook: list[Any]) -> None:
    rolled_back(home)
    assert send_release_alerts(home, home.ledger.entries()) == "sent: 2"
    assert send_release_alerts(home, home.ledger.entries()) == "nothing to send"
    released, back = (message["text"] for message in webhook)
    assert "version 1 is released to all users" in released
    assert "version 1 is the champion again: a rollback" in back
    assert "errors" in back


def test_an_alert_waits_for_its_webhook(home: Home, webhook: list[Any]) -> None:
    from mlops_assets_tests.conftest import Webhook

    rolled_back(home)
    Webhook.status = 500
    try:
        assert "waiting: ledger entry" in send_release_alerts(home, home.ledger.entries())
    finally:
        Webhook.status = 200
    assert send_release_alerts(home, home.ledger.entries()) == "sent: 2"


def test_a_step_starts_one_run_and_a_rollback_lets_the_aliases_follow(
    daemon: Daemon, home: Home, webhook: list[Any]
) -> None:
    rolled_back(home)
    for _ in range(2):
        daemon.tick_sensors()
        assert len(daemon.started("follow_release", "release")) == 1
        assert len(daemon.started("reconcile", "rollback")) == 1
    assert len(webhook) == 2
