"""Flags of a GrowthBook server: its own SDK against a real server that speaks its endpoint."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from openfeature import api

from mlops_assets.artifacts import LineageError
from mlops_assets.serving.traffic.flags import Flags, make_flags
from mlops_assets.serving.traffic.growthbook_flags import growthbook_provider
from mlops_assets_tests.waiting import wait_until

KEY = "sdk-test"
FEATURES = {
    "canary": {
        "defaultValue": False,
        "rules": [{"condition": {"tenant": {"$in": ["acme"]}}, "force": True}],
    },
    "everybody": {"defaultValue": True},
    "text": {"defaultValue": "false"},
}


class GrowthBook(BaseHTTPRequestHandler):
    """Answers `GET /api/features/KEY` as GrowthBook does, while it is up."""

    up = True

    def do_GET(self) -> None:
        known = self.path == f"/api/features/{KEY}"
        body = json.dumps({"status": 200, "features": FEATURES, "experiments": []}).encode()
        self.send_response(500 if not self.up else 200 if known else 404)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body if self.up and known else b"{}")

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def url() -> Iterator[str]:
    GrowthBook.up = True
    with ThreadingHTTPServer(("127.0.0.1", 0), GrowthBook) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
    api.clear_providers()


def test_features_decide_by_attributes(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROWTHBOOK_CLIENT_KEY", KEY)
    flags = make_flags("flags.yaml", url)
    assert flags.eligible("canary", "user", {"tenant": "acme"})
    assert not flags.eligible("canary", "user", {"tenant": "umbrella"})
    assert flags.eligible("everybody", "user", {})
    assert not flags.eligible("text", "user", {})  # a text is no yes
    assert not flags.eligible("unknown", "user", {})
    began = time.process_time()
    for number in range(200):
        flags.eligible("canary", f"user {number}", {"tenant": "acme"})
    assert (time.process_time() - began) / 200 < 5e-3  # no thread and no event loop for each
    flags.close()


def test_a_server_that_is_down_makes_nobody_eligible_until_it_is_up(url: str) -> None:
    GrowthBook.up = False
    flags = Flags(growthbook_provider(url, KEY, retry_every=0.05), seconds=0.0)
    assert not flags.eligible("everybody", "user", {})
    GrowthBook.up = True
    wait_until(lambda: flags.eligible("everybody", "user", {}), "the features")
    GrowthBook.up = False
    assert flags.eligible("canary", "user", {"tenant": "acme"})  # the last known features
    flags.close()


def test_without_a_key_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GROWTHBOOK_CLIENT_KEY", raising=False)
    with pytest.raises(LineageError, match="GROWTHBOOK_CLIENT_KEY"):
        make_flags("flags.yaml", "http://127.0.0.1:1")
