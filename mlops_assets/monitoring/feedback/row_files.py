"""The files of a version of feedback: rows to learn from, cases to ask, and where each is from.

``training.jsonl`` has the form of raw data, ``regressions.jsonl`` that of a suite's items, which
``feedback.yaml`` describes; ``provenance.jsonl`` has a line for each of both. A line says nothing
of when it was written: the same lessons are the same bytes.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml

from mlops_assets.artifacts import SHORT, LineageError
from mlops_assets.metrics import parse_object
from mlops_assets.monitoring.feedback.lessons import Lesson
from mlops_assets.monitoring.feedback.screening import Draft
from mlops_assets.privacy import excerpt

TRAINING, CASES, PROVENANCE = "training.jsonl", "regressions.jsonl", "provenance.jsonl"
TRACKED = (TRAINING, CASES, PROVENANCE)
"""By DVC: one version is one of each."""
SUITE, QUARANTINE = "feedback.yaml", "quarantine.jsonl"
OURS = ("id", "timestamp", "group", "split", "messages", "tools", "rejected", "system", "prompt",
        "completion", "label", "chosen")  # fmt: skip
"""Names that no slice may take in a row of raw data."""
MOST_READ = 4096
"""Characters of what is quarantined that its excerpt is made of: a request may have a million."""
_OF_LESSON = ("kind", "person", "tenant", "time", "request", "release", "asked", "user")


def write_files(folder: Path, drafts: Sequence[Draft], labels: Mapping[str, Any]) -> None:
    """Write every file of a version, in the order of ``drafts``, and the quarantine."""
    rows = [draft for draft in drafts if not draft.reason]
    _write(folder / TRAINING, (_row(draft) for draft in rows if not draft.case))
    _write(folder / CASES, (_case(draft) for draft in rows if draft.case))
    _write(folder / PROVENANCE, map(_provenance, rows))
    _write(folder / QUARANTINE, (_quarantined(draft) for draft in drafts if draft.reason))
    suite = {
        "about": "Requests whose answers people corrected; none of them is learnt from.",
        "kind": "feedback",
        "items": CASES,
        "metrics": ["exact_match", *(["field_accuracy", "valid_json"] if labels else ["rouge_l"])],
        "fields": list(labels),
    }
    (folder / SUITE).write_text(yaml.safe_dump(suite, sort_keys=False), "utf-8")


def read_lessons(folder: Path) -> list[Lesson]:
    """The lessons behind the version that lies in ``folder``, as far as its files tell.

    A process that was killed may have left files of two versions: what stands in one of them only
    is passed over, and comes again from the logs. Raises LineageError for what cannot be read.
    """
    if not (folder / PROVENANCE).is_file():
        return []
    try:
        files = [folder / name for name in (TRAINING, CASES) if (folder / name).is_file()]
        said = {(path.name, line["id"]): line for path in files for line in _read(path)}
        known = (
            (line, said.get((line["file"], line["id"]))) for line in _read(folder / PROVENANCE)
        )
        return [_lesson(line, row) for line, row in known if row]
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(folder / PROVENANCE, error) from error


def count_lines(path: Path) -> int:
    """How many rows a file has."""
    with path.open("rb") as stream:
        return sum(1 for _ in stream)


def row_ids(path: Path) -> set[str]:
    """The ids of a file's rows."""
    return {line["id"] for line in _read(path)} if path.is_file() else set()


def _row(draft: Draft) -> dict[str, Any]:
    answer = {"role": "assistant", "content": draft.answer}
    return {
        "id": draft.id,
        "timestamp": draft.lesson.asked,
        "group": draft.group,
        "split": "train",
        **{name: value for name, value in draft.lesson.slices if name not in OURS},
        "messages": [*draft.prompt, answer],
    }


def _case(draft: Draft) -> dict[str, Any]:
    answered = excerpt((*draft.lesson.answers, "")[0])
    return {
        "id": draft.id,
        "messages": list(draft.prompt),
        "expected": parse_object(draft.answer) or draft.answer,
        "slices": dict(draft.lesson.slices),
        "note": f"release {draft.lesson.release[:SHORT]} answered {answered}",
    }


def _provenance(draft: Draft) -> dict[str, Any]:
    said = asdict(draft.lesson)
    file = CASES if draft.case else TRAINING
    slices = dict(draft.lesson.slices)
    wrong = (*draft.lesson.answers, "")[0]
    return {"id": draft.id, "file": file, **{name: said[name] for name in _OF_LESSON}} | {
        "slices": slices,
        "answered": excerpt(wrong),
    }


def _quarantined(draft: Draft) -> dict[str, Any]:
    said = asdict(draft.lesson)
    shown = " | ".join(str(message.get("content")) for message in draft.lesson.messages)
    shown = f"{shown} => {draft.lesson.answer}"[:MOST_READ]
    return {
        "reason": draft.reason,
        **{name: said[name] for name in _OF_LESSON},
        "excerpt": excerpt(shown),
    }


def _lesson(line: Mapping[str, Any], said: Mapping[str, Any]) -> Lesson:
    *messages, last = said["messages"] if line["file"] == TRAINING else (*said["messages"], None)
    answer = last["content"] if last else said["expected"]
    return replace(
        Lesson(**{name: line[name] for name in _OF_LESSON}, answer=""),
        answer=answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False),
        messages=tuple(messages),
        slices=tuple(sorted(line["slices"].items())),
        answers=(line["answered"],),
    )


def _write(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _read(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8") as stream:
            yield from map(json.loads, stream)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> LineageError:
    return LineageError(
        f"{path} cannot be read ({type(error).__name__}).",
        "Bring a version back with `mlops feedback restore VERSION`.",
    )
