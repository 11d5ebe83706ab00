"""Turns source data into rows fit to learn from, and says of every other line why it is not.

The artifact holds ``rows.jsonl``, ``quarantine.jsonl``, ``class_balance.png`` and Great
Expectations' Data Docs (``data_docs/index.html``). When the data is refused, the same files
are left under ``MLOPS_HOME/reports`` for a person to open.
"""

import json
import logging
import shutil
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_assets.artifacts import ArtifactStore, LineageError, Recipe, digest_file
from mlops_assets.code_digest import code_digest
from mlops_assets.dataset import expectations, sources, versioning
from mlops_assets.dataset.class_balance import draw_class_balance
from mlops_assets.dataset.datadocs import quiet_context, write_data_docs
from mlops_assets.dataset.expectations import Labels, ValidationSpec
from mlops_assets.dataset.records import hint
from mlops_assets.dataset.sources import Candidate
from mlops_assets.privacy import excerpt
from mlops_assets.refs import RawDatasetRef, Row, ValidatedRef, write_jsonl

logger = logging.getLogger(__name__)

LIBRARIES = ("great-expectations", "pandas", "matplotlib", "presidio-analyzer", "phonenumbers")
ROWS, QUARANTINE, DATA_DOCS = "rows.jsonl", "quarantine.jsonl", "data_docs"
CLASS_BALANCE = "class_balance.png"


@dataclass(frozen=True)
class QuarantinedLine:
    """A line that was set aside."""

    line: int
    file: str
    reason: str
    excerpt: str
    """Its beginning, personal data taken out."""


def validate(store: ArtifactStore, raw: RawDatasetRef, spec: ValidationSpec) -> ValidatedRef:
    """Validate the data and keep what passes.

    Raises LineageError when the data changed meanwhile, when no row is valid, when an
    expectation fails, or when too large a share is set aside.
    """
    settings = spec.model_dump(mode="json")
    # The order of the fields is the order in the answer, and JSON objects have none.
    settings |= {"labels": [list(item) for item in spec.labels.items()], "format": raw.format}
    settings |= {"mapping": dict(raw.mapping)}
    recipe = Recipe(
        "validated_dataset", {"dataset": raw.version}, settings, code_digest(__name__), LIBRARIES
    )
    reports = store.root.parent / "reports" / f"validation-{recipe.key[:12]}"

    def produce(directory: Path) -> Mapping[str, Any]:
        return _produce(directory, raw, spec, reports)

    artifact = store.build(recipe, produce)
    summary = artifact.summary
    return ValidatedRef(
        artifact=artifact,
        dataset=raw.version,
        rows_in=summary["rows_in"],
        rows=summary["rows"],
        quarantined=summary["quarantined"],
        labels={name: tuple(values) for name, values in summary["labels"]},
        settings={**raw.settings, "validated_dataset": spec.model_dump(mode="json")},
    )


def _produce(
    directory: Path, raw: RawDatasetRef, spec: ValidationSpec, reports: Path
) -> Mapping[str, Any]:
    if versioning.dvc_hash(Path(raw.path)) != raw.version:
        raise LineageError(
            f"{raw.path} has changed since raw_dataset was materialised.",
            "Materialise raw_dataset again, then this.",
        )
    found = list(
        sources.candidates(
            raw,
            spec.group_field,
            spec.slices,
            answer_field=next(iter(spec.labels)),
            detector=spec.detector(),
        )
    )
    labels = vocabulary(raw, spec, found)
    failed, reasons = _judge(directory / DATA_DOCS, found, spec, labels)
    rows = [to_row(item, labels) for number, item in enumerate(found) if number not in reasons]
    _write(directory, rows, list(_set_aside(found, reasons)), labels)
    if problems := _problems(failed, found, reasons, spec.max_quarantined_share):
        _refuse(directory, reports, raw, problems, hint(_by_reason(reasons)))
    kept = [item for number, item in enumerate(found) if number not in reasons]
    return _summary(directory, found, kept, reasons, labels)


def _problems(
    failed: tuple[str, ...],
    found: Sequence[Candidate],
    reasons: Mapping[int, str],
    tolerated: float,
) -> tuple[str, ...]:
    """Why the data as a whole is refused; nothing when it is accepted."""
    share = len(reasons) / len(found)
    if len(reasons) == len(found):
        failed = ("no row is valid", *failed)
    if share > tolerated:
        counts = ", ".join(f"{rows} {reason}" for reason, rows in _by_reason(reasons).items())
        many = f"{len(reasons)} of {len(found)} rows ({share:.1%}) were quarantined ({counts})"
        failed = (f"{many}, {tolerated:.1%} is the most allowed", *failed)
    return failed


def vocabulary(raw: RawDatasetRef, spec: ValidationSpec, found: Sequence[Candidate]) -> Labels:
    """The labels of each field: from the spec, else from categories.json, else from the data."""
    listed = Path(raw.path) / "categories.json"
    result: dict[str, tuple[str, ...]] = {}
    for name, values in spec.labels.items():
        if values:
            result[name] = tuple(values)
        elif raw.format == "labelled_csv" and listed.is_file():
            result[name] = _categories(listed)
        else:
            seen = {(expectations.answer_object(item) or {}).get(name) for item in found}
            result[name] = tuple(sorted(value for value in seen if isinstance(value, str)))
    if unknown := [name for name, values in result.items() if not values]:
        raise LineageError(
            f"No answer in {raw.path} has the field `{unknown[0]}`.",
            "Correct `labels` of the op validated_dataset, or the data.",
        )
    if raw.format == "labelled_csv" and len(result) != 1:
        raise LineageError(
            f"The answers in {raw.path} have one field, but `labels` names {len(result)}.",
            "Set `labels` of the op validated_dataset to one field, such as `intent: []`.",
        )
    return result


