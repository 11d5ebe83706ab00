"""What a sweep leaves: its trials as plain values, a picture, and the winner as a profile."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mlops_assets.artifacts import LineageError, atomic_write
from mlops_assets.training.finetune import KIND
from mlops_assets.training.spec import FinetuneSpec

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"
COLOURS = {COMPLETE: "#4f46e5", PRUNED: "#94a3b8", FAILED: "#b91c1c"}
REASON, REUSED = "reason", "reused"


@dataclass(frozen=True)
class Trial:
    """One training of a sweep."""

    number: int
    state: str
    """``complete``, ``pruned`` or ``failed``."""
    params: Mapping[str, Any]
    value: float | None
    """The objective; of a pruned trial its last validation loss."""
    seconds: float
    reused: bool
    """Whether the adapter was found in the store instead of being trained."""
    reason: str
    """Why it failed, else empty."""


@dataclass(frozen=True)
class SweepResult:
    """Where a sweep stands."""

    name: str
    objective: str
    direction: str
    wanted: int
    trials: tuple[Trial, ...]
    best: Trial | None
    profile: Path | None = None
    """The winner's settings as a profile."""
    plot: Path | None = None
    mlflow_run: str = ""


def ended_trials(study: "Study") -> tuple[Trial, ...]:
    """The trials that came to an end; one that was interrupted did not, and is run again."""
    found = (_trial(item) for item in study.get_trials(deepcopy=False))
    return tuple(item for item in found if item is not None)


def _trial(item: "FrozenTrial") -> Trial | None:
    state = item.state.name.lower().replace("fail", FAILED)
    reason = str(item.user_attrs.get(REASON, ""))
    if not item.state.is_finished() or (state == FAILED and not reason):
        return None
    seconds = item.duration.total_seconds() if item.duration else 0.0
    reused = bool(item.user_attrs.get(REUSED))
    value = None if state == FAILED else item.value
    return Trial(item.number, state, item.params, value, round(seconds, 1), reused, reason)


def best_of(trials: Sequence[Trial], direction: str) -> Trial | None:
    """The best complete trial, the earliest among equals; None without any."""
    sign = 1 if direction == "minimize" else -1
    complete = [item for item in trials if item.state == COMPLETE and item.value is not None]
    return min(complete, key=lambda item: sign * float(item.value or 0), default=None)


def write_winner(
    to: Path, profile: Mapping[str, Any], spec: FinetuneSpec, result: SweepResult, best: Trial
) -> None:
    """The profile with the winner's settings of `lora_adapter`, every one that is read.

    Raises LineageError when something else stands there: a person may have edited it.
    """
    ops = dict(profile.get("ops") or {})
    ops[KIND] = {**(ops.get(KIND) or {}), "config": spec.read()}
    head = (
        f"# Winner of the sweep {result.name}: trial {best.number},"
        f" {result.objective} {best.value:.6g}.\n"
    )
    text = head + yaml.safe_dump({**profile, "ops": ops}, sort_keys=False, allow_unicode=True)
    if to.is_file() and to.read_text(encoding="utf-8") != text:
        raise LineageError(
            f"{to} was changed since the sweep wrote it.",
            "Move it elsewhere and run the sweep again; nothing is trained twice.",
        )
    with atomic_write(to) as temporary:
        temporary.write_text(text, encoding="utf-8")


def draw_sweep(study: "Study", result: SweepResult, to: Path) -> None:
    """The objective by trial, and how much each setting matters, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    importances = _importances(study, result.trials)
    figure = Figure(figsize=(9.6, 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    if len(importances) > 1:
        left, right = figure.subplots(1, 2, width_ratios=(1.4, 1))
        right.barh(list(importances), list(importances.values()), 0.5, color="#4f46e5")
        right.invert_yaxis()
        right.set(xlim=(0, 1))
        right.set_title("Share of the differences explained", size=10)
    else:
        left = figure.subplots()
    for state, colour in COLOURS.items():
        points = [item for item in result.trials if item.state == state and item.value is not None]
        if points:
            places = [item.number for item in points]
            left.scatter(places, [item.value for item in points], c=colour, s=26, label=state)
    left.step(*_best_so_far(result), where="post", color="#ea580c", lw=1.2, label="best so far")
    left.set(xlabel="trial", ylabel=result.objective.replace("_", " "))
    left.xaxis.get_major_locator().set_params(integer=True)
    left.legend(frameon=False, fontsize=8)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    with atomic_write(to) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _best_so_far(result: SweepResult) -> tuple[list[int], list[float]]:
    places, values = [], []
    for count, item in enumerate(result.trials, 1):
        best = best_of(result.trials[:count], result.direction)
        if best is not None and best.value is not None:
            places.append(item.number)
            values.append(best.value)
    return places, values


def _importances(study: "Study", trials: Sequence[Trial]) -> dict[str, float]:
    """Share of the objective's variance that each setting explains, by Optuna's fANOVA, seeded.

    Nothing for fewer than three different values.
    """
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    if len({item.value for item in trials if item.state == COMPLETE}) < 3:
        return {}
    return get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
