"""What a training leaves in its run, besides the metrics of every step."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlops_assets.refs import BaseModelRef, SplitsRef
from mlops_assets.trackers import TrackedRun
from mlops_assets.training.spec import FinetuneSpec


def log_settings(
    run: TrackedRun, splits: SplitsRef, base: BaseModelRef, spec: FinetuneSpec
) -> None:
    """Log the settings and what they are applied to as parameters.

    Not the eval set: that is the evaluation's to name, in the same run, with its suites.
    """
    versions = splits.versions.by_name()
    del versions["eval_set_hash"]
    origin = {
        "base_model": base.name,
        "base_digest": base.artifact.digest,
        "train_rows": splits.rows.get("train"),
    }
    run.log_params(spec.read() | origin | versions)


def log_result(run: TrackedRun, summary: Mapping[str, Any], curve: Path) -> None:
    """Numbers as metrics ``final_...``, words as tags, and the loss curve as a file.

    The parts of the memory plan become ``final_memory_plan.PART``.
    """
    parts = {f"memory_plan.{part}": size for part, size in summary["memory_plan"].items()}
    figures = {name: value for name, value in summary.items() if name != "memory_plan"} | parts
    numbers = {name: value for name, value in figures.items() if isinstance(value, int | float)}
    run.log_metrics({f"final_{name}": float(value) for name, value in numbers.items()})
    run.set_tags({name: value for name, value in figures.items() if isinstance(value, str)})
    run.log_files("training", curve)
