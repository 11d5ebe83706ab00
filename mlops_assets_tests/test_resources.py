"""The frame of every asset: refs as JSON, the run lock, MLflow's status, alerts."""

import dagster as dg
import mlflow
import pytest

from mlops_assets.artifacts import Artifact, LineageError
from mlops_assets.home import Home, RunLock, run_lock
from mlops_assets.jobs import run_failure_alert
from mlops_assets.monitoring_refs import DriftReportRef
from mlops_assets.ref_json import dump_ref, load_ref
from mlops_assets.refs import (
    RawDatasetRef,
)
from mlops_assets.resources import RESOURCES, Alerts, Tracking, Workspace
from mlops_assets.webhook import Message
from mlops_assets_tests.conftest import VERSIONS

RAW = RawDatasetRef("v1", "/data", True, {"tickets.jsonl": 5})


def test_a_ref_survives_json() -> None:
    ref = DriftReportRef(
        Artifact("drift_report", "k", "d", {"a": 1}), "drift", ("words",), 9, VERSIONS
    )
    assert load_ref(dump_ref(ref)) == ref


@pytest.mark.parametrize("data", [b"", b"[]", b'{"type": "Other"}', b'{"type": "RawDatasetRef"}'])
def test_anything_else_is_no_ref(data: bytes) -> None:
    with pytest.raises(LineageError):
        load_ref(data)


def test_a_run_reads_what_it_wrote_itself(home: Home) -> None:
    home.write_ref("raw_dataset", "run-1", b"one")
    home.write_ref("raw_dataset", "run-2", b"two")
    assert home.read_ref("raw_dataset", "run-1") == b"one"
    assert home.read_ref("raw_dataset", "run-3") == b"two"
    with pytest.raises(LineageError, match="never materialised"):
        home.read_ref("base_model", "run-1")


def test_steps_of_a_run_share_the_lock_and_other_runs_wait(home: Home) -> None:
    assert run_lock.hold(home, "run-1")
    assert not run_lock.hold(home, "run-1")
    another_process = RunLock()
    with pytest.raises(LineageError, match="run-1"):
        another_process.hold(home, "run-2")
    assert another_process.hold(home, "run-1"), "a step of the same run"
    another_process.release()


@dg.asset
def logged(
    context: dg.AssetExecutionContext, workspace: Workspace, tracking: Tracking
) -> dg.MaterializeResult[RawDatasetRef]:
    """Logs to MLflow."""
    with workspace.stage(context), tracking.attach(context) as run:
        run.log_metrics({"loss": 1.0})
    return dg.MaterializeResult(value=RAW)


@dg.asset
def broken(context: dg.AssetExecutionContext, workspace: Workspace, logged: RawDatasetRef) -> None:
    """Fails, in a step that does not use MLflow."""
    with workspace.stage(context):
        raise LineageError("The disk is on fire.", "Put it out.")


def mlflow_run(home: Home, dagster_run: str) -> mlflow.entities.Run:
    client = mlflow.MlflowClient(home.mlflow_uri)
    experiments = [item.experiment_id for item in client.search_experiments()]
    (run,) = client.search_runs(experiments, f"tags.dagster_run_id = '{dagster_run}'")
    return run


def test_the_mlflow_run_of_a_finished_run_is_finished(tracked_home: Home) -> None:
    result = dg.materialize([logged], resources=RESOURCES)
    run = mlflow_run(tracked_home, result.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"loss": 1.0}


def test_the_mlflow_run_of_a_failed_run_is_failed(tracked_home: Home) -> None:
    result = dg.materialize([logged, broken], resources=RESOURCES, raise_on_error=False)
    assert not result.success
    assert mlflow_run(tracked_home, result.run_id).info.status == "FAILED"
    failure = result.failure_data_for_node("broken")
    assert failure is not None
    assert "The disk is on fire. Put it out." in failure.error.to_string()


def test_a_killed_run_is_not_left_running(tracked_home: Home) -> None:
    """Nobody watches runs without the daemon: the next one says it."""
    killed, result = (dg.materialize([logged], resources=RESOURCES) for _ in range(2))
    client = mlflow.MlflowClient(tracked_home.mlflow_uri)
    client.update_run(mlflow_run(tracked_home, killed.run_id).info.run_id, status="RUNNING")
    last = dg.materialize([logged], resources=RESOURCES)
    statuses = [mlflow_run(tracked_home, run.run_id).info.status for run in (killed, result, last)]
    assert statuses == ["KILLED", "FINISHED", "FINISHED"]


def test_a_failed_run_alerts_people_and_corrects_mlflow(
    tracked_home: Home, webhook: list[object]
) -> None:
    """As the sensor sees it after the run's process was killed: MLflow still says RUNNING."""
    with dg.instance_for_test() as instance:
        result = dg.materialize(
            [logged, broken], instance=instance, resources=RESOURCES, raise_on_error=False
        )
        run = mlflow_run(tracked_home, result.run_id)
        mlflow.MlflowClient(tracked_home.mlflow_uri).update_run(run.info.run_id, status="RUNNING")
        context = dg.build_run_status_sensor_context(
            "run_failure_alert",
            dagster_instance=instance,
            dagster_run=result.dagster_run,
            dagster_event=instance.all_logs(result.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)[
                0
            ].get_dagster_event(),
        ).for_run_failure()
        run_failure_alert(context, alerts=Alerts())
    assert mlflow_run(tracked_home, result.run_id).info.status == "FAILED"
    (message,) = webhook
    assert result.run_id[:8] in str(message)


def test_an_unreachable_webhook_keeps_its_secret(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLOPS_ALERT_WEBHOOK", "http://127.0.0.1:9/token-1234")
    Alerts().send(Message("hello"))
    assert "did not take the message" in caplog.text
    assert "token-1234" not in caplog.text


def test_an_unreachable_mlflow_is_named(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    result = dg.materialize([logged], resources=RESOURCES, raise_on_error=False)
    failure = result.failure_data_for_node("logged")
    assert failure is not None
    assert "MLFLOW_TRACKING_URI" in failure.error.to_string()
