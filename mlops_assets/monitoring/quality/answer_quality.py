"""How good production's answers are: what users make of them, and whether they are right.

``quality.json`` holds the values over time and the findings that the drift report decides on,
``quality.html`` shows them, ``quality.png`` the windows one after the other. Business metrics are
compared with the window before, labelled answers with what the release's evaluation report
measured. Both ask one question: is it worse than it was?
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlops_assets.artifacts import ArtifactStore, Recipe, digest_json
from mlops_assets.code_digest import code_digest
from mlops_assets.feedback_record import FeedbackRecord
from mlops_assets.metrics import parse_object
from mlops_assets.monitoring.drift.findings import Finding
from mlops_assets.monitoring.feedback.regenerations import COLUMNS, find_regenerations
from mlops_assets.monitoring.quality.business_metrics import Metric, compare, metrics_of
from mlops_assets.monitoring.quality.label_store import Draw, Label
from mlops_assets.monitoring.quality.labelled_slice import (
    LabelledSlice,
    compare_with_report,
    slice_of,
    values_beside_report,
)
from mlops_assets.monitoring.quality.quality_page import write_page, write_plot
from mlops_assets.monitoring.quality.quality_spec import QualitySpec
from mlops_assets.monitoring.quality.release_in_force import InForce, TestScores, read_scores
from mlops_assets.monitoring.quality.user_verdicts import Judged, judge, votes_that_count
from mlops_assets.monitoring.quality.windows import LoggedRequests, Windows, choose_windows
from mlops_assets.monitoring_refs import AnswerQualityRef, PredictionLogRef
from mlops_assets.request_record import SIMULATED

QUALITY, PAGE, PLOT = "quality.json", "quality.html", "quality.png"
LIBRARIES = ("numpy", "pyarrow", "matplotlib", "jinja2")
MOST_VALUES = 20
"""Values of a slicing dimension that are shown, the most frequent ones."""


@dataclass(frozen=True)
class Said:
    """What people said of answers so far."""

    votes: Sequence[FeedbackRecord]
    draws: Sequence[Draw]
    labels: Sequence[Label]


def measure_quality(
    store: ArtifactStore, log: PredictionLogRef, said: Said, in_force: InForce, spec: QualitySpec
) -> AnswerQualityRef:
    """Measure the answers of the release in force; nothing is computed twice.

    Raises LineageError where an artifact is missing or was changed.
    """
    recipe = Recipe(
        kind="answer_quality",
        inputs={
            "log": log.artifact.digest,
            "votes": digest_json([asdict(vote) for vote in said.votes]),
            "draws": digest_json([asdict(draw) for draw in said.draws]),
            "labels": digest_json([asdict(label) for label in said.labels]),
            "release": in_force.release,
            "before": in_force.before,
            "report": in_force.report.digest if in_force.report else "",
        },
        spec=spec.model_dump(mode="json", include=set(QualitySpec.model_fields)),
        code_version=code_digest(__name__),
        libraries=LIBRARIES,
    )

    def produce(directory: Path) -> dict[str, Any]:
        content = quality_of(store, log, said, in_force, spec)
        text = json.dumps(content, allow_nan=False, ensure_ascii=False, indent=1)
        (directory / QUALITY).write_text(text, encoding="utf-8")
        write_plot(directory / PLOT, content)
        write_page(directory / PAGE, content, directory / PLOT)
        return {"requests": content["windows"]["current"]["requests"]}

    artifact = store.build(recipe, produce)
    return AnswerQualityRef(artifact, in_force.release, artifact.summary["requests"])


def read_quality(store: ArtifactStore, quality: AnswerQualityRef) -> dict[str, Any]:
    """``quality.json``. Raises LineageError where it is missing or was changed."""
    content: dict[str, Any] = json.loads((store.path(quality.artifact) / QUALITY).read_bytes())
    return content


def read_findings(store: ArtifactStore, quality: AnswerQualityRef) -> list[Finding]:
    """The findings of the layers business and concept. Raises as ``read_quality``."""
    return [Finding(**finding) for finding in read_quality(store, quality)["findings"]]


def quality_of(
    store: ArtifactStore, log: PredictionLogRef, said: Said, in_force: InForce, spec: QualitySpec
) -> dict[str, Any]:
    """The content of ``quality.json``. Raises as ``measure_quality``."""
    requests = LoggedRequests(store, log)
    ours = {in_force.release, SIMULATED} if in_force.release else None
    needed = max(spec.window * spec.history, spec.window + spec.baseline)
    before = requests.of({in_force.before}, spec.baseline) if in_force.before else []
    windows = choose_windows(requests.of(ours, needed), before, spec)
    current, baseline, history = _judged(requests, windows, said.votes, spec)
    metrics = metrics_of([*current, *baseline])
    measured = read_scores(store, in_force.report)
    slices = _slices(requests, said, ours, measured)
    now = current[-1].asked.timestamp if current else datetime.fromtimestamp(0, UTC)
    findings = [
        *(compare(metric, current, baseline, spec) for metric in metrics),
        *compare_with_report(slices, measured, spec, now),
    ]
    return {
        "release": in_force.release,
        "windows": {
            "current": _facts(current),
            "baseline": _facts(baseline) | {"against": windows.against},
        },
        "findings": [asdict(finding) for finding in findings],
        "units": {metric.name: metric.unit for metric in metrics},
        "values": {
            metric.name: {"current": metric.value(current), "baseline": metric.value(baseline)}
            for metric in metrics
        }
        | values_beside_report(slices, measured, spec, now),
        "history": [_facts(one) | {"values": _values(metrics, one)} for one in history],
        "by_slice": _by_slice(metrics, current),
        "report": {"items": measured.items, **measured.shares},
        "labelled": [one.shown() for one in slices],
        "spec": spec.model_dump(mode="json", include=set(QualitySpec.model_fields)),
    }


def _judged(
    requests: LoggedRequests, windows: Windows, votes: Sequence[FeedbackRecord], spec: QualitySpec
) -> tuple[list[Judged], list[Judged], list[list[Judged]]]:
    """Current window, baseline and history, with what users said of each request."""
    sides = [windows.current, windows.baseline, *windows.history]
    counting = votes_that_count(votes, {one.id for side in sides for one in side})
    corrected = {vote.request for vote in counting if vote.correction.strip()}
    answers = requests.texts(corrected, "output")
    times = [side[0].timestamp for side in sides if side]
    table = requests.since(min(times), COLUMNS) if times else None
    found = [] if table is None else find_regenerations(table, spec.regeneration_minutes)
    again = {one.first for one in found}
    current, baseline, *history = (judge(side, counting, answers, again) for side in sides)
    return current, baseline, history


def _slices(
    requests: LoggedRequests,
    said: Said,
    releases: Collection[str] | None,
    measured: TestScores,
) -> list[LabelledSlice]:
    """What the labels say of each draw, oldest first."""
    answers = requests.texts({label.request for label in said.labels}, "output")
    fields = measured.fields if measured.items else _fields_of(said.labels)
    return [slice_of(draw, said.labels, answers, releases, fields) for draw in said.draws]


def _fields_of(labels: Sequence[Label]) -> tuple[str, ...]:
    """The fields of a label where no report tells them; none where labels are text."""
    return tuple(parse_object(labels[0].label) or ()) if labels else ()


def _values(metrics: Sequence[Metric], requests: Sequence[Judged]) -> dict[str, float | None]:
    return {metric.name: metric.value(requests) for metric in metrics}


def _facts(requests: Sequence[Judged]) -> dict[str, Any]:
    """How many requests, and from when to when."""
    times = [one.asked.timestamp.isoformat() for one in requests[:: max(1, len(requests) - 1)]]
    return {
        "requests": len(requests),
        "from": times[0] if times else "",
        "to": times[-1] if times else "",
    }


def _by_slice(
    metrics: Sequence[Metric], requests: Sequence[Judged]
) -> dict[str, dict[str, Mapping[str, Any]]]:
    """The metrics of the current window for each value of each slicing dimension."""
    found: dict[str, dict[str, list[Judged]]] = {}
    for one in requests:
        for dimension, value in one.asked.slices.items():
            found.setdefault(dimension, {}).setdefault(value, []).append(one)
    return {
        dimension: {
            value: {"requests": len(chosen), **_values(metrics, chosen)}
            for value, chosen in _most_frequent(values)
        }
        for dimension, values in sorted(found.items())
    }


def _most_frequent(values: Mapping[str, list[Judged]]) -> list[tuple[str, list[Judged]]]:
    ordered = sorted(values.items(), key=lambda item: (-len(item[1]), item[0]))
    return sorted(ordered[:MOST_VALUES])
