"""What the suite ``rows`` looks at of each candidate, as a pandas frame."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlops_assets.dataset.sources import Candidate
from mlops_assets.dataset.strict_json import parse_object
from mlops_assets.privacy import excerpt, redact

if TYPE_CHECKING:
    import pandas as pd

Labels = Mapping[str, tuple[str, ...]]
"""The vocabulary of each field of the answer; empty where any text will do."""

Answer = dict[str, Any]

COLUMNS = {  # of the frame that the suite `rows` judges, with the type of each
    "row": "int64",
    "file": "object",
    "line": "int64",
    "form": "object",
    "id": "object",
    "group": "object",
    "roles": "object",
    "shortest": "float64",
    "longest": "float64",
    "timestamp": "object",
    "year": "float64",
}
NOT_AN_ANSWER = "not a JSON object"
NOT_TEXT = ", not text"
LONGEST_LABEL = 60  # characters of an unknown label that Data Docs show


def answer_object(candidate: Candidate) -> Answer | None:
    """The answer as a JSON object, read as strictly as a line is, or None."""
    if not candidate.messages or candidate.messages[-1]["role"] != "assistant":
        return None
    return parse_object(candidate.messages[-1]["content"])[0]


def prompt_text(candidate: Candidate) -> str:
    """Everything before the answer, as one text."""
    return "\n".join(message["content"] for message in (candidate.messages or ())[:-1])


def row_frame(
    first: int, candidates: Sequence[Candidate], answers: Sequence[Answer | None], labels: Labels
) -> "pd.DataFrame":
    """What the suite ``rows`` looks at: one line for each candidate, numbered from ``first``.

    The types are given, not guessed: a chunk where a column is empty is judged like any other.
    """
    import pandas as pd

    types = COLUMNS | ({"answer": "object"} if labels else {})
    types |= {label_column(name): "object" for name in labels}
    records = (
        _row_record(first + at, candidate, answer, labels)
        for at, (candidate, answer) in enumerate(zip(candidates, answers, strict=True))
    )
    values = zip(*records, strict=True)
    return pd.DataFrame(
        {
            name: pd.Series(column, dtype=kind)
            for (name, kind), column in zip(types.items(), values, strict=True)
        }
    )


def _row_record(
    number: int, candidate: Candidate, answer: Answer | None, labels: Labels
) -> tuple[Any, ...]:
    """The values of ``row_frame``'s columns, in their order."""
    messages = candidate.messages or ()
    # A turn that calls tools says nothing beside, and a tool may have nothing to report.
    sizes = [
        len(message["content"].strip())
        for message in messages[:-1]
        if not message.get("tool_calls") and message["role"] != "tool"
    ]
    record = (
        number,
        candidate.file,
        candidate.line,
        candidate.form,
        candidate.id,
        candidate.group,
        " ".join(message["role"] for message in messages) or None,
        min(sizes, default=None),
        max(sizes, default=None),
        candidate.timestamp,
        int(candidate.timestamp[:4]) if candidate.timestamp else None,
    )
    if not labels:
        return record
    answered = bool(messages) and messages[-1]["role"] == "assistant"
    return (
        *record,
        shown_fields(answer, labels) if answered else None,
        *(shown_label(answer, name, values) for name, values in labels.items()),
    )


def shown_fields(answer: Answer | None, labels: Labels) -> str:
    """``fields_of(labels)`` where the answer has just these; else what Data Docs may show."""
    if answer is None:
        return NOT_AN_ANSWER
    if answer.keys() == labels.keys():
        return fields_of(labels)
    # As a list, no name with a comma in it is taken for two fields.
    return excerpt(json.dumps(sorted(answer), ensure_ascii=False))[:LONGEST_LABEL]


def fields_of(labels: Labels) -> str:
    """The names of the answer's fields, as one text."""
    return ",".join(sorted(labels))


def label_column(name: str) -> str:
    """The column that holds this field of the answer, in frames and tables."""
    return f"label_{name}"


def shown_label(answer: Answer | None, name: str, known: Sequence[str]) -> str | None:
    """The answer's label as Data Docs may show it: whole where it is known or any text will do."""
    if answer is None or name not in answer:
        return None
    value = answer[name]
    if isinstance(value, str) and (not known or value in known):
        return value
    if not isinstance(value, str):
        return excerpt(repr(value))[:LONGEST_LABEL] + NOT_TEXT
    text = redact(value)[0]
    return text if len(text) <= LONGEST_LABEL else f"{text[:LONGEST_LABEL]}…"
