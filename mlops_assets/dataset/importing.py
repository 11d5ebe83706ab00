"""Brings data of any format that we read into the canonical form: one JSON object a line.

The form alone is judged, by the reader that ``validated_dataset`` uses. What was imported once
is accepted whole when it is imported again, and the rows stay as they are.
"""

import json
import logging
import os
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import orjson
from pydantic import ValidationError

from mlops_assets.artifacts import LineageError, atomic_write
from mlops_assets.dataset import formats, sources
from mlops_assets.dataset.conversations import NAMES
from mlops_assets.dataset.records import MISSING, SOUND, hint
from mlops_assets.dataset.row_index import QuarantinedLine
from mlops_assets.dataset.sources import Candidate
from mlops_assets.dataset.spec import RawDatasetSpec
from mlops_assets.privacy import DEFAULT_POLICY, Detector, excerpt
from mlops_assets.progress import progress
from mlops_assets.refs import RawDatasetRef

logger = logging.getLogger(__name__)

GROUP = "group"
RESERVED = ("id", "timestamp", GROUP, "messages", "rejected", "tools", "split")
SAMPLES = 3  # accepted rows that a person is shown
EXAMPLES = 10  # bad lines that a person is shown
FIRST_LINES = 5  # line numbers kept for each reason
STRIDE = 1000  # rows between two reports of progress


@dataclass
class Import:
    """What an import found, and what it wrote."""

    source: RawDatasetRef
    shape: str
    unused: tuple[str, ...]
    """Fields of the source that are not carried over."""
    accepted: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    """Lines set aside, by reason."""
    redacted: Counter[str] = field(default_factory=Counter)
    """Rows with personal data, by kind."""
    timed: int = 0
    """Rows with a time."""
    samples: list[Candidate] = field(default_factory=list)
    examples: list[QuarantinedLine] = field(default_factory=list)
    lines: dict[str, list[int]] = field(default_factory=dict)
    """The first line numbers of each reason."""
    output: Path | None = None
    quarantine: Path | None = None

    @property
    def quarantined(self) -> int:
        """Lines set aside; with ``accepted`` it adds up to the lines of the source."""
        return self.reasons.total()

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "source": self.source.path,
            "format": self.source.format,
            "accepted": self.accepted,
            "quarantined": self.quarantined,
            "reasons": dict(sorted(self.reasons.items())),
            "redacted_rows": dict(sorted(self.redacted.items())),
            "output": str(self.output) if self.output else None,
            "quarantine": str(self.quarantine) if self.quarantine else None,
        }


def source_spec(path: str, named: str, mapping: Sequence[str]) -> RawDatasetSpec:
    """The spec of a source as a command line gives it; ``mapping`` as ``ours=theirs``.

    Raises LineageError for a missing source, an unknown format, or a mapping of another form.
    """
    if "://" not in path and not os.path.lexists(path):
        raise LineageError(f"There is no file or directory {path}.", "Check the path.")
    pairs = [item.partition("=") for item in mapping]
    if wrong := [item for item, parts in zip(mapping, pairs, strict=True) if not all(parts)]:
        raise LineageError(f"The mapping {wrong[0]!r} is not ours=theirs.", "Give prompt=question.")
    names = {ours: theirs for ours, _, theirs in pairs}
    if named not in ("auto", *formats.FORMATS):
        raise LineageError(
            f"The format {named!r} is not known.",
            f"Choose one of auto, {', '.join(formats.FORMATS)}.",
        )
    try:
        place = path if "://" in path else str(Path(path).absolute())
        return RawDatasetSpec(path=place, format=named, mapping=names)
    except ValidationError as error:
        raise LineageError(
            f"The mapping is not valid: {error.errors()[0]['ctx']['error']}.",
            "Write our name first: --map prompt=question.",
        ) from error


def import_source(
    spec: RawDatasetSpec,
    keep: Sequence[str] = (),
    answer_field: str = "label",
    output: Path | None = None,
    *,
    force: bool = False,
) -> Import:
    """Read the source once; write accepted rows to ``output`` and the others beside it.

    ``keep`` names further fields to carry over, by which results can be broken down. Without
    ``output`` nothing is written. Raises LineageError for a source that cannot be read, a file
    that is in the way (unless ``force``), and when not one row is accepted; it leaves no file.
    """
    found = sources.locate(spec)
    result = _begin(found, keep)
    rows = sources.candidates(found, GROUP, keep, answer_field, Detector(DEFAULT_POLICY))
    reported = _reported(rows, found)
    if output is None:
        for row in reported:
            _take(result, row, ())
        return result
    try:
        _write(result, reported, output, force)
    except OSError as error:
        raise LineageError(
            f"{found.path} could not be brought to {output} ({error.strerror}).",
            "Give another file with --output, or see to the disk.",
        ) from error
    return result


