"""A sweep's runs: one parent, and one for each trial with its true status, nested in MLflow.

The trackers beside MLflow that the sweep's profile names hear of each of them.
"""

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home
from mlops_assets.trackers import (
    FAILED,
    FINISHED,
    KILLED,
    RunInfo,
    TrackedRun,
    require_installed,
    start_tracking,
)
from mlops_assets.tracking import EXPERIMENT, mlflow_reachable, prepare_experiment
from mlops_assets.training.sweep_spec import SweepSpec

if TYPE_CHECKING:
    from optuna import Study

RUN, STATE = "mlflow_run", "mlops.trial"


@contextmanager
def parent_run(
    home: Home, study: "Study", spec: SweepSpec, also: Collection[str]
) -> Iterator[TrackedRun]:
    """Yield the sweep's run, the same one whenever the sweep goes on.

    It ends FINISHED, FAILED on an expected error, KILLED when the sweep was interrupted.
    """
    require_installed(also)
    with mlflow_reachable(home):
        experiment = prepare_experiment(home)
        started = _start(experiment, study)
        study.set_user_attr(RUN, started)
        run = start_tracking(home, RunInfo(started, _name(study), EXPERIMENT), experiment, also)
        run.set_tags({"mlops.sweep": study.study_name, "trials": str(spec.trials)})
        space = {name: json.dumps(part.model_dump()) for name, part in spec.space.items()}
        run.log_params({f"space.{name}": text for name, text in space.items()})
    status = KILLED
    try:
        yield run
        status = FINISHED
    except LineageError:
        status = FAILED
        raise
    finally:
        run.finish(status)


@contextmanager
def trial_run(
    home: Home, parent: TrackedRun, number: int, also: Collection[str]
) -> Iterator[TrackedRun]:
    """Yield a trial's run. A pruned or interrupted trial ends KILLED."""
    import mlflow
    from optuna import TrialPruned

    name, within = f"trial {number}", parent.mlflow_run
    started = mlflow.start_run(
        experiment_id=parent.experiment, run_name=name, nested=True, parent_run_id=within
    )
    info = RunInfo(str(started.info.run_id), name, EXPERIMENT, group=within)
    run = start_tracking(home, info, parent.experiment, also)
    status, state = KILLED, "interrupted"
    try:
        yield run
        status, state = FINISHED, "complete"
    except TrialPruned:
        state = "pruned"
        raise
    except LineageError:
        status, state = FAILED, "failed"
        raise
    finally:
        run.set_tags({STATE: state})
        run.finish(status)


def end_interrupted(run: str | None) -> None:
    """Say of a trial's run that its process was killed, which it could not say itself."""
    import mlflow

    if run is not None and _exists(run):
        client = mlflow.MlflowClient()
        client.set_tag(run, STATE, "interrupted")
        client.set_terminated(run, status="KILLED")


def _start(experiment: str, study: "Study") -> str:
    import mlflow

    known = study.user_attrs.get(RUN)
    if known is not None and _exists(known):
        run: Any = mlflow.start_run(run_id=known)
    else:
        run = mlflow.start_run(experiment_id=experiment, run_name=_name(study))
    return str(run.info.run_id)


def _name(study: "Study") -> str:
    return f"sweep {study.study_name}"


def _exists(run: str) -> bool:
    """Whether MLflow still has the run: its database may be another one by now."""
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        return str(mlflow.MlflowClient().get_run(run).info.lifecycle_stage) == "active"
    except MlflowException:
        return False
