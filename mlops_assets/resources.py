"""What the assets stand on: the workspace on disk, MLflow tracking, refs as JSON, alerts.

Everything lies under ``MLOPS_HOME`` (default ``.mlops``) unless an environment variable
names a service: ``MLFLOW_TRACKING_URI``, ``MLOPS_LEDGER_URL``, ``MLOPS_ALERT_WEBHOOK``.
Setting a resource up does no work, because Dagster does it in more processes than one.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import dagster as dg
from pydantic import BaseModel, Field

from mlops_assets.artifacts import ArtifactStore, LineageError
from mlops_assets.cost import Rates
from mlops_assets.home import Home, run_lock, translate_disk_full
from mlops_assets.profiles import DEFAULT_MODEL, check_settings, restrict
from mlops_assets.ref_json import Ref, dump_ref, load_ref
from mlops_assets.trackers import (
    FAILED,
    FINISHED,
    RunInfo,
    TrackedRun,
    require_installed,
    start_tracking,
    trackers_of,
)
from mlops_assets.tracking import (
    EXPERIMENT,
    end_killed_runs,
    mlflow_environment_kept,
    mlflow_reachable,
    prepare_experiment,
)
from mlops_assets.webhook import Message, Undelivered, post

logger = logging.getLogger(__name__)

StageContext = dg.AssetExecutionContext | dg.AssetCheckExecutionContext


class Workspace(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The state on disk, and the frame in which every asset's work runs."""

    model: str = Field(
        default=DEFAULT_MODEL,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        description="Name of the model in the registry and in the ledger; it has one champion.",
    )

    @property
    def home(self) -> Home:
        """Where things lie."""
        return Home.from_environment()

    @contextmanager
    def stage(self, context: StageContext) -> Iterator[ArtifactStore]:
        """Hold the run lock, yield the store, and turn expected errors into a ``Failure``."""
        home = self.home
        try:
            with translate_disk_full(home.root), _forwarded_logs(context):
                if run_lock.hold(home, context.run.run_id, is_over=_is_over(context)):
                    _check_settings(context)
                yield home.store
        except LineageError as error:
            fail_mlflow_run(home, context.run.run_id)
            raise dg.Failure(str(error), allow_retries=False) from error
        except (Exception, dg.DagsterExecutionInterruptedError):
            fail_mlflow_run(home, context.run.run_id)
            raise

    @contextmanager
    def looking(self, context: StageContext) -> Iterator[None]:
        """As ``stage`` for what only looks: no lock, so it runs beside a long run."""
        try:
            with _forwarded_logs(context):
                yield
        except LineageError as error:
            raise dg.Failure(str(error), allow_retries=False) from error


