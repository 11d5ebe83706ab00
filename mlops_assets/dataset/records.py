"""What a reader makes of one line of a source: its fields, or what is wrong with it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

SOUND = "object"
"""The form of a line that holds one object."""

FORMS = {
    "broken_json": "the line is not a JSON object",
    "truncated_line": "the last line has no end and cannot be read",
    "blank_line": "the line is empty",
    "oversize_line": "the line is too long to be a conversation",
    "not_utf8": "the line is not UTF-8 text",
    "nul_byte": "the line or one of its texts holds a NUL character",
    "duplicate_key": "an object has the same key twice, so readers disagree on its value",
    "not_a_number": "a number is NaN or infinite, which JSON has no word for",
    "lone_surrogate": "a text holds half a character, which UTF-8 cannot write",
    "too_deep": "the values are nested too deep",
    "broken_csv": "the line does not have the columns of the header",
    "unclosed_quote": "a quoted field of the line is never closed",
    "bad_tools": "a tool call, a tool's result or a function's schema is malformed",
    "personal_data": "the row holds personal data that the policy blocks",
    "bad_preference": "chosen and rejected are not two different answers to one prompt",
}
"""What may be wrong with a line that holds no conversation: the reasons with which it is set
aside, and what they mean."""

MISSING = "missing_field"
REASONS = FORMS | {
    MISSING: "id, group or messages are missing or not text",
    "bad_roles": "the turns are not user, assistant, ... ending with the assistant",
    "empty_text": "a message before the answer is empty",
    "oversize_text": "a message before the answer is too long",
    "bad_timestamp": "the time is missing, unreadable or out of range",
    "bad_answer": "the answer is not a JSON object with exactly the expected fields",
    "wrong_label": "a label is not in the vocabulary",
    "duplicate_id": "an earlier row has the same id",
    "also_in_train": "the test text also stands in train, ignoring case",
    "also_in_train_but_for_spaces": "the same, ignoring case and spacing",
    "duplicate_text": "an earlier row has the same text, ignoring case and spacing",
}
"""These, and the reasons of rows that hold one."""


def hint(reasons: Mapping[str, int]) -> str:
    """A sentence on what is wrong with the file as a whole, if most of its bad lines say so."""
    if 2 * reasons.get("not_utf8", 0) > sum(reasons.values()):
        return " It is not UTF-8 text: convert it, for example with `iconv -f latin1 -t utf-8`."
    return ""


class Record(NamedTuple):
    """One line of text, or one row of a table."""

    file: str
    line: int
    """Line number in the file, or row number in a table, from 1."""
    source: str
    """The line as it stands, cut where it is too long."""
    content: Mapping[str, Any] | None
    """Its fields; None where ``form`` names a fault."""
    form: str = SOUND
    split: str | None = None
    """``train`` or ``test`` where the file's name fixes it."""
    size: int = 0
    """Bytes read for it."""
