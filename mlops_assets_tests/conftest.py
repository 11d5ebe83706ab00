"""Homes for tests, and one real run of the job `lineage` that many tests look at."""

import functools
import gc
import itertools
import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from xdist.scheduler import LoadScopeScheduling

from mlops_assets.home import Home, run_lock
from mlops_assets.promotion import bill_of_materials
from mlops_assets.refs import Versions
from mlops_assets.training import compute_ceiling
from mlops_assets_tests.commands import OURS, SERVICES, Finished, execute_job
from mlops_assets_tests.made_once import made_once
from mlops_assets_tests.warm_process import fork_command

VERSIONS = Versions(data="d" * 32, prompts="p" * 64, eval_set="e" * 64)

pytest_plugins = ["mlops_assets_tests.small_evaluation", "mlops_assets_tests.daemon"]

FIRST = "test_lineage"
LONG = (
    "test_interruptions",
    "test_large_data",
    "test_loop",
    "test_memoisation",
    "test_real_engine",
    "test_reproduced_bytes",
    "test_served_model",
    "test_sweeps",
    "test_template_fidelity",
    "test_web",
)
"""Files of slow tests that take the longest."""
EVALUATION_FILES = ("test_answering", "test_evaluation", "test_report", "test_report_suites")


class ByFile(LoadScopeScheduling):
    """Gives a worker whole files, and one worker all the files that look at one evaluation.

    What a fixture took long to make is then made once. (xdist's own groups do not work with
    pytest 9.2: its issue 1386.)
    """

    def _split_scope(self, nodeid: str) -> str:
        file = Path(nodeid.partition("::")[0]).stem
        return EVALUATION_FILES[0] if file in EVALUATION_FILES else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    return ByFile(config, log)


def pytest_collection_finish() -> None:
    """What was imported so far stays: the collector need not look at it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Quick tests first: a mistake shows in seconds, not after a training.

    Of several workers one makes the lineage meanwhile, and at the end none waits for another
    that has just begun a long file.
    """
    shared = hasattr(config, "workerinput")

    def place(item: pytest.Item) -> tuple[bool, bool, bool]:
        file, slow = item.path.stem, item.get_closest_marker("slow") is not None
        return not (shared and file == FIRST), slow, not (shared and slow and file in LONG)

    items.sort(key=place)


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c() -> None:
    """Python's own answer to Ctrl-C, which a shell that starts us in the background ignores."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No test sees the developer's state, nor another test's."""
    _forget_services()
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(compute_ceiling, "SECONDS_EACH", 0.0)  # every home would measure it anew
    yield
    run_lock.release()
    _forget_services()


def _forget_services() -> None:
    """For good: mlflow.set_tracking_uri writes the environment, also in a fixture that others
    share, and what monkeypatch took away there it would put back."""
    for name in (*OURS, *SERVICES):
        os.environ.pop(name, None)


@functools.cache
def _few_components() -> tuple[Any, ...]:
    return tuple(itertools.islice(bill_of_materials._read_environment(), 5))


@pytest.fixture(autouse=True)
def distributions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bills of materials name a few: to check all of some 380 takes half a second each time."""
    monkeypatch.setattr(bill_of_materials, "_software", _few_components)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """An empty home, which MLOPS_HOME names."""
    home = Home(tmp_path / "home")
    home.prepare()
    return home


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database: making one takes MLflow seven seconds."""

    def make(folder: Path) -> None:
        import mlflow

        mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").search_experiments()

    return made_once(tmp_path_factory, "mlflow", make) / "mlflow.db"


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
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
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
        requests.post(f"{url}/moto-api/reset", timeout=60).raise_for_status()
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
        return fork_command("mlops", "status", "--json", home=self.home).json

    def copy(self, folder: Path) -> "LineageRun":
        """For a test that runs something in it: what others see stays as it was."""
        return LineageRun(shutil.copytree(self.home, folder / "home", symlinks=True), self.first)


@pytest.fixture(scope="session")
def lineage(tmp_path_factory: pytest.TempPathFactory) -> LineageRun:
    """The default profile's lineage, run cold by the real command."""

    def make(folder: Path) -> None:
        first = execute_job("lineage", home=folder / "home")
        assert first.code == 0, first.output
        (folder / "first.json").write_text(json.dumps(asdict(first)))

    folder = made_once(tmp_path_factory, "lineage", make)
    first = Finished(**json.loads((folder / "first.json").read_text()))
    return LineageRun(folder / "home", first)
