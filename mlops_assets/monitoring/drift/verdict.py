"""The drift verdict: has production left the ground that the model was trained on?

A column has drifted when its distance from the training split is large enough to matter
AND too large for chance, corrected across all columns. Either alone misleads: significance
finds a shift of no consequence in a million records, and a distance alone is mostly noise
in two hundred.
"""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from mlops_assets.artifacts import ArtifactStore, Recipe
from mlops_assets.code_digest import code_digest
from mlops_assets.monitoring.drift import distances
from mlops_assets.monitoring.drift.drift_page import write_page, write_plot
from mlops_assets.monitoring.drift.features import Column, Numbers, make_columns
from mlops_assets.monitoring.log.window import newest, read
from mlops_assets.multiple_tests import holm
from mlops_assets.refs import (
    DriftReportRef,
    PredictionLogRef,
    PredictionRecord,
    SplitsRef,
    Versions,
    read_rows,
)

logger = logging.getLogger(__name__)

REPORT, PAGE, PLOT = "drift.json", "drift.html", "effects.png"
DRIFT, NO_DRIFT, NO_VERDICT = "drift", "no_drift", "no_verdict"


class DriftSpec(BaseModel):
    """When a difference counts as drift."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_records: int = Field(
        200, ge=30, le=1_000_000, description="Fewer records, on either side, give no verdict."
    )
    alpha: float = Field(
        0.01, ge=0.005, le=0.2, description="Chance of a false alarm over all columns together."
    )
    min_effect: float = Field(
        0.1,
        ge=0.01,
        le=1.0,
        description="Smallest distance that counts: 0.1 means that one request in ten differs.",
    )
    reference_rows: int = Field(
        5_000, ge=200, le=100_000, description="Rows of the train split that are compared."
    )
    seed: int = Field(7, ge=0, description="Seed of the sample and of the permutation test.")


@dataclass(frozen=True)
class ColumnDrift:
    """One column's comparison; NaN where it could not be computed."""

    kind: str
    effect: float
    """0 to 1; see ``distances``."""
    p: float
    p_corrected: float
    drifted: bool
    psi: float
    reference_n: int
    current_n: int


@dataclass(frozen=True)
class Verdict:
    """The outcome for the whole log, in a word and in a sentence."""

    verdict: str
    reason: str
    drifted: tuple[str, ...]


def report_drift(
    store: ArtifactStore, splits: SplitsRef, log: PredictionLogRef, spec: DriftSpec
) -> DriftReportRef:
    """Compare the log with the train split; write JSON, page and plot."""
    recipe = Recipe(
        kind="drift_report",
        inputs={"splits": splits.artifact.digest, "log": log.artifact.digest},
        # What may follow from the verdict does not change it.
        spec=spec.model_dump(mode="json", include=set(DriftSpec.model_fields)),
        code_version=code_digest(__name__),
        libraries=("evidently", "scipy", "numpy"),
    )

    def produce(directory: Path) -> dict[str, Any]:
        train = list(read_rows(store.path(splits.artifact) / "train.jsonl"))
        records = _answered(store, log)
        columns = make_columns(train, records, splits.labels, spec.reference_rows, spec.seed)
        compared = compare(columns, spec)
        verdict = decide(compared, spec)
        _write(directory, columns, compared, verdict, spec)
        return asdict(verdict) | {"versions": asdict(splits.versions)}

    artifact = store.build(recipe, produce)
    summary = artifact.summary
    drifted, versions = tuple(summary["drifted"]), Versions.of(artifact)
    return DriftReportRef(artifact, summary["verdict"], drifted, log.records, versions)


def _answered(store: ArtifactStore, log: PredictionLogRef) -> list[PredictionRecord]:
    columns = ["id", "timestamp", "release", "messages", "output", "slices", "answered"]
    rows = [row for part in newest(store, log) for row in read(store, part, columns).to_pylist()]
    return [
        PredictionRecord(
            row["id"],
            row["timestamp"].isoformat(),
            row["release"],
            tuple(json.loads(row["messages"])),
            row["output"],
            dict(row["slices"]),
        )
        for row in rows
        if row["answered"]
    ]


def compare(columns: Sequence[Column], spec: DriftSpec) -> dict[str, ColumnDrift]:
    """Effect, significance and decision for each column."""
    results = [_effect_and_p(column, spec.seed) for column in columns]
    # A value that is missing must not shrink the family: it counts as p = 1 here, and the
    # verdict is withheld in any case.
    corrected = holm([1.0 if math.isnan(p) else p for _, p in results])
    return {
        column.name: ColumnDrift(
            kind=column.kind,
            effect=effect,
            p=p,
            p_corrected=corrected_p,
            drifted=effect >= spec.min_effect and corrected_p < spec.alpha,
            psi=_psi(column),
            reference_n=len(column.reference),
            current_n=len(column.current),
        )
        for column, (effect, p), corrected_p in zip(columns, results, corrected, strict=True)
    }


def decide(compared: Mapping[str, ColumnDrift], spec: DriftSpec) -> Verdict:
    """The verdict over all columns. Too few records or a missing value give none."""
    fewest = min((min(c.reference_n, c.current_n) for c in compared.values()), default=0)
    if fewest < spec.min_records:
        return Verdict(NO_VERDICT, f"{fewest} records, {spec.min_records} are needed", ())
    missing = [name for name, c in compared.items() if not math.isfinite(c.effect + c.p)]
    if missing:
        return Verdict(NO_VERDICT, f"no value for {', '.join(missing)}", ())
    drifted = tuple(name for name, column in compared.items() if column.drifted)
    if drifted:
        return Verdict(DRIFT, f"{len(drifted)} of {len(compared)} columns drifted", drifted)
    return Verdict(NO_DRIFT, f"none of {len(compared)} columns drifted", ())


def as_json(
    compared: Mapping[str, ColumnDrift], verdict: Verdict, spec: DriftSpec
) -> dict[str, Any]:
    """The content of ``drift.json``; a missing number is null."""
    columns = {
        name: {key: _number(value) for key, value in asdict(column).items()}
        for name, column in compared.items()
    }
    return {**asdict(verdict), "columns": columns, "spec": spec.model_dump(mode="json")}


def _write(
    directory: Path,
    columns: Sequence[Column],
    compared: Mapping[str, ColumnDrift],
    verdict: Verdict,
    spec: DriftSpec,
) -> None:
    content = as_json(compared, verdict, spec)
    (directory / REPORT).write_text(json.dumps(content, indent=1, allow_nan=False))
    write_plot(directory / PLOT, content)
    write_page(directory / PAGE, content, columns)


def _effect_and_p(column: Column, seed: int) -> tuple[float, float]:
    if isinstance(column, Numbers):
        return distances.compare_numbers(column.reference, column.current)
    return distances.compare_classes(column.reference, column.current, seed)


def _psi(column: Column) -> float:
    if isinstance(column, Numbers):
        return distances.psi_of_numbers(column.reference, column.current)
    return distances.psi_of_classes(column.reference, column.current)


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
