"""Weights & Biases as a further tracker (extra ``wandb``); nothing else here imports it.

The key, the server and the project's owner come from W&B's own environment variables
(``WANDB_API_KEY``, ``WANDB_BASE_URL``, ``WANDB_ENTITY``), and ``WANDB_MODE=offline`` keeps a run
on disk until ``wandb sync`` sends it. Each step of a Dagster run goes on with the same W&B run,
which bears MLflow's id.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlops_assets.artifacts import LineageError
from mlops_assets.trackers import FINISHED, RunInfo

STEP = "step"


class WandbTracker:
    """One W&B run. What goes wrong is W&B's own error."""

    def __init__(self, run: RunInfo, directory: Path) -> None:
        try:
            import wandb
        except ImportError as error:
            raise LineageError(
                "The package wandb is not installed.", "Install the extra `wandb`."
            ) from error
        self._run = wandb.init(
            project=run.experiment,
            id=run.id,
            name=run.name,
            group=run.group or None,
            dir=str(directory),
            resume="allow",
            # Dagster has the terminal and the logs; W&B reads neither, nor our code.
            settings=wandb.Settings(console="off", silent=True, disable_code=True),
        )
        # Our own count of steps is the axis: W&B's may not go back, as a resumed training's does.
        self._run.define_metric(STEP, hidden=True)
        self._run.define_metric("*", step_metric=STEP)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """W&B calls them the run's config."""
        self._run.config.update(dict(params), allow_val_change=True)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None) -> None:
        """Points of a curve, or, without a step, figures of the summary."""
        if step is None:
            self._run.summary.update(dict(metrics))
        else:
            self._run.log({**metrics, STEP: step})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """W&B's own tags have no values, so these stand in the config."""
        self.log_params(tags)

    def log_files(self, folder: str, files: Sequence[Path]) -> None:
        """One W&B artifact for the folder, of copies."""
        import wandb

        artifact = wandb.Artifact(f"{folder}-{self._run.id}", type=folder)
        for path in files:
            artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def finish(self, status: str) -> None:
        """W&B shows a run whose step failed as failed, until a later step goes on with it."""
        self._run.finish(exit_code=0 if status == FINISHED else 1)
