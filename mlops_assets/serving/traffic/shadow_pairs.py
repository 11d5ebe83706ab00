"""What the candidate answered in shadow, beside what the user got: one line of JSON for each
mirrored request, in ``MLOPS_HOME/serving/shadow``.
"""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

logger = logging.getLogger(__name__)

DIRECTORY = "shadow"


@dataclass(frozen=True)
class Side:
    """How one of the two releases answered."""

    output: str
    latency_ms: float
    error: str = ""
    """Type of the error; empty where there is an answer."""
    finish: str = ""
    tool_calls: bool = False


@dataclass(frozen=True)
class ShadowPair:
    """One request and both answers."""

    id: str
    """The live request's, in the request log."""
    timestamp: str
    """ISO 8601 in UTC: when the candidate had answered."""
    stable: str
    """Digest of the bundle that answered the user."""
    candidate: str
    question: str
    """The last message, cut."""
    live: Side
    shadow: Side
    tokens: int
    """That the mirrored request used, in and out."""


_PAIR = TypeAdapter(ShadowPair)


def read_pairs(directory: Path, stable: str = "", candidate: str = "") -> Iterator[ShadowPair]:
    """The pairs of these two releases, oldest first; of all where none is named.

    A line that is torn or no pair is passed over: it says nothing of a release.
    """
    for path in sorted(directory.glob("*.jsonl")):
        with path.open("rb") as stream:
            for line in stream:
                try:
                    pair = _PAIR.validate_python(json.loads(line))
                except (ValueError, ValidationError, RecursionError):
                    logger.warning("a line of %s is no pair", path)
                    continue
                if stable in ("", pair.stable) and candidate in ("", pair.candidate):
                    yield pair
