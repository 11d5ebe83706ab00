"""What a training leaves in the active MLflow run, besides the metrics of every step."""

from collections.abc import Mapping
from pathlib import Path

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


def log_result(summary: Mapping[str, float], curve: Path) -> None:
    """The final figures as metrics ``final_...``, and the loss curve as an artifact."""
    import mlflow

    if mlflow.active_run() is None:
        return
    numbers = {f"final_{name}": float(value) for name, value in summary.items()}
    mlflow.log_metrics(numbers)
    mlflow.log_artifact(str(curve), "training")
