"""Searches the settings of `lora_adapter` with Optuna: seeded, pruned, resumable.

A trial is the asset's own training, so one that was done is found in the store, and the winner
costs nothing when the lineage asks for it. Trials see the train and the validation split, never
the test split. The study lies in ``MLOPS_HOME/sweeps.db`` under a name made of the space, the
settings, the data, the base model and the code: another sweep never continues this one.

One sweep at a time works in a home (its lock is the kernel's), so a trial that says it is
running when a sweep starts was interrupted: it is run again with the same settings. The sampler
is seeded anew for each trial, so an interrupted sweep tries what an uninterrupted one does.
"""

import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import ValidationError

from mlops_assets.artifacts import SHORT, Artifact, LineageError, digest_json
from mlops_assets.home import Home, run_lock, translate_disk_full
from mlops_assets.profiles import asset_config
from mlops_assets.ref_json import load_ref
from mlops_assets.refs import BaseModelRef, SplitsRef
from mlops_assets.trackers import TrackedRun, trackers_of
from mlops_assets.tracking import mlflow_environment_kept
from mlops_assets.training import sweep_result, sweep_runs
from mlops_assets.training.arguments import VALIDATIONS
from mlops_assets.training.finetune import KIND, LOG, adapter_recipe, finetune
from mlops_assets.training.spec import FinetuneSpec
from mlops_assets.training.sweep_result import SweepResult, best_of, ended_trials
from mlops_assets.training.sweep_spec import SweepSpec, distributions, load_sweep

if TYPE_CHECKING:
    import optuna

TRAINED_BY_SWEEP = "sweep "
"""Begins what stands for the Dagster run of an adapter that a sweep trained."""

Show = Callable[[SweepResult], None]
"""Called with where the sweep stands: at the start, and after every trial."""


@dataclass(frozen=True)
class Sweep:
    """What the trials have in common."""

    home: Home
    name: str
    spec: SweepSpec
    profile: dict[str, Any]
    splits: SplitsRef
    base: BaseModelRef

    def settings(self, params: dict[str, Any]) -> FinetuneSpec:
        """The profile's settings with ``params`` in their place.

        Raises LineageError for a combination that is refused inside the space.
        """
        try:
            return FinetuneSpec(**asset_config(KIND, self.profile) | params)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise LineageError(
                f"lora_adapter refuses {params}: {reason}.", "Narrow the space."
            ) from error

    def result(self, study: "optuna.Study") -> SweepResult:
        """Where it stands."""
        trials, spec = ended_trials(study), self.spec
        best = best_of(trials, spec.direction)
        return SweepResult(self.name, spec.objective, spec.direction, spec.trials, trials, best)


def run_sweep(home: Home, file: Path, trials: int | None, show: Show) -> SweepResult:
    """Run, or go on with, the sweep in ``file`` until ``trials`` (else its own number) ended.

    Raises LineageError for an invalid sweep, before the lineage has run, while another run is
    at work, and when no trial at all succeeds.
    """
    spec, profile = load_sweep(file)
    if trials is not None:
        spec = spec.model_copy(update={"trials": trials})
    run_lock.hold(home, f"sweep-{uuid.uuid4().hex}")
    sweep = _prepare(home, file, spec, profile)
    with (
        translate_disk_full(home.root),
        mlflow_environment_kept(),
        _study(sweep) as study,
        sweep_runs.parent_run(home, study, spec, trackers_of(profile)) as parent,
        _interrupted_queued(sweep, study),
    ):
        show(sweep.result(study))
        while len(sweep.result(study).trials) < spec.trials:
            _run_trial(sweep, study, parent)
            show(sweep.result(study))
        return _finish(sweep, study, file, parent)


def _prepare(home: Home, file: Path, spec: SweepSpec, profile: dict[str, Any]) -> Sweep:
    splits = cast(SplitsRef, load_ref(home.read_ref("dataset_splits")))
    base = cast(BaseModelRef, load_ref(home.read_ref("base_model")))
    for artifact in (splits.artifact, base.artifact):
        home.store.path(artifact)  # a broken one would fail every trial
    start = FinetuneSpec(**asset_config(KIND, profile))
    identity = {
        "sweep": spec.model_dump(mode="json", exclude={"profile", "trials"}),
        "start": adapter_recipe(splits, base, start).key,
    }
    return Sweep(home, f"{file.stem}-{digest_json(identity)[:SHORT]}", spec, profile, splits, base)


@contextmanager
def _study(sweep: Sweep) -> Iterator["optuna.Study"]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.RDBStorage(f"sqlite:///{sweep.home.root / 'sweeps.db'}")
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if sweep.spec.pruner == "median":
        pruner = optuna.pruners.MedianPruner(sweep.spec.startup_trials)
    try:
        yield optuna.create_study(
            storage=storage,
            pruner=pruner,
            study_name=sweep.name,
            direction=cast(Any, sweep.spec.direction),
            load_if_exists=True,
        )
    finally:
        storage.remove_session()
        storage.engine.dispose()


@contextmanager
def _interrupted_queued(sweep: Sweep, study: "optuna.Study") -> Iterator[None]:
    """Queue again what an earlier process left running, and what this one leaves."""
    _queue_interrupted(sweep, study)
    try:
        yield
    finally:
        _queue_interrupted(sweep, study)


