"""What a stage tells of a run, and who listens: MLflow always, others by configuration.

A stage is handed a ``TrackedRun`` and knows no tracking service. MLflow comes first, because
the registry stands on it: when it fails, the stage fails. Every further tracker that the
resource `tracking` names under ``also`` may fail without harm: that is logged once, and the
tracker is told nothing more of that run.

Trackers are entry points of the group ``mlops_assets.trackers``, the way in which Python packages
offer plug-ins. A run config can so name only what somebody installed, never any module there is,
and ours for Weights & Biases (``wandb_tracker``) is found like everybody else's.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home

if TYPE_CHECKING:
    from mlflow.entities import Metric

logger = logging.getLogger(__name__)

GROUP = "mlops_assets.trackers"
FINISHED, FAILED, KILLED = "FINISHED", "FAILED", "KILLED"
SECONDS_BETWEEN_BATCHES = 5.0  # a metric by itself costs MLflow more than a training step
MOST_METRICS, MOST_PARAMS = 1000, 100  # that MLflow takes at once


@dataclass(frozen=True)
class RunInfo:
    """The run that a tracker is made for; each step of a Dagster run makes it anew."""

    id: str
    """MLflow's, the same in every step and process: a tracker goes on with its run by it."""
    name: str
    """For people: the job, or the trial of a sweep."""
    experiment: str
    group: str = ""
    """Id of the sweep's run, for a trial."""


class Tracker(Protocol):
    """A tracking service. An entry point names a class, or a function, that makes one:
    ``factory(run: RunInfo, directory: Path)``; what it keeps on disk goes into the directory,
    which is private to the owner of ``MLOPS_HOME``. Secrets it takes from its environment."""

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Settings; the same ones may come again."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None) -> None:
        """Numbers of a step, or of the run. After an interruption steps come again."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Words about the run."""

    def log_files(self, folder: str, files: Sequence[Path]) -> None:
        """Keep copies: the files may be gone when this returns."""

    def finish(self, status: str) -> None:
        """The step is over: ``FINISHED``, ``FAILED`` or ``KILLED``. Another may follow."""


class TrackedRun:
    """Tells MLflow of a run, and whoever else listens. Made from an id alone it tells nobody."""

    def __init__(
        self,
        mlflow_run: str,
        experiment: str = "",
        mlflow: Tracker | None = None,
        further: Sequence["FurtherTracker"] = (),
    ) -> None:
        self.mlflow_run = mlflow_run
        """MLflow's id of the run."""
        self.experiment = experiment
        """MLflow's id of the experiment."""
        self._mlflow, self._further = mlflow, further

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log settings. Raises MLflow's errors, as all these methods do."""
        self._tell(lambda tracker: tracker.log_params(params))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers of a step, or of the run."""
        self._tell(lambda tracker: tracker.log_metrics(metrics, step))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set words about the run."""
        self._tell(lambda tracker: tracker.set_tags(tags))

    def log_files(self, folder: str, *files: Path) -> None:
        """Keep copies of files."""
        self._tell(lambda tracker: tracker.log_files(folder, files))

    def finish(self, status: str) -> None:
        """End what the stage has to tell: ``FINISHED``, ``FAILED`` or ``KILLED``."""
        self._tell(lambda tracker: tracker.finish(status))

    def _tell(self, act: Callable[[Tracker], None]) -> None:
        try:
            if self._mlflow is not None:
                act(self._mlflow)
        finally:
            for tracker in self._further:
                tracker.tell(act)


