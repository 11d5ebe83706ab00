"""Killed between any two writes of a registration, or without its registry: the next run heals.

Both assets of the stage run as in a job, from the gate's row on the ledger to the aliases, against
the real MLflow on SQLite. The writes are counted: a process is killed after the first, after the
second, and so on, until one lives to the end.
"""

import filecmp
import socket
from typing import Any
from urllib.parse import urlparse

import dagster as dg
import pytest
from mlflow import MlflowClient

from mlops_assets.artifacts import ArtifactStore
from mlops_assets.evaluation.gate import record_verdict
from mlops_assets.home import Home
from mlops_assets.ledger import Ledger
from mlops_assets.promotion import automatic, package
from mlops_assets.promotion.approval import reconcile
from mlops_assets.promotion.audit import audit
from mlops_assets.promotion.submission import Submission
from mlops_assets.promotion.version_tags import REQUIRED
from mlops_assets.verdicts import read_gate
from mlops_assets_tests.submissions import NAME, client, make_submission
from mlops_assets_tests.sudden_death import killed_after
from mlops_assets_tests.test_approval_request import outcomes
from mlops_assets_tests.test_promotion import materialize

WRITES: tuple[tuple[Any, str], ...] = (
    (Ledger, "_insert"),
    (package, "_write_mlmodel"),
    (ArtifactStore, "build"),
    (MlflowClient, "create_experiment"),
    (MlflowClient, "create_run"),
    (MlflowClient, "log_artifacts"),
    (MlflowClient, "set_terminated"),
    (MlflowClient, "create_registered_model"),
    (MlflowClient, "create_model_version"),
    (MlflowClient, "set_model_version_tag"),
    (MlflowClient, "set_registered_model_alias"),
    (MlflowClient, "delete_registered_model_alias"),
    (automatic, "new_key"),
    (automatic, "add_approver"),
)
POINTS = (
    "the gate's row",
    "a package without its manifest",
    "the package in the store",
    "the experiment",
    "the MLflow run",
    "the upload",
    "the run's end",
    "the registered model",
    "the version with its tags",
    "the alias candidate",
    "the request",
    "the machine's key",
    "the key on the list",
    "the approval",
    "the promotion",
    "the alias champion",
)
"""What has just been written when the process dies."""
ROWS = ("the gate's row", "the request", "the approval", "the promotion")
OUTCOMES = ["passed", "requested", "approved", "promoted"]


def run(home: Home, submission: Submission) -> dg.ExecuteInProcessResult:
    """The gate's row, the version, the request, the approval by this machine, the aliases."""
    gate = read_gate(home.store, submission.gate)
    record_verdict(home.ledger, NAME, submission.gate, gate)
    with dg.DagsterInstance.ephemeral() as instance:
        result: dg.ExecuteInProcessResult = materialize(submission, instance)
    return result


def reached(writes: int, point: str) -> bool:
    """Whether so many writes are enough for this one."""
    return writes > POINTS.index(point)


def aliases_after(writes: int) -> dict[str, int]:
    """What the ledger and the registered versions amount to, whatever was written of it."""
    named = {"candidate": reached(writes, "the version with its tags")}
    named["champion"] = reached(writes, "the approval")
    named["challenger"] = reached(writes, "the request") and not named["champion"]
    return {alias: 1 for alias, stands in named.items() if stands}


@pytest.mark.slow
@pytest.mark.parametrize("writes", range(1, len(POINTS) + 2), ids=(*POINTS, "nothing more"))
def test_killed_after_any_write_everything_agrees(tracked_home: Home, writes: int) -> None:
    home, submission = tracked_home, make_submission(tracked_home)
    dies = killed_after(writes, lambda: run(home, submission), WRITES)
    assert dies == (writes <= len(POINTS))
    assert outcomes(home) == OUTCOMES[: sum(reached(writes, row) for row in ROWS)]
    assert dict(reconcile(home)[NAME]) == aliases_after(writes)
    assert audit(home).problems == ()
    assert run(home, submission).success
    assert outcomes(home) == OUTCOMES
    assert audit(home).problems == ()
    assert dict(reconcile(home)[NAME]) == {"candidate": 1, "champion": 1}
    (version,) = client(home).search_model_versions(f"name = '{NAME}'")
    assert all(version.tags[name] for name in (*REQUIRED, "package_digest"))
    assert version.description.startswith(f"# {NAME}")
    built = home.store.find(package.KIND, version.tags["package_key"])
    assert built is not None
    uploaded = filecmp.dircmp(home.store.path(built), urlparse(version.source).path)
    assert set(uploaded.left_only) <= {"manifest.json"}
    for part in (uploaded, uploaded.subdirs[package.ADAPTER]):
        assert (part.right_only, part.diff_files) == ([], [])
    assert uploaded.subdirs[package.ADAPTER].left_only == []
    tracked = client(home).search_runs(["1"])
    assert "RUNNING" not in {each.info.status for each in tracked}


def test_without_mlflow_the_registration_waits_and_the_error_says_so(
    tracked_home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, submission = tracked_home, make_submission(tracked_home)
    with monkeypatch.context() as down, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nobody listens, and nobody else can begin to
        down.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed.getsockname()[1]}")
        down.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        failed = run(home, submission)
    assert not failed.success
    said = failed.failure_data_for_node("registered_model").error.message
    assert "MLFLOW_TRACKING_URI" in said
    assert outcomes(home) == ["passed"]
    assert run(home, submission).success
    assert outcomes(home) == OUTCOMES
    assert dict(reconcile(home)[NAME]) == {"candidate": 1, "champion": 1}