def to_row(candidate: Candidate, labels: Labels) -> Row:
    """The row of a candidate that passed; the answer's fields in the order of ``labels``."""
    answer = expectations.answer_object(candidate) or {}
    ordered = {name: answer[name] for name in labels}
    content = json.dumps(ordered, ensure_ascii=False, separators=(",", ":"))
    messages = candidate.messages or ()
    return Row(
        id=str(candidate.id),
        timestamp=candidate.timestamp or "",
        group=str(candidate.group),
        messages=(*messages[:-1], {"role": "assistant", "content": content}),
        slices=candidate.slices,
        split=candidate.split,
        rejected=candidate.rejected,
        tools=candidate.tools,
    )


def _judge(
    docs: Path, found: Sequence[Candidate], spec: ValidationSpec, labels: Labels
) -> tuple[tuple[str, ...], dict[int, str]]:
    """Run both suites and write the Data Docs; what failed, and why rows are set aside."""
    with warnings.catch_warnings():
        # GX and its dependencies announce their own deprecations when they are imported.
        warnings.simplefilter("ignore")
        context = quiet_context(str(docs))
        rows = expectations.run_suite(
            context,
            "rows",
            expectations.row_frame(found, labels),
            expectations.row_expectations(spec, labels),
        )
        passed = {number: item for number, item in enumerate(found) if number not in rows.reasons}
        failed, reasons = rows.failed, dict(rows.reasons)
        if passed:
            pinned = any(item.split for item in found)
            whole = expectations.run_suite(
                context,
                "dataset",
                expectations.dataset_frame(passed, labels, pinned),
                expectations.dataset_expectations(spec, labels, pinned),
            )
            failed, reasons = failed + whole.failed, reasons | dict(whole.reasons)
        write_data_docs(context, docs)
    return failed, reasons


def _set_aside(found: Sequence[Candidate], reasons: Mapping[int, str]) -> Iterator[QuarantinedLine]:
    for number in sorted(reasons):
        item = found[number]
        yield QuarantinedLine(item.line, item.file, reasons[number], _shown(item))


def _shown(item: Candidate) -> str:
    """What a person needs to see of a bad line: its turns, or the line itself."""
    turns = [f"{message['role']}: {message['content']}" for message in item.messages or ()]
    return excerpt(" | ".join(turns) or item.source)


def _write(
    directory: Path, rows: Sequence[Row], bad: Sequence[QuarantinedLine], labels: Labels
) -> None:
    write_jsonl(directory / ROWS, rows)
    write_jsonl(directory / QUARANTINE, bad)
    draw_class_balance(directory / CLASS_BALANCE, label_counts(rows, labels))


def label_counts(rows: Sequence[Row], labels: Labels) -> dict[str, dict[str, int]]:
    """How often each label occurs, by field; absent labels count 0."""
    answers = [json.loads(row.answer) for row in rows]
    counts = {name: Counter(answer[name] for answer in answers) for name in labels}
    return {name: {value: counts[name][value] for value in labels[name]} for name in labels}


def _summary(
    directory: Path,
    found: Sequence[Candidate],
    kept: Sequence[Candidate],
    reasons: Mapping[int, str],
    labels: Labels,
) -> dict[str, Any]:
    redactions: Counter[str] = Counter()
    for item in kept:
        redactions.update(item.redactions.keys())
    logger.info("validated: %d rows, %d quarantined", len(kept), len(reasons))
    return {
        "rows_in": len(found),
        "rows": len(kept),
        "quarantined": _by_reason(reasons),
        "redacted_rows": dict(sorted(redactions.items())),
        "labels": [[name, list(values)] for name, values in labels.items()],
        "rows_sha256": digest_file(directory / ROWS),
    }


def _by_reason(reasons: Mapping[int, str]) -> dict[str, int]:
    return dict(sorted(Counter(reasons.values()).items()))


def _refuse(
    directory: Path, reports: Path, raw: RawDatasetRef, failed: tuple[str, ...], advice: str
) -> None:
    shutil.rmtree(reports, ignore_errors=True)
    shutil.copytree(directory, reports)
    more = f" (and {len(failed) - 3} more)" if len(failed) > 3 else ""
    raise LineageError(
        f"The data {raw.path} was refused: {'; '.join(failed[:3])}{more}.",
        f"Open {reports / DATA_DOCS / 'index.html'} and {reports / QUARANTINE}, then correct"
        f" the data or the limits of the op validated_dataset.{advice}",
    )


def _categories(path: Path) -> tuple[str, ...]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise ValueError
    except ValueError as error:
        raise LineageError(
            f"{path} is not a JSON list of strings.", "Restore it from the data's source."
        ) from error
    return tuple(values)
