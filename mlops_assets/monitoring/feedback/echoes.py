"""Whether an answer that a person gives repeats what the model had answered.

A user who copies the model's answer into a correction says that it was right, no more. Learnt as
a label it would be the model teaching itself. Who labels never saw the answer, so a label may
agree with it.
"""

import re
import unicodedata

from mlops_assets.artifacts import canonical_json
from mlops_assets.metrics import parse_object

_FENCE = re.compile(r"^```\w*\s*(.*?)\s*```$", re.DOTALL)
_EDGES = ".,;:!?'\"`*_"


def same_answer(one: str, other: str) -> bool:
    """Whether two answers say the same.

    Whatever their case, spacing, letters that cannot be seen, the punctuation around them and a
    code fence; JSON objects also whatever the order of their keys.
    """
    first, second = (_FENCE.sub(r"\1", text.strip()) for text in (one, other))
    objects = parse_object(first), parse_object(second)
    if objects[0] is not None and objects[1] is not None:
        first, second = (canonical_json(found).decode() for found in objects)
    return _plain(first) == _plain(second)


def _plain(text: str) -> str:
    seen = (letter for letter in unicodedata.normalize("NFKC", text) if _is_seen(letter))
    plain = "".join(seen).casefold()
    return plain.strip(_EDGES) or plain


def _is_seen(letter: str) -> bool:
    return not letter.isspace() and unicodedata.category(letter) not in ("Cf", "Cc")
