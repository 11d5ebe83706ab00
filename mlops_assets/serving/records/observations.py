"""What a release decision is made from: how each arm's requests ended.

Everything here can be made again from the request log, so a controller that was killed goes
on where it was.
"""

import math
from dataclasses import dataclass

from mlops_assets.request_record import RequestRecord

ENGINE_REFUSED, ENGINE_BUSY = "refused_by_engine", "engine_busy"
"""Errors with a status below 500 that an engine gave: the caller may be to blame, or a release
that refuses what the one before it answers. Beside the control arm the two can be told apart."""

ENGINE_NOT_FINITE = "engine_not_finite"
"""Error of a request whose answer held a number that is none."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One request of one arm."""

    arm: str
    at: float
    """Seconds since the epoch when it ended."""
    failed: bool
    """The engine gave no usable answer: an error, a time-out, a broken stream."""
    empty: bool
    """An answer without any text or tool call."""
    refused: bool
    """The model declined to answer."""
    latency_ms: float
    quality: float | None = None
    """Score in [0, 1]; None where nobody and nothing scored the answer."""
    user: str = ""
    """Who asked, as the log names users; empty for nobody in particular."""

    @property
    def sound(self) -> bool:
        """Whether its numbers are such: no time is negative, no score outside its bounds."""
        latency, quality = self.latency_ms, self.quality
        return 0 <= latency < math.inf and (quality is None or 0 <= quality <= 1)


def counts_as_failure(record: RequestRecord) -> bool:
    """Whether the engine gave no answer: what we refused ourselves says nothing about a release."""
    return record.status >= 500 or record.error in (ENGINE_REFUSED, ENGINE_BUSY)