def next_commands(result: Import) -> Iterator[tuple[str, str]]:
    """What to run after an import, and why."""
    if result.output is None:
        return
    yield f"dvc add {shlex.quote(str(result.output))}", "give the data a version"
    settings = f"path: {result.output}"
    yield settings, "under ops: raw_dataset: config: in the profile"
    rules = [f"group_field: {GROUP}"]
    if result.timed < result.accepted:
        rules.append("require_timestamp: false")
    yield "; ".join(rules), "under ops: validated_dataset: config: beside your labels"


def _begin(found: RawDatasetRef, keep: Sequence[str]) -> Import:
    names = sources.field_names(found)
    shape, fields = formats.layout(Path(found.path), found.format, names)
    if wrong := [name for name in keep if name in RESERVED or name not in fields]:
        raise LineageError(
            f"The field {wrong[0]!r} cannot be kept beside the conversation.",
            "It must be a field of the source, and none of ours: " + ", ".join(RESERVED) + ".",
        )
    used = {names.get(name, name) for name in NAMES} | set(keep)
    return Import(found, shape, tuple(sorted(fields - used)))


def _reported(rows: Iterator[Candidate], found: RawDatasetRef) -> Iterator[Candidate]:
    """The rows, with a progress bar over the bytes of the source."""
    total, read = sum(found.files.values()), 0
    with progress(logger, "reading", total) as advance:
        for number, row in enumerate(rows, 1):
            read += row.size
            if number % STRIDE == 0:
                advance(read, f"{number:,} rows")
                read = 0
            yield row


def _write(result: Import, rows: Iterator[Candidate], output: Path, force: bool) -> None:
    with ExitStack() as stack:
        targets = [_open(path, result.source, stack, force) for path in _targets(output)]
        for row in rows:
            _take(result, row, targets)
        if not result.accepted:
            raise _nothing(result)
        for target in targets:
            target.flush()  # a full disk shows before the first file takes its place
    result.output, result.quarantine = _targets(output)


def _take(result: Import, row: Candidate, targets: Sequence[IO[bytes]]) -> None:
    complete = row.messages and row.id and row.group
    if row.form == SOUND and complete:
        result.accepted += 1
        result.timed += row.timestamp is not None
        result.redacted.update(row.redactions.keys())
        if len(result.samples) < SAMPLES:
            result.samples.append(row)
        if targets:
            targets[0].write(orjson.dumps(canonical(row)) + b"\n")
        return
    reason = MISSING if row.form == SOUND else row.form
    result.reasons[reason] += 1
    lines = result.lines.setdefault(reason, [])
    if len(lines) < FIRST_LINES:
        lines.append(row.line)
    if targets or len(result.examples) < EXAMPLES:
        bad = QuarantinedLine(row.line, row.file, reason, excerpt(row.source.strip()))
        if len(result.examples) < EXAMPLES:
            result.examples.append(bad)
        if targets:
            targets[1].write(orjson.dumps(bad) + b"\n")


def canonical(row: Candidate) -> dict[str, Any]:
    """The row as the format ``messages`` writes it."""
    optional = {
        "timestamp": row.timestamp,
        "rejected": row.rejected,
        "tools": row.tools,
        "split": row.split,
    }
    extra = {name: value for name, value in optional.items() if value}
    own = {"id": row.id, GROUP: row.group, "messages": row.messages}
    return {**row.slices, **own, **extra}


def _targets(output: Path) -> tuple[Path, Path]:
    return output, output.with_name(f"{output.stem}.quarantine.jsonl")


def _open(path: Path, found: RawDatasetRef, stack: ExitStack, force: bool) -> IO[bytes]:
    """A new file that takes the place of ``path`` when the import ends well."""
    place, source = path.resolve(), Path(found.path).resolve()
    if source in (place, *place.parents):
        within = "the source itself" if place == source else "inside the source"
        raise LineageError(f"{path} is {within}.", "Give another file with --output.")
    if path.is_symlink() or (path.exists() and not force):
        raise LineageError(
            f"{path} is there already.", "Give another file with --output, or add --force."
        )
    temporary = stack.enter_context(atomic_write(path))
    return stack.enter_context(temporary.open("wb"))


def _nothing(result: Import) -> LineageError:
    counts = json.dumps(dict(result.reasons)).strip("{}").replace('"', "")
    return LineageError(
        f"Not one line of {result.source.path} is a conversation ({counts}).",
        f"Look at the preview, then give --format or --map.{hint(result.reasons)}",
    )
