"""One request as the gateway's log keeps it; a superset of what monitoring reads.

It stands beside the refs because serving writes it and monitoring reads it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mlops_assets.refs import PredictionRecord

CHAMPION, CANARY, SHADOW = "champion", "canary", "shadow"
"""The arms of a release: who answered. What the shadow answers no user ever sees."""
OUTSIDE = "outside"
"""The arm of requests that a release is not judged by: flags or an experiment kept the user out
of the canary, or it was meant for a candidate that was not there. So the champion's arm beside a
canary is a fair control: users who were just as eligible, at the same time."""

SIMULATED = "simulated"
"""Release of records that no release answered, such as the shipped samples."""

LEFT = 499
"""Status of a request whose caller left before the answer was complete."""


@dataclass(frozen=True, kw_only=True)
class RequestRecord(PredictionRecord):
    """A request that the gateway took, whether it was answered or not.

    ``output`` is the answer's text, empty where there was none.
    """

    status: int
    """HTTP status that the caller got; 499 where the caller left first."""
    arm: str = CHAMPION
    tenant: str = ""
    """Name of the API key; never the key."""
    user: str = ""
    """SHA-256 of tenant and user as the caller names them: 64 hex digits."""
    user_named: bool = True
    """Whether the caller named a user; where not, ``user`` is made of the key alone, and nobody
    knows how many people are behind it."""
    feature: str = ""
    prompt: str = ""
    """Digest of the system prompt that was put before the messages."""
    model: str = ""
    """What the caller asked for."""
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0
    """Money, in the currency of the configured prices."""
    latency_ms: float = 0.0
    """From the request's last byte to the answer's last."""
    first_byte_ms: float | None = None
    """Until the first byte of a streamed answer."""
    cached: str = ""
    """``exact`` or ``semantic`` where the answer came from the cache."""
    finish: str = ""
    """Why the answer ended, in the words of the OpenAI protocol: ``stop``, ``length`` ..."""
    error: str = ""
    """Type of the error that the caller got."""
    trace: str = ""
    """W3C trace id: 32 hex digits."""
    experiment: Mapping[str, str] = field(default_factory=dict)
    """Variant of each experiment that the request took part in, by its name."""
