"""Turns source data into rows fit to learn from, and says of every other line why it is not.

The source is read once, in chunks: each chunk is judged by Great Expectations and what passes
is written out at once, so memory does not grow with the data. What judging the whole takes is
kept beside, in an SQLite file (``row_index``) that is gone when the artifact is done.

The artifact holds ``rows.jsonl``, ``quarantine.jsonl``, ``class_balance.png`` (where answers
have labels), Great Expectations' Data Docs (``data_docs/index.html``), and ``flagged.jsonl``
(where the policy flags personal data). When the data is refused, the same files are left under
``MLOPS_HOME/reports`` for a person to open.
"""

import logging
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson

from mlops_assets.artifacts import ArtifactStore, LineageError, Recipe, digest_file
from mlops_assets.code_digest import code_digest
from mlops_assets.dataset import expectations, sources, versioning
from mlops_assets.dataset.class_balance import draw_class_balance
from mlops_assets.dataset.datadocs import quiet_context, write_data_docs
from mlops_assets.dataset.expectations import ValidationSpec
from mlops_assets.dataset.records import hint
from mlops_assets.dataset.row_frame import Answer, Labels, answer_object, row_frame
from mlops_assets.dataset.row_index import QuarantinedLine, RowIndex
from mlops_assets.dataset.sources import Candidate
from mlops_assets.dataset.suites import ChunkedSuite, judge_table
from mlops_assets.dataset.vocabulary import given_labels
from mlops_assets.privacy import excerpt
from mlops_assets.progress import progress
from mlops_assets.refs import Message, RawDatasetRef, Row, ValidatedRef, write_jsonl

logger = logging.getLogger(__name__)

LIBRARIES = ("great-expectations", "pandas", "matplotlib", "presidio-analyzer", "phonenumbers")
ROWS, QUARANTINE, DATA_DOCS = "rows.jsonl", "quarantine.jsonl", "data_docs"
FLAGGED = "flagged.jsonl"
CLASS_BALANCE = "class_balance.png"
SCRATCH = ".scratch"  # below the artifact while it is built
MOST_SLICES = 200  # shown on the asset's page
CHUNK_ROWS, CHUNK_BYTES = 20_000, 32_000_000  # what is in memory at a time, at most


def validate(store: ArtifactStore, raw: RawDatasetRef, spec: ValidationSpec) -> ValidatedRef:
    """Validate the data and keep what passes.

    Raises LineageError when the data changed meanwhile, when no row is valid, when an
    expectation fails, or when too large a share is set aside.
    """
    settings = spec.model_dump(mode="json")
    # The order of the fields is the order in the answer, and JSON objects have none.
    settings |= {"labels": [list(item) for item in spec.labels.items()], "format": raw.format}
    settings |= {"mapping": dict(raw.mapping)}
    inputs = {"dataset": raw.version, "detector": spec.detector().version}
    recipe = Recipe("validated_dataset", inputs, settings, code_digest(__name__), LIBRARIES)
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
    _refuse_changed(raw)
    given = given_labels(raw, spec)
    scratch = directory / SCRATCH
    scratch.mkdir()
    with closing(RowIndex(scratch / "rows.sqlite", given)) as index, warnings.catch_warnings():
        # GX and its dependencies announce their own deprecations when they are imported.
        warnings.simplefilter("ignore")
        context = quiet_context(str(directory / DATA_DOCS))
        rows_in, failed = _judge_rows(context, raw, spec, given, index, scratch / ROWS)
        _refuse_changed(raw)  # while it was read
        index.judge(expectations.whole_rules(index.splits_pinned))
        labels = {name: known or index.vocabulary(name) for name, known in given.items()}
        failed += _judge_whole(context, spec, labels, index) if index.rows else ()
        write_data_docs(context, directory / DATA_DOCS)
        _settle(scratch / ROWS, directory / ROWS, index)
        summary = _summary(rows_in, index, labels, spec)
        _publish(directory, index, labels, spec)
    shutil.rmtree(scratch)
    if problems := _problems(failed, rows_in, summary["quarantined"], spec.max_quarantined_share):
        _refuse(directory, reports, raw, problems, hint(summary["quarantined"]))
    logger.info("validated: %d rows, %d quarantined", summary["rows"], rows_in - summary["rows"])
    return summary | {"rows_sha256": digest_file(directory / ROWS)}


def _problems(
    failed: tuple[str, ...], rows_in: int, quarantined: Mapping[str, int], tolerated: float
) -> tuple[str, ...]:
    """Why the data as a whole is refused; nothing when it is accepted."""
    bad = sum(quarantined.values())
    if bad == rows_in:
        failed = ("no row is valid", *failed)
    if rows_in and bad / rows_in > tolerated:
        counts = ", ".join(f"{rows} {reason}" for reason, rows in quarantined.items())
        many = f"{bad} of {rows_in} rows ({bad / rows_in:.1%}) were quarantined ({counts})"
        failed = (f"{many}, {tolerated:.1%} is the most allowed", *failed)
    return failed


def to_row(candidate: Candidate, answer: Answer | None, labels: Labels) -> Row:
    """The row of a candidate that passed; the answer's fields in the order of ``labels``."""
    messages: Sequence[Message] = candidate.messages or ()
    if labels and answer is not None:
        content = orjson.dumps({name: answer[name] for name in labels}).decode()
        messages = (*messages[:-1], {"role": "assistant", "content": content})
    return Row(
        id=str(candidate.id),
        timestamp=candidate.timestamp or "",
        group=str(candidate.group),
        messages=tuple(messages),
        slices=candidate.slices,
        split=candidate.split,
        rejected=candidate.rejected,
        tools=candidate.tools,
    )


