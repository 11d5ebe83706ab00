"""Trackers beside MLflow: they hear the same as MLflow does, and their failures harm nothing."""

import json
import logging
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import dagster as dg
import mlflow
import optuna
import pytest

from mlops_assets.artifacts import digest_file
from mlops_assets.evaluation.defs import eval_report
from mlops_assets.home import Home
from mlops_assets.profiles import PROJECT
from mlops_assets.ref_json import dump_ref
from mlops_assets.refs import RawDatasetRef
from mlops_assets.resources import RESOURCES, Tracking, Workspace
from mlops_assets.trackers import GROUP, RunInfo
from mlops_assets.tracking import mlflow_environment_kept
from mlops_assets.training.defs import lora_adapter
from mlops_assets.training.sweep_runs import parent_run, trial_run
from mlops_assets.training.sweep_spec import SweepSpec
from mlops_assets.wandb_tracker import WandbTracker
from mlops_assets_tests.small_training import SPEC, make_inputs

BROKEN = ("start", "params", "metrics", "files", "finish")


@pytest.fixture(autouse=True)
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trackers of ``notes_tracker``, installed as packages are: by metadata."""
    site = tmp_path / "site"
    metadata = site / "notes_tracker-1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: notes-tracker\nVersion: 1\n")
    names = {f"broken_{at}": f"Broken{at.title()}" for at in BROKEN} | {"notes": "Notes"}
    lines = [f"{name} = mlops_assets_tests.notes_tracker:{found}" for name, found in names.items()]
    (metadata / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines, ""]))
    monkeypatch.syspath_prepend(str(site))


def told(home: Home, kind: str, tracker: str = "notes") -> list[dict[str, Any]]:
    """What a tracker was told, in order."""
    lines = (home.root / "trackers" / tracker / "notes.jsonl").read_text().splitlines()
    return [note for note in map(json.loads, lines) if note["kind"] == kind]


def merged(home: Home, kind: str) -> dict[str, Any]:
    """The last word on each name."""
    return {name: value for note in told(home, kind) for name, value in note["values"].items()}


@pytest.fixture
def complaints() -> Iterator[list[logging.LogRecord]]:
    """What trackers' failures make us say; a stage sends it to Dagster and nowhere else."""
    found: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = found.append  # type: ignore[method-assign]
    logger = logging.getLogger("mlops_assets.trackers")
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)


def only_run(home: Home) -> Any:
    client = mlflow.MlflowClient(home.mlflow_uri)
    (run,) = client.search_runs([item.experiment_id for item in client.search_experiments()])
    return run


@pytest.fixture
def suites(tmp_path: Path) -> Path:
    """A directory with one suite of one item."""
    folder = tmp_path / "suites"
    folder.mkdir()
    spec = (
        "about: One.\nkind: golden\nitems: golden.jsonl\nmetrics: [exact_match]\nfields: [queue]\n"
    )
    (folder / "golden.yaml").write_text(spec)
    asked = [{"role": "user", "content": "Hello, parcel late number 3!"}]
    item = {"id": "late", "messages": asked, "expected": {"queue": "shipping"}}
    (folder / "golden.jsonl").write_text(json.dumps(item) + "\n")
    return folder


@pytest.mark.slow
def test_a_further_tracker_hears_what_mlflow_hears(
    tracked_home: Home, complaints: list[logging.LogRecord], suites: Path
) -> None:
    """A real training and evaluation; the stages' code does not know who listens."""
    splits, base = make_inputs(tracked_home.store)
    tracked_home.write_ref("dataset_splits", "run", dump_ref(splits))
    tracked_home.write_ref("base_model", "run", dump_ref(base))
    upstream = [dg.AssetSpec(name) for name in ("dataset_splits", "base_model")]
    settings = SPEC.model_dump(exclude_unset=True) | {"epochs": 1}
    measure = {"max_new_tokens": 6, "latency_requests": 1, "ragas_rows": 2, "suites": str(suites)}
    result = dg.materialize(
        [*upstream, lora_adapter, eval_report],
        selection=[lora_adapter, eval_report],
        resources=RESOURCES,
        run_config={
            "ops": {"lora_adapter": {"config": settings}, "eval_report": {"config": measure}},
            "resources": {"tracking": {"config": {"also": ["broken_metrics", "notes"]}}},
        },
    )
    assert result.success
    run, client = only_run(tracked_home), mlflow.MlflowClient(tracked_home.mlflow_uri)
    assert {note["run"] for note in told(tracked_home, "params")} == {run.info.run_id}
    assert merged(tracked_home, "params") == run.data.params
    assert {"rank", "base_digest", "eval_set_hash"} <= run.data.params.keys()
    assert merged(tracked_home, "metrics") == pytest.approx(run.data.metrics)
    measured = {"eval/exact_match/tuned", "eval/suites/golden/exact_match"}
    assert {"loss", "final_train_loss"} | measured <= run.data.metrics.keys()
    assert merged(tracked_home, "tags").items() <= run.data.tags.items()
    steps = [note["step"] for note in told(tracked_home, "metrics") if "loss" in note["values"]]
    assert steps == [point.step for point in client.get_metric_history(run.info.run_id, "loss")]
    assert len(steps) > 2
    files = merged(tracked_home, "files")
    assert {"training/loss.png", "evaluation/records.parquet"} <= set(files)
    for name, digest in files.items():
        assert digest_file(Path(client.download_artifacts(run.info.run_id, name))) == digest
    assert [note["status"] for note in told(tracked_home, "finish")] == ["FINISHED", "FINISHED"]
    # The other one failed at the first step: once, although training and evaluation told it more.
    assert told(tracked_home, "params", "broken_metrics")
    (said,) = complaints
    assert said.getMessage().startswith("the tracker broken_metrics failed")


