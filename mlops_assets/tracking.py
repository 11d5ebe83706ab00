"""MLflow under ``MLOPS_HOME`` or at ``MLFLOW_TRACKING_URI``: set up, and told of when it fails."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home

EXPERIMENT = "mlops-assets"
ADDRESS = "MLFLOW_TRACKING_URI"
LOCAL_UI = "http://127.0.0.1:5000"  # where `make dev` starts it


def ui_address() -> str:
    """Where people see what MLflow has: the tracking server, or the local UI."""
    server = os.environ.get(ADDRESS, "")
    return server.rstrip("/") if server.startswith("http") else LOCAL_UI


@contextmanager
def mlflow_environment_kept() -> Iterator[None]:
    """Undo what MLflow writes into the environment: there it means a choice of the user's."""
    before = os.environ.get(ADDRESS)
    try:
        yield
    finally:
        os.environ.pop(ADDRESS, None)
        if before is not None:
            os.environ[ADDRESS] = before


@contextmanager
def mlflow_reachable(home: Home) -> Iterator[None]:
    """Turn MLflow's own errors into a LineageError that names the server."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        raise LineageError(
            f"MLflow at {home.mlflow_label} cannot be used ({type(error).__name__}).",
            "Check MLFLOW_TRACKING_URI and that its server runs, then run again.",
        ) from error


def prepare_experiment(home: Home, name: str = EXPERIMENT) -> str:
    """Create the experiment with its artifacts under ``MLOPS_HOME``, not in the work folder.

    Returns its id. From here on MLflow's functions speak to the home's server.
    """
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    location = home.mlflow_artifacts.as_uri() if home.mlflow_is_local else None
    mlflow.set_tracking_uri(home.mlflow_uri)
    if (experiment := mlflow.get_experiment_by_name(name)) is not None:
        return str(experiment.experiment_id)
    return str(mlflow.create_experiment(name, artifact_location=location))


def end_killed_runs(home: Home, experiment: str, dagster_run: str) -> None:
    """Say of runs that SIGKILL or a power cut ended what they could not say themselves.

    One run at a time works in a home, so in its own database every run but this one's is over. On
    a server others may be at work: there nothing is touched.
    """
    import mlflow

    if not home.mlflow_is_local:
        return
    client = mlflow.MlflowClient()
    for run in client.search_runs([experiment], "attributes.status = 'RUNNING'"):
        if run.data.tags.get("dagster_run_id") != dagster_run:
            client.set_terminated(run.info.run_id, status="KILLED")