def chunks(found: Iterable[Candidate]) -> Iterator[list[Candidate]]:
    """``found`` in lists that are bounded in rows and in bytes."""
    chunk: list[Candidate] = []
    size = 0
    for candidate in found:
        chunk.append(candidate)
        size += candidate.size
        if len(chunk) >= CHUNK_ROWS or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _judge_rows(
    context: Any,
    raw: RawDatasetRef,
    spec: ValidationSpec,
    labels: Labels,
    index: RowIndex,
    passed: Path,
) -> tuple[int, tuple[str, ...]]:
    """Run the suite ``rows`` over the source, writing what passes; how many rows it has, and
    what failed."""
    suite = ChunkedSuite(context, "rows", expectations.row_expectations(spec, labels))
    found = sources.candidates(
        raw,
        spec.group_field,
        spec.slices,
        answer_field=next(iter(labels), "answer"),
        detector=spec.detector(),
    )
    first = 0
    with (
        passed.open("wb") as stream,
        progress(logger, "validating (bytes)", sum(raw.files.values())) as advance,
    ):
        for chunk in chunks(found):
            answers = [answer_object(item) if labels else None for item in chunk]
            reasons = suite.judge(row_frame(first, chunk, answers, labels))
            good = [
                row
                for row in zip(range(first, first + len(chunk)), chunk, answers, strict=True)
                if row[0] not in reasons
            ]
            stream.writelines(
                orjson.dumps(to_row(item, answer, labels), option=orjson.OPT_APPEND_NEWLINE)
                for _, item, answer in good
            )
            index.add(good)
            index.set_aside(
                (number, _set_aside(chunk[number - first], reason))
                for number, reason in reasons.items()
            )
            first += len(chunk)
            advance(sum(item.size for item in chunk), f"{first} rows")
    return first, suite.verdict()


def _judge_whole(
    context: Any, spec: ValidationSpec, labels: Labels, index: RowIndex
) -> tuple[str, ...]:
    """Run the suites about the data as a whole; what failed."""
    whole = expectations.dataset_expectations(spec, labels, index.splits_pinned)
    failed = judge_table(context, "dataset", index.path, "rows", whole)
    if counts := index.slice_counts():
        slices = expectations.slice_expectations(spec)
        if judge_table(context, "slices", index.path, "slices", slices):
            failed += tuple(
                f"the slice {dimension}={value} has {rows} rows,"
                f" {spec.min_rows_per_slice} is the fewest allowed"
                for dimension, value, rows in counts
                if rows < spec.min_rows_per_slice
            )
    return failed


def _set_aside(item: Candidate, reason: str) -> QuarantinedLine:
    """What a person needs to see of a bad line: its turns, or the line itself."""
    shown = _turns(item.messages or ()) or item.source
    return QuarantinedLine(item.line, item.file, reason, excerpt(shown))


def _turns(messages: Iterable[Message]) -> str:
    return " | ".join(f"{message['role']}: {message['content']}" for message in messages)


def _settle(passed: Path, rows: Path, index: RowIndex) -> None:
    """Write the rows that stay to ``rows``, and quarantine those the whole speaks against."""
    with passed.open("rb") as source, rows.open("wb") as target:
        bad: list[tuple[int, QuarantinedLine]] = []
        for line, decision in zip(source, index.decisions(), strict=True):
            if decision.reason is None:
                target.write(line)
                continue
            shown = excerpt(_turns(orjson.loads(line)["messages"]))
            bad.append(
                (
                    decision.row,
                    QuarantinedLine(decision.line, decision.file, decision.reason, shown),
                )
            )
            if len(bad) == CHUNK_ROWS:
                index.set_aside(bad)
                bad = []
        index.set_aside(bad)


def _publish(directory: Path, index: RowIndex, labels: Labels, spec: ValidationSpec) -> None:
    write_jsonl(directory / QUARANTINE, index.quarantined())
    if flagged := spec.entities("flag"):
        write_jsonl(directory / FLAGGED, index.personal_lines(flagged))
    if labels:
        draw_class_balance(directory / CLASS_BALANCE, index.label_counts(labels))


def _summary(rows_in: int, index: RowIndex, labels: Labels, spec: ValidationSpec) -> dict[str, Any]:
    quarantined = index.by_reason()
    return {
        "rows_in": rows_in,
        "rows": rows_in - sum(quarantined.values()),
        "quarantined": quarantined,
        "contradicted": index.contradicted,
        "redacted_rows": index.personal_rows(spec.entities("redact")),
        "flagged_rows": index.personal_rows(spec.entities("flag")),
        "slices": index.slice_counts()[:MOST_SLICES],
        "labels": [[name, list(values)] for name, values in labels.items()],
    }


def _refuse_changed(raw: RawDatasetRef) -> None:
    source, feedback = versioning.parts(raw.version)
    read = [(raw.path, source), *([(raw.feedback, feedback)] if feedback else ())]
    changed = [path for path, version in read if versioning.dvc_hash(Path(path)) != version]
    if changed:
        raise LineageError(
            f"{changed[0]} has changed since raw_dataset was materialised.",
            "Materialise raw_dataset again, then this.",
        )


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