def table(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> dg.TableMetadataValue:
    """A table that shows its columns, by name and type, also where it has no rows."""
    schema = dg.TableSchema([dg.TableColumn(name, kind) for name, kind in columns.items()])
    return dg.MetadataValue.table([dg.TableRecord(dict(row)) for row in rows], schema=schema)


def settings_of(assets: Iterable[dg.AssetsDefinition]) -> dict[str, type[BaseModel]]:
    """The settings class of each asset that takes any, by asset name."""
    found = {asset.key.path[-1]: _settings_class(asset.op) for asset in assets}
    return {name: settings for name, settings in found.items() if settings is not None}


def _is_over(context: StageContext) -> Callable[[str], bool]:
    """Whether Dagster has seen the end of a run; of one that it does not know it cannot say."""

    def ask(run_id: str) -> bool:
        run = context.instance.get_run_by_id(run_id)
        return run is not None and run.is_finished

    return ask


def _check_settings(context: StageContext) -> None:
    """Find every bad setting before the run's first piece of work."""
    found = {node.name: _settings_class(node.definition) for node in context.job_def.nodes}
    specs = {name: settings for name, settings in found.items() if settings is not None}
    check_settings(restrict(context.run.run_config, found), specs)
    require_installed(trackers_of(context.run.run_config))


def _settings_class(op: Any) -> type[BaseModel] | None:
    compute = getattr(op, "compute_fn", None)
    if compute is None or not compute.has_config_arg():
        return None
    settings: type[BaseModel] = compute.get_config_arg().annotation
    return settings


@contextmanager
def _forwarded_logs(context: StageContext) -> Iterator[None]:
    """Send what the stages log to Dagster, which shows it in the UI and on the console."""
    ours = logging.getLogger("mlops_assets")
    handler = _Forward(context.log)
    level, propagate = ours.level, ours.propagate
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(level)
        ours.propagate = propagate


class _Forward(logging.Handler):
    def __init__(self, target: logging.Logger) -> None:
        super().__init__()
        self.target = target

    def emit(self, record: logging.LogRecord) -> None:
        self.target.log(record.levelno, record.getMessage())


class Tracking(dg.ConfigurableResource):  # type: ignore[type-arg]
    """MLflow, attached through dagster-mlflow: one MLflow run for each Dagster run.

    Further trackers hear the same: see ``trackers``.
    """

    experiment: str = Field(default=EXPERIMENT, min_length=1, description="MLflow experiment name.")
    also: list[str] = Field(
        default=[],
        max_length=8,
        description="Trackers beside MLflow: `wandb`, or any other installed entry point of the"
        " group mlops_assets.trackers.",
    )

    @contextmanager
    def attach(self, context: dg.AssetExecutionContext) -> Iterator[TrackedRun]:
        """Make the MLflow run of this Dagster run the active one; yields what tells of it.

        It ends FINISHED, or FAILED when the block raises or another step has failed.
        """
        home = Home.from_environment()
        with mlflow_reachable(home), mlflow_environment_kept():
            experiment = prepare_experiment(home, self.experiment)
            end_killed_runs(home, experiment, context.run.run_id)
            run_id = self._start(context, home)
        info = RunInfo(run_id, context.run.job_name, self.experiment)
        run, status = start_tracking(home, info, experiment, self.also), FAILED
        try:
            yield run
            status = FINISHED
        finally:
            run.finish(status)

    def _start(self, context: dg.AssetExecutionContext, home: Home) -> str:
        from dagster_mlflow.resources import MlFlow

        # dagster-mlflow's resource starts a run as soon as it is initialised. Built here it
        # starts one only when a stage has something to log, and MLflow is imported only then.
        attached = MlFlow(
            SimpleNamespace(
                log=logging.getLogger("dagster_mlflow"),  # says "new run" at every step
                dagster_run=context.run,
                run_id=context.run.run_id,
                resource_config={
                    "experiment_name": self.experiment,
                    "mlflow_tracking_uri": home.mlflow_uri,
                    "env": {},
                    "extra_tags": {"dagster_job": context.run.job_name},
                },
            )
        )
        run: Any = attached.active_run()
        return str(run.info.run_id)


def fail_mlflow_run(home: Home, dagster_run_id: str) -> None:
    """Set the MLflow run of a failed Dagster run to FAILED, if it has one.

    dagster-mlflow leaves it FINISHED or RUNNING. A failure of MLflow itself is logged only:
    it must not hide the error that brought us here.
    """
    if home.mlflow_is_local and not home.mlflow_database.exists():
        return
    try:
        import mlflow

        client = mlflow.MlflowClient(home.mlflow_uri)
        experiments = [item.experiment_id for item in client.search_experiments()]
        tagged = client.search_runs(experiments, f"tags.dagster_run_id = '{dagster_run_id}'")
        for run in tagged:
            client.set_terminated(run.info.run_id, status="FAILED")
    except Exception:
        logger.warning("could not set the MLflow run's status to FAILED", exc_info=True)


class RefIOManager(dg.ConfigurableIOManager):
    """Stores what assets return as JSON: once for each run, and the latest."""

    def handle_output(self, context: dg.OutputContext, obj: Ref) -> None:
        home = Home.from_environment()
        home.write_ref(context.asset_key.path[-1], context.run_id, dump_ref(obj))

    def load_input(self, context: dg.InputContext) -> Ref:
        # A run reads what it wrote itself, also while another run moves the latest.
        run_id = context.step_context.run_id
        asset = context.asset_key.path[-1]
        return load_ref(Home.from_environment().read_ref(asset, run_id))


class Alerts(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Messages to people, through a Slack-compatible webhook when one is configured."""

    timeout: float = Field(
        default=10.0, gt=0, le=60, description="Seconds to wait for the webhook."
    )

    def send(self, message: Message) -> None:
        """Log ``message`` and post it. An unreachable webhook is logged, never raised."""
        logger.warning("alert: %s", message.log_line)
        url = os.environ.get("MLOPS_ALERT_WEBHOOK")
        if not url:
            return
        try:
            post(url, message, self.timeout)
        except Undelivered as error:
            logger.error("the alert webhook did not take the message: %s", error)


class Cost(dg.ConfigurableResource):  # type: ignore[type-arg]
    """What time and power are assumed to be; they price a training and change nothing in it."""

    price_per_hour: float = Field(
        default=0.0, ge=0, le=10_000, description="Money for an hour of the machine."
    )
    currency: str = Field(default="USD", pattern="^[A-Z]{3}$", description="ISO 4217 code.")
    watts: float = Field(
        default=65.0,
        gt=0,
        le=100_000,
        description="Power of the machine, used where no energy counter can be read.",
    )

    @property
    def rates(self) -> Rates:
        """For those who do not know Dagster."""
        return Rates(self.price_per_hour, self.currency, self.watts)


RESOURCES: dict[str, Any] = {
    "workspace": Workspace(),
    "tracking": Tracking(),
    "io_manager": RefIOManager(),
    "alerts": Alerts(),
    "cost": Cost(),
}
