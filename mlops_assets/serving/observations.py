"""What a release decision is made from: how each arm's requests ended.

Everything here can be made again from the request log, so a controller that was killed goes
on where it was.
"""

from dataclasses import dataclass

from mlops_assets.request_record import RequestRecord


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


def counts_as_failure(record: RequestRecord) -> bool:
    """Whether the engine is to blame: what the caller did wrong says nothing about a release."""
    return record.status >= 500
