"""`make dev`: Dagster's web server with its daemon, MLflow's and the approval page."""

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
import requests

from mlops_assets.profiles import PROJECT
from mlops_assets_tests.commands import environment_for, script
from mlops_assets_tests.conftest import LineageRun

pytestmark = pytest.mark.slow

LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
SERVERS = ("dagster", "mlflow", "approvals")
STATUS = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what: Callable[[], Any], seconds: float = 120) -> Any:
    """The first result that is not None, asked for a few times a second."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (found := what()) is not None:
            return found
        time.sleep(0.3)
    raise TimeoutError


def reachable(url: str) -> bool | None:
    try:
        return requests.get(url, timeout=5).ok or None
    except requests.RequestException:
        return None


class Web:
    """The running servers."""

    def __init__(self, ports: dict[str, int], process: subprocess.Popen[bytes]) -> None:
        self.dagster, self.mlflow, self.approvals = (
            f"http://127.0.0.1:{ports[name]}" for name in SERVERS
        )
        self.process = process

    def query(self, text: str, **variables: Any) -> Any:
        body = {"query": text, "variables": variables}
        return requests.post(f"{self.dagster}/graphql", json=body, timeout=60).json()["data"]


@pytest.fixture(scope="module")
def web(lineage: LineageRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    home = lineage.copy(tmp_path_factory.mktemp("web")).home
    ports = {name: free_port() for name in SERVERS}
    options = [word for name in SERVERS for word in (f"--{name}-port", str(ports[name]))]
    process = subprocess.Popen(
        [script("mlops"), "dev", *options],
        cwd=PROJECT,
        env=environment_for(home),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    servers = Web(ports, process)
    try:
        wait_for(lambda: reachable(f"{servers.dagster}/server_info"))
        wait_for(lambda: reachable(servers.mlflow))
        wait_for(lambda: reachable(servers.approvals))
        yield servers
    finally:
        process.terminate()
        process.wait(60)


def test_a_run_launched_through_graphql_succeeds(web: Web) -> None:
    """What the UI's button Materialize sends."""
    selector = {
        "repositoryName": "__repository__",
        "repositoryLocationName": "mlops_assets",
        "jobName": "monitor",
    }
    launched = web.query(LAUNCH, params={"selector": selector, "runConfigData": {}})["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched

    def ended() -> str | None:
        status = web.query(STATUS, id=launched["run"]["runId"])["runOrError"]["status"]
        return status if status in ("SUCCESS", "FAILURE", "CANCELED") else None

    assert wait_for(ended) == "SUCCESS"


def test_the_servers_listen_on_loopback_only(web: Web) -> None:
    family = [psutil.Process(web.process.pid)]
    family += family[0].children(recursive=True)
    listening = {
        connection.laddr.ip
        for process in family
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening <= {"127.0.0.1", "::1"}
    assert listening


def test_mlflow_shows_the_registered_version(web: Web, lineage: LineageRun) -> None:
    found = requests.get(
        f"{web.mlflow}/api/2.0/mlflow/registered-models/search", timeout=30
    ).json()["registered_models"]
    aliases = {alias["alias"]: alias["version"] for alias in found[0]["aliases"]}
    assert aliases["champion"] == str(lineage.status["champion"]["version"])


def test_the_approval_page_lists_what_waits(web: Web) -> None:
    """The default profile approves by itself: nobody is waited for."""
    assert "Nothing waits for an approval" in requests.get(web.approvals, timeout=30).text
