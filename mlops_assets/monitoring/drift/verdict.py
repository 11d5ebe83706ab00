"""The drift report: does what production asks and gets still resemble the training data?

Every column's distance from the stored reference is a finding; findings of other kinds join
them, and together they make the verdict (``findings``).
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlops_assets.artifacts import Artifact, ArtifactStore, Recipe
from mlops_assets.code_digest import code_digest
from mlops_assets.monitoring.drift import distances
from mlops_assets.monitoring.drift.changes import Sides, describe, find_changes
from mlops_assets.monitoring.drift.design_effect import UNCLUSTERED, design_effects, effective
from mlops_assets.monitoring.drift.drift_page import write_page, write_plot
from mlops_assets.monitoring.drift.evidently_page import write_evidently
from mlops_assets.monitoring.drift.features import ABSENT, RATE, Column
from mlops_assets.monitoring.drift.findings import Finding, Verdict, as_json, decide, too_few
from mlops_assets.monitoring.drift.reference import (
    LIBRARIES,
    read_known,
    read_reference,
    reference_sample,
)
from mlops_assets.monitoring.drift.sketched_log import log_sample, sketch_log
from mlops_assets.monitoring.drift.sketches import Sketch, Sketches, size
from mlops_assets.monitoring.drift.spec import DriftSpec
from mlops_assets.monitoring.drift.text_columns import compare_texts
from mlops_assets.monitoring.drift.text_embeddings import encoder_digest, find_encoder
from mlops_assets.monitoring_refs import DriftReferenceRef, DriftReportRef, PredictionLogRef
from mlops_assets.refs import (
    Versions,
)

REPORT, PAGE, PLOT = "drift.json", "drift.html", "effects.png"
DISTRIBUTIONS = "distributions.html"


def report_drift(
    store: ArtifactStore,
    reference: DriftReferenceRef,
    log: PredictionLogRef,
    spec: DriftSpec,
    more: Sequence[Finding] = (),
) -> DriftReportRef:
    """Compare the log with the reference; write JSON, pages and plot.

    ``more`` are findings of other layers, which count like ours. Raises LineageError when the
    encoder that the settings name is none.
    """
    encoder = find_encoder(spec.encoder)
    recipe = Recipe(
        kind="drift_report",
        inputs={
            "reference": reference.artifact.digest,
            "log": log.artifact.digest,
            "encoder": encoder_digest(encoder) if encoder else "none",
        },
        spec=_settings(spec)
        | {"release": reference.release, "more": [repr(finding) for finding in more]},
        code_version=code_digest(__name__),
        libraries=("evidently", "scipy", *LIBRARIES),
    )

    def produce(directory: Path) -> dict[str, Any]:
        columns = read_known(store.path(reference.artifact)).columns
        report, sides = _report(store, reference, log, spec, encoder, more)
        _write(directory, report, columns, sides)
        return {
            "verdict": report["verdict"],
            "drifted": report["drifted"],
            "layers": {name: layer["verdict"] for name, layer in report["layers"].items()},
            "records": report["records"],
            "versions": asdict(reference.versions),
        }

    return _ref(store.build(recipe, produce))


def compare(
    columns: Sequence[Column],
    reference: Sketches,
    current: Sketches,
    spec: DriftSpec,
    design: Mapping[str, float] | None = None,
) -> list[Finding]:
    """A finding for each column; ``design`` holds design effects, 1 where it does not."""
    effects = dict.fromkeys(reference, UNCLUSTERED) | dict(design or {})
    return [
        _compare(column, reference[column.name], current[column.name], spec, effects[column.name])
        for column in columns
    ]


def population_stability(reference: Sketches, current: Sketches) -> dict[str, float]:
    """PSI of each column, for readers who know it."""
    return {name: distances.psi(reference[name], current[name]) for name in reference}


def as_report(
    findings: Sequence[Finding], verdict: Verdict, spec: DriftSpec, psi: Mapping[str, float]
) -> dict[str, Any]:
    """The content of ``drift.json``; a missing number is null."""
    return {
        "verdict": verdict.verdict,
        "reason": verdict.reason,
        "drifted": verdict.drifted,
        "layers": {name: asdict(layer) for name, layer in verdict.layers.items()},
        "columns": {
            finding.name: as_json(finding, verdict, psi=psi.get(finding.name))
            for finding in findings
        },
        "spec": _settings(spec),
    }


def _report(
    store: ArtifactStore,
    reference: DriftReferenceRef,
    log: PredictionLogRef,
    spec: DriftSpec,
    encoder: Path | None,
    more: Sequence[Finding],
) -> tuple[dict[str, Any], Sides]:
    """The content of ``drift.json``, and the samples of both sides."""
    folder = store.path(reference.artifact)
    known, before = read_known(folder), read_reference(folder)
    sketched = sketch_log(store, log, reference, spec)
    now, fewest = sketched.sketches, min(sketched.records, reference.rows)
    sides = reference_sample(folder, spec.sample_rows), log_sample(store, sketched, reference)
    rows = reference_sample(folder, reference.rows)
    design = design_effects(known.columns, rows, sketched.drawn, sketched.users)
    texts = compare_texts(store, *sides, encoder, known.labels, fewest, spec)
    findings = [*compare(known.columns, before, now, spec, design), *texts.findings, *more]
    verdict = decide(findings, spec.alpha)
    report = as_report(findings, verdict, spec, population_stability(before, now)) | {
        "records": sketched.records,
        "users": {"named": len(sketched.users.counts), "unnamed_requests": sketched.users.unnamed},
        "reference_rows": reference.rows,
        "release": reference.release,
        "versions": reference.versions.by_name(),
        "sample": {"reference": len(sides[0]), "production": len(sides[1])},
        "changes": find_changes(known, (before, now), sides, texts, verdict.drifted),
    }
    return report, sides


def _settings(spec: DriftSpec) -> dict[str, Any]:
    """What decides the report's bytes: what may follow from the verdict does not, and an encoder
    is what it holds and not where it lies."""
    return spec.model_dump(mode="json", include=set(DriftSpec.model_fields) - {"encoder"})


def _compare(
    column: Column, reference: Sketch, current: Sketch, spec: DriftSpec, design_effect: float
) -> Finding:
    before, now = size(reference), size(current)
    effect, p = distances.compare(reference, current, spec.seed, design_effect)
    left_out = too_few(min(before, now), spec.min_records)
    if isinstance(current, Counter) and now and current[ABSENT] == now:
        left_out = "production does not log it"
    return Finding(
        name=column.name,
        layer=column.layer,
        kind=column.kind,
        effect=effect,
        min_effect=spec.min_rate_effect if column.kind == RATE else spec.min_effect,
        p=p,
        reference_n=before,
        current_n=now,
        detail=describe(column, reference, current),
        left_out=left_out,
        effective_n=effective(now, design_effect),
    )


def _write(
    directory: Path, report: Mapping[str, Any], columns: Sequence[Column], sides: Sides
) -> None:
    (directory / REPORT).write_text(json.dumps(report, indent=1, allow_nan=False))
    write_plot(directory / PLOT, report)
    drawn = write_evidently(directory / DISTRIBUTIONS, columns, *sides, report["spec"], PAGE)
    write_page(directory / PAGE, report, DISTRIBUTIONS if drawn else "")


def _ref(artifact: Artifact) -> DriftReportRef:
    found = artifact.summary
    return DriftReportRef(
        artifact,
        found["verdict"],
        tuple(found["drifted"]),
        found["records"],
        Versions.of(artifact),
        found["layers"],
    )
