"""Reads source data, line by line, into candidates for rows; judges nothing but their form."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from mlops_assets.artifacts import LineageError
from mlops_assets.dataset import feedback_source, fetching, formats, pinned_sources, versioning
from mlops_assets.dataset.conversations import (
    NAMES,
    Conversation,
    Get,
    MalformedError,
    conversation,
)
from mlops_assets.dataset.lines import BLOCK, SHOWN, open_plain
from mlops_assets.dataset.records import SOUND, Record
from mlops_assets.dataset.spec import RawDatasetSpec
from mlops_assets.near_duplicates import normalised
from mlops_assets.privacy import BLOCKED, Detector, pseudonym, redact
from mlops_assets.refs import Message, RawDatasetRef

LONGEST_SLICE_VALUE = 60  # characters
SHORT_TEXT, MEDIUM_TEXT = 8, 12  # words; about a third of Banking77's texts each
DERIVED = 16  # hex digits of an id or group that is made from the content
LABELLED = {"prompt": "text", "label": "category"}

_ISO_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)


@dataclass(frozen=True)
class Candidate:
    """What one line holds, personal data taken out; None for what is missing or malformed."""

    file: str
    line: int
    """Line number in the file, from 1."""
    source: str
    """The beginning of the line, personal data included: only ``privacy.excerpt`` may show it."""
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
    size: int = 0
    """Bytes read for it."""


def observe(spec: RawDatasetSpec) -> RawDatasetRef:
    """Find the data, fetching what is missing, and name its version and format.

    Raises LineageError for data that is missing, empty, behind a symbolic link, or in no
    format that we read.
    """
    found = locate(spec)
    path, source = Path(found.path), pinned_sources.parse(versioning.fill(spec.path))
    version, committed = _observed(path)
    found = replace(
        found,
        version=version,
        committed=source is not None or committed,
        source=str(source or ""),
        settings={"raw_dataset": spec.model_dump(mode="json")},
    )
    feedback = feedback_source.locate(spec.feedback)
    return found if feedback is None else _with_feedback(found, feedback)


def _observed(path: Path) -> tuple[str, bool]:
    """DVC's hash of what lies there, and whether DVC has pinned just that."""
    version, pinned = versioning.dvc_hash(path), versioning.pin(path)
    return version, pinned is not None and pinned.version == version


def _with_feedback(source: RawDatasetRef, rows: Path) -> RawDatasetRef:
    version, committed = _observed(rows)
    return replace(
        source,
        version=versioning.joined(source.version, version),
        committed=source.committed and committed,
        files={**source.files, feedback_source.NAME: rows.stat().st_size},
        feedback=str(rows),
    )


def locate(spec: RawDatasetSpec) -> RawDatasetRef:
    """As ``observe``, but reads no more than the first records: the version stays empty."""
    try:
        path = fetching.locate(spec.path)
        _refuse_links([path])
        path = path.resolve() if ".." in path.parts else path
        if path.is_file():
            _refuse_empty(path)
        kind = formats.detect(path, spec.format, spec.mapping)
        _refuse_links(path.rglob("*"))
        files = formats.data_files(path, kind)
        for file in files:
            _refuse_empty(file)
        folder = path if path.is_dir() else path.parent
        sizes = {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}
    except OSError as error:
        raise LineageError(
            f"{spec.path} cannot be read ({error.strerror}).", "Give a path that you may read."
        ) from error
    found = RawDatasetRef("", str(path), False, sizes, kind, dict(spec.mapping))
    formats.layout(path, kind, field_names(found))
    return found


def candidates(
    raw: RawDatasetRef,
    group_field: str,
    slices: Sequence[str],
    answer_field: str,
    detector: Detector,
) -> Iterator[Candidate]:
    """Every line of the source and of the feedback after it, whatever is wrong with it.

    ``answer_field`` names the field of answers that the source gives as bare labels. Where the
    file has no ids, or no groups, they are made from the content of the conversation.
    ``detector`` takes out, flags or blocks personal data.
    """
    reader = _Reader.of(raw, group_field, slices, answer_field, detector)
    columns = {reader.names.get(name, name) for name in NAMES} | {group_field, *slices}
    for record in formats.read(Path(raw.path), raw.format, columns):
        yield reader.candidate(record)
    if raw.feedback:
        reader = reader.of_feedback()
        for record in feedback_source.read(Path(raw.feedback)):
            yield reader.candidate(record)


def field_names(raw: RawDatasetRef) -> Mapping[str, str]:
    """The source's field by our name for it, where the two differ."""
    return {**(LABELLED if raw.format == "labelled_csv" else {}), **raw.mapping}


