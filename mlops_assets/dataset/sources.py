"""Reads source data, line by line, into candidates for rows; judges nothing but their form.

Two formats: ``messages`` is a JSONL file in the OpenAI chat form; ``labelled_csv`` is a
directory with ``train.csv`` and ``test.csv``, columns ``text`` and ``category``.
"""

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from mlops_assets.artifacts import LineageError
from mlops_assets.dataset import versioning
from mlops_assets.dataset.records import SOUND
from mlops_assets.privacy import BLOCKED, Detector, pseudonym, redact
from mlops_assets.refs import Message, RawDatasetRef

SPLIT_FILES = ("train", "test")
LONGEST_SLICE_VALUE = 60  # characters
SHORT_TEXT, MEDIUM_TEXT = 8, 12  # words; about a third of Banking77's texts each


class RawDatasetSpec(BaseModel):
    """Where the data lies and how it is written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(
        "data/raw/tickets.jsonl",
        min_length=1,
        description="File or directory, relative to the working directory or the checkout;"
        " ${VARIABLES} of the environment are filled in.",
    )
    format: str = Field(
        "messages",
        pattern="^(messages|labelled_csv)$",
        description="`messages` (JSONL, OpenAI form) or `labelled_csv` (train.csv and test.csv).",
    )


@dataclass(frozen=True)
class Candidate:
    """What one line holds, personal data taken out; None for what is missing or malformed."""

    file: str
    line: int
    """Line number in the file, from 1."""
    source: str
    """The line as it stands, personal data included: only ``privacy.excerpt`` may show it."""
    form: str = SOUND
    """Or one of ``records.FORMS``: why the line holds no conversation."""
    id: str | None = None
    timestamp: str | None = None
    group: str | None = None
    messages: tuple[Message, ...] | None = None
    rejected: Message | None = None
    """The worse answer of a preference pair; the better one is the last message."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """Schemas of the functions that the assistant may call."""
    slices: dict[str, str] = field(default_factory=dict)
    split: str | None = None
    redactions: Counter[str] = field(default_factory=Counter)


def normalised(text: str) -> str:
    """The text by which duplicates are found: case folded, white space made single spaces."""
    return " ".join(text.casefold().split())


def observe(spec: RawDatasetSpec) -> RawDatasetRef:
    """Find the data, rebuilding shipped data that is missing, and name its version.

    Raises LineageError for data that is missing, empty, or not UTF-8 text.
    """
    path = versioning.resolve(spec.path)
    versioning.rebuild_missing(path)
    files = [path / f"{name}.csv" for name in SPLIT_FILES] if path.is_dir() else [path]
    if path.is_dir() != (spec.format == "labelled_csv"):
        kind = "a directory" if path.is_dir() else "a file"
        raise LineageError(
            f"{path} is {kind}, which the format `{spec.format}` cannot be.",
            "Correct `format` of raw_dataset: `messages` takes a file, `labelled_csv` a directory.",
        )
    for file in files:
        if not any(line.strip() for _, line in text_lines(file)):
            raise LineageError(f"{file} is empty.", "Put the data there, then run again.")
    version, pinned = versioning.dvc_hash(path), versioning.pin(path)
    sizes = {file.name: file.stat().st_size for file in files}
    committed = pinned is not None and pinned.version == version
    return RawDatasetRef(version, str(path), committed, sizes, spec.format)


def candidates(
    raw: RawDatasetRef,
    group_field: str,
    slices: Sequence[str],
    answer_field: str,
    detector: Detector,
) -> Iterator[Candidate]:
    """Every row of the source. ``labelled_csv`` answers get ``answer_field`` as their field."""
    path = Path(raw.path)
    if raw.format == "messages":
        for number, line in text_lines(path):
            if line.strip():
                yield _from_json(Candidate(path.name, number, line), group_field, slices, detector)
    else:
        for split in SPLIT_FILES:
            yield from _from_csv(path / f"{split}.csv", split, answer_field, detector)


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of each line. Raises LineageError for a file that is not UTF-8 text."""
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if b"\0" in line:
                    raise _not_utf8(path, number)
                try:
                    yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise _not_utf8(path, number) from error
    except OSError as error:
        raise LineageError(
            f"{path} cannot be read ({error.strerror}).", "Check that it is there and readable."
        ) from error