class MlflowTracker:
    """The run that is active in MLflow; metrics of steps travel in batches."""

    def __init__(self, uri: str, run: str) -> None:
        from mlflow import MlflowClient

        self._client, self._run = MlflowClient(uri), run
        self._waiting: list[Metric] = []
        self._sent = time.monotonic()

    def log_params(self, params: Mapping[str, Any]) -> None:
        """MLflow refuses another value for a parameter that it has."""
        from mlflow.entities import Param

        every = [Param(name, str(value)) for name, value in params.items()]
        for start in range(0, len(every), MOST_PARAMS):
            self._client.log_batch(self._run, params=every[start : start + MOST_PARAMS])

    def log_metrics(self, metrics: Mapping[str, float], step: int | None) -> None:
        """The batch leaves when it is old enough, and with the first number of the run."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._waiting += [Metric(name, value, now, step or 0) for name, value in metrics.items()]
        if step is None or time.monotonic() - self._sent > SECONDS_BETWEEN_BATCHES:
            self._send()

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """MLflow shows them beside the run."""
        from mlflow.entities import RunTag

        every = [RunTag(name, value) for name, value in tags.items()]
        self._client.log_batch(self._run, tags=every)

    def log_files(self, folder: str, files: Sequence[Path]) -> None:
        """Artifacts of the run."""
        for path in files:
            self._client.log_artifact(self._run, str(path), folder)

    def finish(self, status: str) -> None:
        """Send what waits and end the active run."""
        import mlflow

        try:
            self._send()
        finally:
            mlflow.end_run(status)

    def _send(self) -> None:
        for start in range(0, len(self._waiting), MOST_METRICS):
            batch = self._waiting[start : start + MOST_METRICS]
            self._client.log_batch(self._run, metrics=batch)
        self._waiting.clear()
        self._sent = time.monotonic()


class FurtherTracker:
    """A tracker beside MLflow, whose failure is logged once and harms nothing."""

    _given_up: ClassVar[set[tuple[str, str]]] = set()
    """Names of trackers and runs: a service that is down is asked once, not by every step."""

    def __init__(self, name: str, run: RunInfo, directory: Path) -> None:
        self._name, self._run = name, run
        self._tracker: Tracker | None = None
        if (name, run.id) not in self._given_up:
            self._try(lambda: self._start(directory))

    def tell(self, act: Callable[[Tracker], None]) -> None:
        """Let the tracker act, if it has not failed yet."""
        if (tracker := self._tracker) is not None:
            self._try(lambda: act(tracker))

    def _start(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._tracker = _installed()[self._name].load()(self._run, directory)

    def _try(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:
            self._tracker = None
            self._given_up.add((self._name, self._run.id))
            # A library's message may hold an address with a key: only our own are repeated.
            said = str(error) if isinstance(error, LineageError) else type(error).__name__
            logger.error(
                "the tracker %s failed and is told nothing more of this run, which goes on and"
                " is in MLflow: %s",
                self._name,
                said,
            )


def start_tracking(home: Home, run: RunInfo, experiment: str, also: Collection[str]) -> TrackedRun:
    """The run that is active in MLflow, told of to MLflow and to each tracker in ``also``.

    Raises LineageError for a name that is not installed.
    """
    require_installed(also)
    further = [FurtherTracker(name, run, home.root / "trackers" / name) for name in also]
    return TrackedRun(run.id, experiment, MlflowTracker(home.mlflow_uri, run.id), further)


def require_installed(names: Collection[str]) -> None:
    """Raise LineageError for a name that no installed package gives to a tracker."""
    if not names:  # reading what is installed costs some milliseconds
        return
    installed = _installed()
    if missing := sorted(set(names) - installed.keys()):
        raise LineageError(
            f"The resource `tracking` names the tracker {missing[0]!r}, which is not installed.",
            f"Choose among {', '.join(sorted(installed)) or 'none'}, or install the package that"
            f" has it as an entry point of the group {GROUP}.",
        )


def trackers_of(run_config: Mapping[str, Any]) -> list[str]:
    """The further trackers that a run config or profile names."""
    resource = (run_config.get("resources") or {}).get("tracking") or {}
    return list((resource.get("config") or {}).get("also") or ())


def _installed() -> dict[str, Any]:
    return {point.name: point for point in entry_points(group=GROUP)}