@dataclass(frozen=True)
class _Reader:
    """How the records of one source become candidates."""

    names: Mapping[str, str]
    shape: str
    fields: frozenset[str]
    group_field: str | None
    slices: Sequence[str]
    answer_field: str
    detector: Detector
    by_length: bool

    @classmethod
    def of(
        cls,
        raw: RawDatasetRef,
        group_field: str,
        slices: Sequence[str],
        answer_field: str,
        detector: Detector,
    ) -> "_Reader":
        names = field_names(raw)
        shape, fields = formats.layout(Path(raw.path), raw.format, names)
        known = (group_field, names.get("group", "group"))
        group = next((name for name in known if name in fields), None)
        labelled = raw.format == "labelled_csv"
        return cls(names, shape, fields, group, slices, answer_field, detector, labelled)

    def of_feedback(self) -> "_Reader":
        """The reader of the feedback after this source: rows of one form, slices as here."""
        fields = feedback_source.FIELDS
        return replace(self, names={}, shape="messages", fields=fields, group_field="group")

    def candidate(self, record: Record) -> Candidate:
        place = (record.file, record.line, record.source[:SHOWN])
        if (content := record.content) is None:
            return Candidate(*place, form=record.form, size=record.size)
        get, found = self._getter(content), Counter[str]()
        try:
            said = conversation(get, self.shape, self.answer_field, self.detector, found)
        except MalformedError as fault:
            return Candidate(*place, form=str(fault), size=record.size)
        split = record.split or get("split")
        return Candidate(
            *place,
            form=BLOCKED if self.detector.blocks(found) else SOUND,
            id=self._identity(get, said),
            timestamp=iso_utc(get("timestamp")),
            group=self._group(content, said),
            messages=said.messages,
            rejected=said.rejected,
            tools=said.tools,
            slices=self._slices(content, said),
            split=split if split in formats.SPLIT_FILES else None,
            redactions=found,
            size=record.size,
        )

    def _getter(self, content: Mapping[str, Any]) -> Get:
        if not self.names:
            return content.get
        return lambda name: content.get(self.names.get(name, name))

    def _identity(self, get: Get, said: Conversation) -> str | None:
        if self.names.get("id", "id") in self.fields:
            return _key(get("id"))
        return f"row-{_digest(orjson.dumps(tuple(said)))}" if said.messages else None

    def _group(self, content: Mapping[str, Any], said: Conversation) -> str | None:
        if self.group_field is not None:
            return _key(content.get(self.group_field))
        text = "\n".join(turn["content"] for turn in (said.messages or ())[:-1])
        return _digest(normalised(text).encode()) if said.messages else None

    def _slices(self, content: Mapping[str, Any], said: Conversation) -> dict[str, str]:
        if self.by_length and said.messages:
            return {"length": length_bucket(said.messages[0]["content"])}
        return {name: _slice(content.get(name)) for name in self.slices}


def _refuse_links(paths: Iterable[Path]) -> None:
    if link := next((path for path in paths if path.is_symlink()), None):
        raise LineageError(
            f"{link} is a symbolic link.",
            "Give the real path, or a copy of the data without links (`cp -RL`).",
        )


def _refuse_empty(file: Path) -> None:
    """Raise LineageError for a file of nothing but white space; reads to the first other byte."""
    with open_plain(file) as stream:
        while block := stream.read(BLOCK):
            if not block.isspace():
                return
    raise LineageError(f"{file} is empty.", "Put the data there, then run again.")


def iso_utc(text: object) -> str | None:
    """``text`` as ``2026-01-31T12:00:00Z``, or None; a time without a zone is taken as UTC."""
    try:
        if isinstance(text, str) and _ISO_UTC.fullmatch(text) and datetime.fromisoformat(text):
            return text
        moment = datetime.fromisoformat(str(text))
        moment = moment.astimezone(UTC) if moment.tzinfo else moment
    except (ValueError, OverflowError):
        return None
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0")


def _key(value: Any) -> str | None:
    """An id as text, hashed where it is personal data itself; None where there is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return pseudonym(value) if isinstance(value, str) and value else None


def _slice(value: Any) -> str:
    """A text, a number or a truth value as text, fit to be shown."""
    if isinstance(value, int):
        value = json.dumps(value)
    return redact(value)[0][:LONGEST_SLICE_VALUE] if isinstance(value, str) and value else "unknown"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:DERIVED]


def length_bucket(text: str) -> str:
    """``short``, ``medium`` or ``long``, by the number of words."""
    words = len(text.split())
    return "short" if words <= SHORT_TEXT else "medium" if words <= MEDIUM_TEXT else "long"