@dg.asset
def logged(
    context: dg.AssetExecutionContext, workspace: Workspace, tracking: Tracking
) -> dg.MaterializeResult[RawDatasetRef]:
    """Logs everything that can be logged, in two stages of a run."""
    for step in (1, 2):
        with workspace.stage(context), tracking.attach(context) as run:
            run.log_params({"rank": 8})
            run.log_metrics({"loss": 1.0 / step}, step)
            run.set_tags({"device": "cpu"})
            run.log_files("notes", PROJECT / "pyproject.toml")
    return dg.MaterializeResult(value=RawDatasetRef("v1", "/data", True, {}))


@pytest.mark.parametrize("at", BROKEN)
def test_a_tracker_that_fails_harms_nothing(
    tracked_home: Home, complaints: list[logging.LogRecord], at: str
) -> None:
    resources = RESOURCES | {"tracking": Tracking(also=[f"broken_{at}", "notes"])}
    assert dg.materialize([logged], resources=resources).success
    run, client = only_run(tracked_home), mlflow.MlflowClient(tracked_home.mlflow_uri)
    assert run.info.status == "FINISHED"
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 2
    assert len(told(tracked_home, "finish")) == 2, "the other tracker goes on"
    (said,) = complaints
    assert said.levelname == "ERROR"
    assert f"broken_{at}" in said.getMessage()
    assert said.getMessage().endswith("ConnectionError")
    assert "topsecret" not in logging.Formatter().format(said)


def test_a_tracker_that_nobody_installed_is_refused_at_the_start(tracked_home: Home) -> None:
    result = dg.materialize(
        [logged],
        resources=RESOURCES,
        run_config={"resources": {"tracking": {"config": {"also": ["os:system"]}}}},
        raise_on_error=False,
    )
    failure = result.failure_data_for_node("logged")
    assert failure is not None
    said = failure.error.to_string()
    assert "names the tracker 'os:system', which is not installed" in said
    assert "notes" in said
    client = mlflow.MlflowClient(tracked_home.mlflow_uri)
    assert not client.search_runs([item.experiment_id for item in client.search_experiments()])


def test_a_failed_stage_is_told_as_failed(tracked_home: Home) -> None:
    @dg.asset
    def failing(context: dg.AssetExecutionContext, tracking: Tracking) -> None:
        with tracking.attach(context):
            raise ValueError("no")

    resources = RESOURCES | {"tracking": Tracking(also=["notes"])}
    dg.materialize([failing], resources=resources, raise_on_error=False)
    assert [note["status"] for note in told(tracked_home, "finish")] == ["FAILED"]
    assert only_run(tracked_home).info.status == "FAILED"


def test_a_sweep_tells_of_itself_and_of_every_trial(tracked_home: Home) -> None:
    study = optuna.create_study(study_name="tiny")
    space = {"learning_rate": {"low": 1e-5, "high": 0.05, "log": True}}
    spec = SweepSpec(profile="tiny", trials=2, space=space)
    with (
        mlflow_environment_kept(),
        parent_run(tracked_home, study, spec, ["notes"]) as parent,
        suppress(optuna.TrialPruned),
        trial_run(tracked_home, parent, 0, ["notes"]) as trial,
    ):
        trial.log_metrics({"loss": 1.0}, 1)
        raise optuna.TrialPruned
    assert [note["run"] for note in told(tracked_home, "metrics")] == [trial.mlflow_run]
    assert [(note["run"], note["status"]) for note in told(tracked_home, "finish")] == [
        (trial.mlflow_run, "KILLED"),
        (parent.mlflow_run, "FINISHED"),
    ]
    assert merged(tracked_home, "tags")["mlops.trial"] == "pruned"


def test_no_stage_logs_to_a_tracker_by_name() -> None:
    stages = list(PROJECT.glob("mlops_assets/*/*.py"))
    assert stages
    calls = re.compile(r"mlflow\.(log_|set_tag)|import wandb")
    assert [path.name for path in stages if calls.search(path.read_text())] == []


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    reason = "the extra `wandb` is not among the development tools"
    wandb = pytest.importorskip("wandb", reason=reason)
    monkeypatch.setenv("WANDB_MODE", "offline")
    yield wandb
    wandb.teardown()


@pytest.mark.slow
def test_weights_and_biases_keeps_a_run_offline(offline: Any, tracked_home: Home) -> None:
    """Two stages of one run; what W&B would send lies in its own files."""
    tracker = WandbTracker
    folder = tracked_home.root / "trackers" / "wandb"
    folder.mkdir(parents=True)
    for stage in ("training", "evaluation"):
        run = tracker(RunInfo("a" * 32, "lineage", "mlops-assets"), folder)
        run.log_params({"rank": 8})
        run.log_metrics({"loss": 0.5}, 2)
        run.log_metrics({"loss": 0.75}, 1)
        run.log_metrics({f"final_{stage}": 0.25}, None)
        run.set_tags({"device": "cpu"})
        run.log_files(stage, [PROJECT / "pyproject.toml"])
        run.finish("FINISHED")
    kept = sorted(folder.glob("wandb/offline-run-*/*.wandb"))
    assert len(kept) == 2
    for stage, path in zip(("training", "evaluation"), kept, strict=True):
        content = path.read_bytes()
        for said in ("rank", "loss", f"final_{stage}", "device", f"{stage}-{'a' * 32}"):
            assert said.encode() in content
