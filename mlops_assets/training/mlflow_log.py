"""What a training leaves in the active MLflow run, besides the metrics of every step."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlops_assets.refs import BaseModelRef, SplitsRef
from mlops_assets.training.spec import FinetuneSpec


def log_settings(splits: SplitsRef, base: BaseModelRef, spec: FinetuneSpec) -> str:
    """Log the settings and what they are applied to as parameters; returns the experiment."""
    import mlflow

    if (run := mlflow.active_run()) is None:
        return ""
    origin = {
        "base_model": base.name,
        "base_digest": base.artifact.digest,
        "train_rows": splits.rows.get("train"),
    } | splits.versions.by_name()
    mlflow.log_params(spec.read() | origin)
    return str(run.info.experiment_id)


def log_result(summary: Mapping[str, Any], curve: Path) -> None:
    """Numbers as metrics ``final_...``, words as tags, and the loss curve as an artifact.

    The parts of the memory plan become ``final_memory_plan.PART``.
    """
    import mlflow

    if mlflow.active_run() is None:
        return
    parts = {f"memory_plan.{part}": size for part, size in summary["memory_plan"].items()}
    figures = {name: value for name, value in summary.items() if name != "memory_plan"} | parts
    numbers = {name: value for name, value in figures.items() if isinstance(value, int | float)}
    mlflow.log_metrics({f"final_{name}": float(value) for name, value in numbers.items()})
    mlflow.set_tags({name: value for name, value in figures.items() if isinstance(value, str)})
    mlflow.log_artifact(str(curve), "training")
