"""A sweep in MLflow: one parent run, and a nested run for each trial with its true status."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home
from mlops_assets.tracking import mlflow_reachable, prepare_experiment
from mlops_assets.training.sweep_spec import SweepSpec

if TYPE_CHECKING:
    from optuna import Study

RUN, STATE = "mlflow_run", "mlops.trial"


@contextmanager
def parent_run(home: Home, study: "Study", spec: SweepSpec) -> Iterator[str]:
    """Yield the id of the sweep's run, the same one whenever the sweep goes on.

    It ends FINISHED, FAILED on an expected error, KILLED when the sweep was interrupted.
    """
    import mlflow

    with mlflow_reachable(home):
        run = _start(prepare_experiment(home), study)
        study.set_user_attr(RUN, run)
        mlflow.set_tags({"mlops.sweep": study.study_name, "trials": spec.trials})
        space = {name: json.dumps(part.model_dump()) for name, part in spec.space.items()}
        mlflow.log_params({f"space.{name}": text for name, text in space.items()})
    status = "KILLED"
    try:
        yield run
        status = "FINISHED"
    except LineageError:
        status = "FAILED"
        raise
    finally:
        mlflow.end_run(status)


@contextmanager
def trial_run(parent: str, number: int) -> Iterator[str]:
    """Yield the id of a trial's run. A pruned or interrupted trial ends KILLED."""
    import mlflow
    from optuna import TrialPruned

    experiment = mlflow.MlflowClient().get_run(parent).info.experiment_id
    run = mlflow.start_run(
        experiment_id=experiment, run_name=f"trial {number}", nested=True, parent_run_id=parent
    )
    status, state = "KILLED", "interrupted"
    try:
        yield str(run.info.run_id)
        status, state = "FINISHED", "complete"
    except TrialPruned:
        state = "pruned"
        raise
    except LineageError:
        status, state = "FAILED", "failed"
        raise
    finally:
        mlflow.set_tag(STATE, state)
        mlflow.end_run(status)


def end_interrupted(run: str | None) -> None:
    """Say of a trial's run that its process was killed, which it could not say itself."""
    import mlflow

    if run is not None and _exists(run):
        client = mlflow.MlflowClient()
        client.set_tag(run, STATE, "interrupted")
        client.set_terminated(run, status="KILLED")


def log_best(parent: str, name: str, value: float, number: int) -> None:
    """The best value after trial ``number``, as a metric of the parent."""
    import mlflow

    mlflow.MlflowClient().log_metric(parent, f"best_{name}", value, step=number)


def log_files(*paths: Path | None) -> None:
    """Keep files with the active run."""
    import mlflow

    for path in paths:
        if path is not None:
            mlflow.log_artifact(str(path), "sweep")


def _start(experiment: str, study: "Study") -> str:
    import mlflow

    known = study.user_attrs.get(RUN)
    if known is not None and _exists(known):
        run: Any = mlflow.start_run(run_id=known)
    else:
        name = f"sweep {study.study_name}"
        run = mlflow.start_run(experiment_id=experiment, run_name=name)
    return str(run.info.run_id)


def _exists(run: str) -> bool:
    """Whether MLflow still has the run: its database may be another one by now."""
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        return str(mlflow.MlflowClient().get_run(run).info.lifecycle_stage) == "active"
    except MlflowException:
        return False
