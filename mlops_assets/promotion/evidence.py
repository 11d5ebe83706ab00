"""What a decision rests on: the report's numbers and the outcome of every test row.

The report is read again from its verified artifact, never from memory. Anything that is
missing, not finite or at odds with itself raises ``NoEvidence``: a decision then gives no
verdict, and no verdict never promotes.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlops_assets.artifacts import Artifact, ArtifactStore


class NoEvidence(Exception):
    """A number that the decision needs is missing; the message says which."""


@dataclass(frozen=True)
class Floor:
    """An absolute requirement of the report and what was measured."""

    name: str
    measured: float
    required: float
    passed: bool


@dataclass(frozen=True)
class Evidence:
    """The numbers of one report, all of them present and finite."""

    items: int
    """Rows of the test split."""
    candidate: str
    """Digest of the bundle that was measured."""
    champion: str | None
    """Digest of the bundle it was compared with."""
    exact_match: Mapping[str, float]
    """By system: base, tuned, majority unless answers are free text, champion if there is one."""
    correct: Mapping[str, Sequence[bool]]
    """By model, for each row in the same order: base, tuned and champion."""
    floors: tuple[Floor, ...]
    trained_by: Mapping[str, str] = field(default_factory=dict)
    """Ids of the runs that trained the candidate, by system; for the record only."""


def read_evidence(store: ArtifactStore, report: Artifact) -> Evidence:
    """The evidence in a report's artifact.

    Raises LineageError when a byte of it was changed, NoEvidence when it is incomplete.
    """
    directory = store.path(report)
    try:
        content = json.loads((directory / "report.json").read_bytes())
    except (OSError, ValueError) as error:
        raise NoEvidence("the report cannot be read") from error
    return check(content, _outcomes(directory, _get(content, "correct")))


def check(report: Mapping[str, Any], outcomes: Sequence[Mapping[str, Any]]) -> Evidence:
    """The evidence in a report and its outcomes. Raises NoEvidence when it is incomplete."""
    items, champion = _get(report, "items"), report.get("champion")
    if items != len(outcomes):
        raise NoEvidence(f"the report has {items} items but {len(outcomes)} outcomes")
    models = ("base", "tuned", "champion") if champion else ("base", "tuned")
    correct = {model: _column(outcomes, model) for model in models}
    rivals = () if report.get("answers") == "text" else ("majority",)
    scores = {name: _number(report, "exact_match", name) for name in (*models, *rivals)}
    for model, values in correct.items():
        if items and not math.isclose(sum(values) / items, scores[model], abs_tol=1e-6):
            raise NoEvidence(f"the exact match of {model} is not that of its outcomes")
    return Evidence(
        items=items,
        candidate=str(_get(report, "candidate")),
        champion=champion,
        exact_match=scores,
        correct=correct,
        floors=tuple(_floors(report)),
        trained_by=_runs(report),
    )


def _outcomes(directory: Path, name: Any) -> list[dict[str, Any]]:
    if not isinstance(name, str) or Path(name).name != name:
        raise NoEvidence("the report does not name the outcomes of its rows")
    try:
        with (directory / name).open(encoding="utf-8") as stream:
            return [json.loads(line) for line in stream]
    except (OSError, ValueError) as error:
        raise NoEvidence(f"{name} cannot be read") from error


def _column(outcomes: Sequence[Mapping[str, Any]], model: str) -> list[bool]:
    if len({outcome.get("id") for outcome in outcomes}) != len(outcomes):
        raise NoEvidence("an outcome stands twice")
    values = [outcome.get(model) for outcome in outcomes]
    if not all(isinstance(value, bool) for value in values):
        raise NoEvidence(f"an outcome of {model} is missing")
    return [bool(value) for value in values]


def _floors(report: Mapping[str, Any]) -> list[Floor]:
    """``minimum_METRIC`` is a lower bound of the metric, ``beat_SYSTEM`` a wish to exceed it.

    A floor that is written in another way is one that we cannot check: no evidence.
    """
    floors = _get(report, "floors")
    if not isinstance(floors, Mapping) or not floors:
        raise NoEvidence("the report has no floors")
    found = []
    for name, required in floors.items():
        kind, _, what = str(name).partition("_")
        if kind == "minimum" and what in report:
            measured, bound = _number(report, what, "tuned"), _number(floors, name)
            found.append(Floor(name, measured, bound, measured >= bound))
        elif kind == "beat" and isinstance(required, bool):
            if required:
                scores = (_number(report, "exact_match", key) for key in ("tuned", what))
                measured, bound = scores
                found.append(Floor(name, measured, bound, measured > bound))
        else:
            raise NoEvidence(f"the floor {name} cannot be checked")
    return found


def _runs(report: Mapping[str, Any]) -> dict[str, str]:
    known = report.get("provenance") or {}
    runs = {name: known.get(f"trained_by_{name}_run") for name in ("mlflow", "dagster")}
    return {name: str(run) for name, run in runs.items() if run}


def _get(report: Any, *path: str) -> Any:
    value = report
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    if value is None:
        raise NoEvidence(f"{'.'.join(path)} is missing in the report")
    return value


def _number(report: Any, *path: str) -> float:
    value = _get(report, *path)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise NoEvidence(f"{'.'.join(path)} is not a finite number")
    return float(value)
