"""Whether an answer that a person gives repeats what the model had answered.

A user who copies the model's answer into a correction says that it was right, no more. Learnt as
a label it would be the model teaching itself. Who labels never saw the answer, so a label may
agree with it.
"""

import re
import unicodedata

from mlops_assets.artifacts import canonical_json
from mlops_assets.metrics import parse_object
from mlops_assets.near_duplicates import normalised

_FENCE = re.compile(r"^```\w*\s*(.*?)\s*```$", re.DOTALL)
_EDGES = " \t\n\r.,;:!?'\"`*_"


def same_answer(one: str, other: str) -> bool:
    """Whether two answers say the same.

    JSON objects do whatever their spaces, the order of their keys and a code fence around them;
    texts whatever their case, spacing, and the punctuation around them.
    """
    first, second = (_FENCE.sub(r"\1", text.strip()) for text in (one, other))
    objects = parse_object(first), parse_object(second)
    if objects[0] is not None and objects[1] is not None:
        return canonical_json(objects[0]) == canonical_json(objects[1])
    return _plain(first) == _plain(second)


def _plain(text: str) -> str:
    plain = normalised(unicodedata.normalize("NFKC", text))
    return plain.strip(_EDGES) or plain
