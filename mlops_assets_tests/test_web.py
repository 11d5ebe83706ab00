"""`make dev`: Dagster's web server with its daemon, MLflow's and the approval page."""

import subprocess
from collections.abc import Iterator
from functools import partial
from typing import Any

import psutil
import pytest
import requests

from mlops_assets.profiles import PROJECT
from mlops_assets_tests.commands import environment_for, script
from mlops_assets_tests.conftest import LineageRun
from mlops_assets_tests.engine_server import free_port
from mlops_assets_tests.serving_process import START
from mlops_assets_tests.waiting import wait_until

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


def reachable(url: str) -> bool:
    try:
        return requests.get(url, timeout=60).ok
    except requests.RequestException:
        return False


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
        for url in (f"{servers.dagster}/server_info", servers.mlflow, servers.approvals):
            wait_until(partial(reachable, url), url, START)
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

    assert wait_until(ended, "the run's end", START) == "SUCCESS"


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
        f"{web.mlflow}/api/2.0/mlflow/registered-models/search", timeout=60
    ).json()["registered_models"]
    aliases = {alias["alias"]: alias["version"] for alias in found[0]["aliases"]}
    assert aliases["champion"] == str(lineage.status["champion"]["version"])


def test_the_approval_page_lists_what_waits(web: Web) -> None:
    """The default profile approves by itself: nobody is waited for."""
    assert "Nothing waits for an approval" in requests.get(web.approvals, timeout=60).text
