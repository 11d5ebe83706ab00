"""Whether an answer that a person gives repeats what the model had answered.

A user who copies the model's answer into a correction says that it was right, no more. Learnt as
a label it would be the model teaching itself. Who labels never saw the answer, so a label may
agree with it.
"""

import re
import unicodedata
from functools import lru_cache

from mlops_assets.artifacts import canonical_json
from mlops_assets.metrics import parse_object

_FENCE = re.compile(r"^```\w*\s*(.*?)\s*```$", re.DOTALL)
_EDGES = ".,;:!?'\"`*_"


def same_answer(one: str, other: str) -> bool:
    """Whether two answers say the same.

    Whatever their case, spacing, letters that cannot be seen, the punctuation around them and a
    code fence; JSON objects also whatever the order of their keys.
    """
    first, second = map(_unfenced, (one, other))
    objects = parse_object(first), parse_object(second)
    if objects[0] is not None and objects[1] is not None:
        first, second = (canonical_json(found).decode() for found in objects)
    return _plain(first) == _plain(second)


def may_repeat(given: str, answered: str) -> bool:
    """Whether the answer must be kept to tell that ``given`` repeats it. Of free text it need not
    unless it is the same: a common question has as many answers as it was asked. An object may
    hold what is given as a bare label."""
    return parse_object(_unfenced(answered)) is not None or same_answer(given, answered)


def _unfenced(text: str) -> str:
    return _FENCE.sub(r"\1", text.strip())


@lru_cache(maxsize=1 << 14)
def _plain(text: str) -> str:
    seen = (letter for letter in unicodedata.normalize("NFKC", text) if _is_seen(letter))
    plain = "".join(seen).casefold()
    return plain.strip(_EDGES) or plain


def _is_seen(letter: str) -> bool:
    return not letter.isspace() and unicodedata.category(letter) not in ("Cf", "Cc")
