"""Homes for tests, and one real run of the job `lineage` that many tests look at."""

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from xdist.scheduler import LoadScopeScheduling

from mlops_assets.home import Home, run_lock
from mlops_assets.refs import Versions
from mlops_assets_tests.commands import OURS, SERVICES, Finished, execute_job, run_command

VERSIONS = Versions(data="d" * 32, prompts="p" * 64, eval_set="e" * 64)

pytest_plugins = ["mlops_assets_tests.small_evaluation", "mlops_assets_tests.daemon"]

LINEAGE_FILES = (
    "test_bad_input",
    "test_layout",
    "test_lineage",
    "test_reevaluation",
    "test_served_model",
    "test_web",
)
EVALUATION_FILES = ("test_answering", "test_evaluation", "test_report", "test_report_suites")


class ByFile(LoadScopeScheduling):
    """Gives a worker whole files, and one worker all the files that look at the lineage,
    or at one evaluation.

    What a fixture took long to make is then made once. (xdist's own groups do not work with
    pytest 9.2: its issue 1386.)
    """

    def _split_scope(self, nodeid: str) -> str:
        file = Path(nodeid.partition("::")[0]).stem
        for group in (LINEAGE_FILES, EVALUATION_FILES):
            if file in group:
                return group[0]
        return file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    return ByFile(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Quick tests first: a mistake shows in seconds, not after a training.

    On several workers the lineage goes first: it takes one of them half of the time.
    """
    shared = hasattr(config, "workerinput")
    items.sort(
        key=lambda item: (
            shared and item.path.stem not in LINEAGE_FILES,
            item.get_closest_marker("slow") is not None,
        )
    )


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c() -> None:
    """Python's own answer to Ctrl-C, which a shell that starts us in the background ignores."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No test sees the developer's state, nor another test's."""
    _forget_services()
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path / "home"))
    yield
    run_lock.release()
    _forget_services()


def _forget_services() -> None:
    """For good: mlflow.set_tracking_uri writes the environment, also in a fixture that others
    share, and what monkeypatch took away there it would put back."""
    for name in (*OURS, *SERVICES):
        os.environ.pop(name, None)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """An empty home, which MLOPS_HOME names."""
    home = Home(tmp_path / "home")
    home.prepare()
    return home


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database: making one takes MLflow seven seconds."""
    import mlflow

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def tracked_home(home: Home, migrated_database: Path) -> Home:
    """A home whose MLflow database exists already."""
    shutil.copyfile(migrated_database, home.mlflow_database)
    return home


class Webhook(BaseHTTPRequestHandler):
    """Takes what a Slack webhook takes."""

    received: list[object]
    status = 200

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        type(self).received.append(json.loads(body))
        self.send_response(type(self).status)
        if self.status == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    Webhook.received = []
    with HTTPServer(("127.0.0.1", 0), Webhook) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("MLOPS_ALERT_WEBHOOK", f"http://127.0.0.1:{server.server_port}/secret")
        yield Webhook.received
        server.shutdown()
        thread.join()


@dataclass(frozen=True)
class S3Server:
    """A real S3 API server on loopback, and a client of it."""

    url: str
    client: Any


@pytest.fixture
def s3_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """An empty server, for which the environment has a key."""
    import boto3
    from moto.server import ThreadedMotoServer

    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        url = "http://{}:{}".format(*server.get_host_and_port())
        requests.post(f"{url}/moto-api/reset", timeout=10).raise_for_status()
        yield S3Server(url, boto3.client("s3", endpoint_url=url))
    finally:
        server.stop()


@dataclass(frozen=True)
class LineageRun:
    """A home in which the job `lineage` ran once from nothing."""

    home: Path
    first: Finished

    @property
    def status(self) -> Any:
        return run_command("mlops", "status", "--json", home=self.home).json

    def copy(self, folder: Path) -> "LineageRun":
        """For a test that runs something in it: what others see stays as it was."""
        return LineageRun(shutil.copytree(self.home, folder / "home", symlinks=True), self.first)


@pytest.fixture(scope="session")
def lineage(tmp_path_factory: pytest.TempPathFactory) -> LineageRun:
    """The default profile's lineage, run cold by the real command."""
    home = tmp_path_factory.mktemp("lineage") / "home"
    first = execute_job("lineage", home=home)
    assert first.code == 0, first.output
    return LineageRun(home, first)
