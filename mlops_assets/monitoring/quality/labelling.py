"""Requests drawn at random for people to label, and what they made of them.

Whoever labels sees what was asked and never what the model answered: an answer that is shown is
agreed with more often than it is right. The file that goes out is the file that comes back, with
its labels filled in.
"""

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlops_assets.artifacts import LineageError, atomic_write
from mlops_assets.home import Home
from mlops_assets.metrics import is_exact, is_same_text, parse_object
from mlops_assets.monitoring.quality.label_store import (
    Draw,
    Drawn,
    Label,
    draw_ids,
    labels_directory,
    read_draws,
    read_labels,
    write_draw,
    write_labels,
)
from mlops_assets.monitoring.quality.windows import LoggedRequests
from mlops_assets.monitoring_refs import PredictionLogRef
from mlops_assets.refs import (
    SplitsRef,
)

MOST_SHOWN = 5
"""Problems of a file that are named."""

Vocabulary = Mapping[str, Sequence[str]]
"""Labels of each field of the answer; empty where answers are free text."""


@dataclass(frozen=True)
class Import:
    """What a file of labels holds."""

    person: str
    labels: tuple[Label, ...]
    """New ones."""
    known: int
    """That the same person gave before."""
    empty: int
    """Lines without a label yet."""
    file: Path | None = None
    """Where the labels are kept; None as long as they are not."""

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "person": self.person,
            "new": len(self.labels),
            "known": self.known,
            "empty": self.empty,
            "stored": str(self.file) if self.file else None,
        }


def vocabulary_of(home: Home) -> Vocabulary:
    """The labels of the latest splits. Raises LineageError before there are any."""
    splits = home.latest("dataset_splits")
    if not isinstance(splits, SplitsRef):
        raise LineageError(
            "Nothing says yet what an answer looks like: there are no dataset splits.",
            "Run the job `lineage` once.",
        )
    return splits.labels


def draw_requests(
    home: Home, count: int, seed: int | None, since: datetime | None, out: Path
) -> Draw:
    """Draw answered requests of the latest prediction log and write them to ``out``, without their
    answers; the draw itself is kept.

    Raises LineageError without a log, with fewer requests than are to be drawn, or when ``out``
    exists or cannot be written.
    """
    log, vocabulary = home.latest("prediction_log"), vocabulary_of(home)
    if not isinstance(log, PredictionLogRef):
        raise LineageError("There is no prediction log yet.", "Run the job `monitor` first.")
    requests = LoggedRequests(home.store, log)
    found = {row["id"]: row for row in requests.answered(since)}
    if len(found) < count:
        raise LineageError(
            f"{count:,} requests cannot be drawn out of {len(found):,}.",
            "Draw fewer or go further back; the job `monitor` reads what was logged meanwhile.",
        )
    seed = secrets.randbits(32) if seed is None else seed
    times = [row["timestamp"] for row in found.values()]
    draw = Draw(
        at=_now(),
        seed=seed,
        since=min(times).isoformat(),
        until=max(times).isoformat(),
        population=len(found),
        log=log.artifact.key,
        requests=tuple(Drawn(id, found[id]["release"]) for id in draw_ids(found, count, seed)),
    )
    texts = requests.texts([one.request for one in draw.requests], "messages")
    _write_out(out, draw, texts, vocabulary)
    write_draw(labels_directory(home), draw)
    return draw


def import_labels(home: Home, file: Path, person: str, *, write: bool) -> Import:
    """Check the labels of a file and, with ``write``, keep them: all or none.

    Raises LineageError, which names the lines, for a request that was not drawn, a label that is
    no answer, or another label than the same person gave before.
    """
    directory, vocabulary = labels_directory(home), vocabulary_of(home)
    drawn = {
        draw.id: {one.request: one.release for one in draw.requests}
        for draw in read_draws(directory)
    }
    mine = {label.request: label for label in read_labels(directory) if label.person == person}
    found: list[Label] = []
    problems: list[str] = []
    known = empty = 0
    for number, fields in _lines(file):
        try:
            label = _label(fields, person, drawn, vocabulary)
            if label is None:
                empty += 1
            elif _is_new(label, mine.setdefault(label.request, label)):
                found.append(label)
            else:
                known += 1
        except ValueError as error:
            problems.append(f"line {number}: {error}")
    if problems:
        raise _cannot_be_imported(file, problems)
    result = Import(person, tuple(found), known, empty)
    if not write or not found:
        return result
    return replace(result, file=write_labels(directory, found))


def _is_new(label: Label, first: Label) -> bool:
    """Whether it is the first of this request. Raises ValueError where that one was another."""
    if first is label:
        return True
    if not (is_same_text(first.label, label.label) or is_exact(first.label, label.label)):
        raise ValueError(f"{label.request} was labelled {first.label} by the same person before")
    return False


def _label(
    fields: Any, person: str, drawn: Mapping[str, Mapping[str, str]], vocabulary: Vocabulary
) -> Label | None:
    """The label of one line; None where it was not filled in. Raises ValueError.

    ``drawn`` has the release that answered, by draw and request."""
    if not isinstance(fields, dict) or not {"draw", "request", "label"} <= fields.keys():
        raise ValueError("it is no JSON object with draw, request and label")
    draw, request = str(fields["draw"]), str(fields["request"])
    if draw not in drawn:
        raise ValueError(f"there was no draw {draw!r}")
    if request not in drawn[draw]:
        raise ValueError(f"request {request!r} was not drawn")
    given = fields["label"]
    if given == "" or given == dict.fromkeys(vocabulary, ""):
        return None
    answer = _answer(given, vocabulary)
    return Label(request, answer, person, _now(), draw, drawn[draw][request])


def _answer(given: Any, vocabulary: Vocabulary) -> str:
    """The label as an answer. Raises ValueError where no model could answer that."""
    if not vocabulary:
        if not isinstance(given, str) or not given.strip():
            raise ValueError("the label is no text")
        return given
    value = parse_object(given) if isinstance(given, str) else given
    if not isinstance(value, dict) or set(value) != set(vocabulary):
        raise ValueError(f"the label is no JSON object of {', '.join(vocabulary)}")
    for name, allowed in vocabulary.items():
        if value[name] is not None and value[name] not in allowed:
            raise ValueError(f"{value[name]!r} is no {name} (one of {', '.join(allowed)})")
    return json.dumps({name: value[name] for name in vocabulary}, ensure_ascii=False)


def _lines(file: Path) -> Iterator[tuple[int, Any]]:
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise LineageError(f"{file} cannot be read ({why}).", "Name the filled-in file.") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield number, parse_object(line)


def _write_out(out: Path, draw: Draw, texts: Mapping[str, str], vocabulary: Vocabulary) -> None:
    if out.exists():
        raise LineageError(f"{out} exists already.", "Give --out a new file.")
    blank: Any = dict.fromkeys(vocabulary, "") or ""
    lines = [
        {
            "draw": draw.id,
            "request": one.request,
            "messages": json.loads(texts[one.request]),
            "label": blank,
        }
        for one in draw.requests
    ]
    try:
        with atomic_write(out) as temporary:
            temporary.touch(mode=0o600)
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LineageError(
            f"{out} cannot be written ({error.strerror}).",
            "Give --out a file in a directory that you may write.",
        ) from error


def _cannot_be_imported(file: Path, problems: Sequence[str]) -> LineageError:
    more = len(problems) - MOST_SHOWN
    shown = "; ".join(problems[:MOST_SHOWN]) + (f"; and {more} more" if more > 0 else "")
    return LineageError(
        f"{file} cannot be imported: {shown}.", "Correct these lines; nothing was stored."
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