def iso_utc(text: object) -> str | None:
    """``text`` as ``2026-01-31T12:00:00Z``, or None; a time without a zone is taken as UTC."""
    try:
        moment = datetime.fromisoformat(str(text))
        moment = moment.astimezone(UTC) if moment.tzinfo else moment
    except (ValueError, OverflowError):
        return None
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0")


def _not_utf8(path: Path, line: int) -> LineageError:
    return LineageError(
        f"{path} is not UTF-8 text (line {line}).",
        f"Convert it, for example with `iconv -f latin1 -t utf-8 {path.name}`.",
    )


def _from_json(
    blank: Candidate, group_field: str, slices: Sequence[str], detector: Detector
) -> Candidate:
    try:
        content = json.loads(blank.source)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        return Candidate(blank.file, blank.line, blank.source, form="broken_json")
    redactions: Counter[str] = Counter()
    messages = _messages(content.get("messages"), detector, redactions)
    identity, group = _text(content.get("id")), _text(content.get(group_field))
    return Candidate(
        blank.file,
        blank.line,
        blank.source,
        form=BLOCKED if detector.blocks(redactions) else SOUND,
        id=identity and pseudonym(identity),
        timestamp=iso_utc(content.get("timestamp")),
        group=group and pseudonym(group),
        messages=messages,
        slices={name: _slice(content.get(name)) for name in slices},
        redactions=redactions,
    )


def _messages(
    value: Any, detector: Detector, redactions: Counter[str]
) -> tuple[Message, ...] | None:
    if not isinstance(value, list) or not value:
        return None
    messages = []
    for item in value:
        role = _text(item.get("role")) if isinstance(item, dict) else None
        content = _text(item.get("content"), empty=True) if role else None
        if role is None or content is None:
            return None
        clean = detector.scan_json(content, redactions)
        messages.append({"role": _slice(role), "content": clean})
    return tuple(messages)


def _text(value: Any, *, empty: bool = False) -> str | None:
    """``value`` if it is text that can be written as UTF-8 (JSON may hold half a character)."""
    if not isinstance(value, str) or not (value or empty):
        return None
    return None if any("\ud800" <= character <= "\udfff" for character in value) else value


def _slice(value: Any) -> str:
    return redact(_text(value) or "unknown")[0][:LONGEST_SLICE_VALUE]


def _from_csv(path: Path, split: str, answer_field: str, detector: Detector) -> Iterator[Candidate]:
    reader = csv.DictReader(io.StringIO("".join(line for _, line in text_lines(path)), newline=""))
    if not {"text", "category"} <= set(reader.fieldnames or ()):
        raise LineageError(
            f"{path} has no columns text and category.", "Give it a header line with both."
        )
    try:
        for number, record in enumerate(reader, 1):
            yield _from_record(
                path.name, reader.line_num, f"{split}-{number}", record, answer_field, detector
            )
    except csv.Error as error:
        raise LineageError(
            f"{path} is not valid CSV at line {reader.line_num} ({error}).", "Correct that line."
        ) from error


def _from_record(
    file: str,
    line: int,
    identity: str,
    record: dict[str, Any],
    answer_field: str,
    detector: Detector,
) -> Candidate:
    text, category = record["text"], record["category"]
    source = f"{text},{category}"
    if not isinstance(text, str) or not isinstance(category, str):
        return Candidate(file, line, source, id=identity)
    redactions: Counter[str] = Counter()
    clean = detector.scan_json(text, redactions)
    category = detector.scan_json(category, redactions)
    answer = json.dumps({answer_field: category}, ensure_ascii=False, separators=(",", ":"))
    return Candidate(
        file,
        line,
        source,
        form=BLOCKED if detector.blocks(redactions) else SOUND,
        id=identity,
        group=hashlib.sha256(normalised(clean).encode()).hexdigest()[:16],
        messages=({"role": "user", "content": clean}, {"role": "assistant", "content": answer}),
        slices={"length": length_bucket(clean)},
        split=identity.partition("-")[0],
        redactions=redactions,
    )


def length_bucket(text: str) -> str:
    """``short``, ``medium`` or ``long``, by the number of words."""
    words = len(text.split())
    return "short" if words <= SHORT_TEXT else "medium" if words <= MEDIUM_TEXT else "long"