def _queue_interrupted(sweep: Sweep, study: "optuna.Study") -> None:
    """Nobody runs the trials that say so: we hold the lock, and are between two of them."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        sweep_runs.end_interrupted(trial.user_attrs.get(sweep_runs.RUN))
        study.tell(trial.number, state=TrialState.FAIL)
        if trial.params.keys() == sweep.spec.space.keys():
            study.enqueue_trial(trial.params, user_attrs={"again": trial.number})


def _run_trial(sweep: Sweep, study: "optuna.Study", parent: TrackedRun) -> None:
    import optuna

    spec, ended = sweep.spec, len(sweep.result(study).trials)
    study.sampler = optuna.samplers.TPESampler(
        n_startup_trials=spec.startup_trials, seed=spec.seed + ended
    )
    trial = study.ask(distributions(spec))
    try:
        also = trackers_of(sweep.profile)
        with sweep_runs.trial_run(sweep.home, parent, trial.number, also) as run:
            trial.set_user_attr(sweep_runs.RUN, run.mlflow_run)
            value = _train(sweep, trial, run)
    except optuna.TrialPruned:
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    except LineageError as error:
        trial.set_user_attr(sweep_result.REASON, str(error))
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        _require_hope(sweep.result(study), spec)
    else:
        study.tell(trial, value)
        if (best := sweep.result(study).best) is not None and best.value is not None:
            parent.log_metrics({f"best_{spec.objective}": best.value}, trial.number)


def _train(sweep: Sweep, trial: "optuna.Trial", run: TrackedRun) -> float:
    """The objective of one training. Raises TrialPruned and LineageError."""
    settings = sweep.settings(trial.params)
    run.log_params({name: settings.read()[name] for name in trial.params})
    with _checkpoints_dropped(sweep, settings):
        adapter = finetune(
            sweep.home.store,
            sweep.splits,
            sweep.base,
            settings,
            attach=lambda: nullcontext(run),
            dagster_run=TRAINED_BY_SWEEP + sweep.name,
            watch=_watch(trial),
        )
    trial.set_user_attr(sweep_result.REUSED, adapter.artifact.reused)
    if adapter.artifact.reused:
        _report_earlier(sweep, trial, adapter.artifact)
    if (value := adapter.artifact.summary.get(sweep.spec.objective)) is None:
        raise LineageError(
            f"A training by {settings.method} has no {sweep.spec.objective}.",
            "Choose another objective of the sweep.",
        )
    run.log_metrics({sweep.spec.objective: value})
    return float(value)


def _report_earlier(sweep: Sweep, trial: "optuna.Trial", artifact: Artifact) -> None:
    """Tell what a training that was found in the store had lost on its way.

    Later trials are compared with it, as if it had been trained now.
    """
    log = json.loads((sweep.home.store.path(artifact) / LOG).read_bytes())
    losses: dict[int, float] = {}
    for item in log["validation"]:
        losses.setdefault(_point(item["step"] / artifact.summary["steps"]), item["loss"])
    for point, loss in losses.items():
        trial.report(loss, point)


@contextmanager
def _checkpoints_dropped(sweep: Sweep, settings: FinetuneSpec) -> Iterator[None]:
    """A trial that was pruned or failed is not gone on with; one that was killed is."""
    from optuna import TrialPruned

    try:
        yield
    except (LineageError, TrialPruned):
        key = adapter_recipe(sweep.splits, sweep.base, settings).key
        shutil.rmtree(sweep.home.store.checkpoints / key, ignore_errors=True)
        raise


def _watch(trial: "optuna.Trial") -> Callable[[float, float], None]:
    import optuna

    reported: set[int] = set()

    def watch(share: float, loss: float) -> None:
        if (point := _point(share)) in reported:
            return
        reported.add(point)
        trial.report(loss, point)
        if share < 1 and trial.should_prune():
            raise optuna.TrialPruned

    return watch


def _point(share: float) -> int:
    """Where trials are compared: by the share of the training, because they may differ in steps."""
    return round(share * VALIDATIONS)


def _require_hope(result: SweepResult, spec: SweepSpec) -> None:
    """Stop when everything fails. Raises LineageError with the first reason."""
    failed = [item for item in result.trials if item.state == sweep_result.FAILED]
    if len(failed) == len(result.trials) >= min(spec.startup_trials, spec.trials):
        raise LineageError(
            f"None of the first {len(failed)} trials succeeded: {failed[0].reason}",
            "Correct the space or the profile and run the sweep again.",
        )


def _finish(sweep: Sweep, study: "optuna.Study", file: Path, parent: TrackedRun) -> SweepResult:
    """Write the winner's profile and the picture, and keep both with the run."""
    result = sweep.result(study)
    if result.best is None:
        raise LineageError(
            f"None of the {len(result.trials)} trials came to an end.", "Raise --trials."
        )
    folder = sweep.home.root / "sweeps" / sweep.name
    profile, plot = folder / f"trial-{result.best.number}.yaml", folder / "sweep.png"
    winner = sweep.settings(dict(result.best.params))
    sweep_result.write_winner(profile, sweep.profile, winner, result, result.best)
    sweep_result.draw_sweep(study, result, plot)
    parent.log_files("sweep", file, profile, plot)
    return replace(result, profile=profile, plot=plot, mlflow_run=parent.mlflow_run)
