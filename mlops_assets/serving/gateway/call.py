"""One call as it goes through the gateway, and the record that it leaves."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from mlops_assets.request_record import LEFT, RequestRecord
from mlops_assets.serving.caching.cache import MISS, Place
from mlops_assets.serving.gateway.answer import Answer
from mlops_assets.serving.gateway.api_keys import ApiKey
from mlops_assets.serving.gateway.chat_request import ChatRequest
from mlops_assets.serving.gateway.refusal import Header
from mlops_assets.serving.gateway.tracing import Trace
from mlops_assets.serving.traffic.route import Route

LETTERS_PER_TOKEN = 4
"""For answers of which the engine did not say how long they were."""

Price = Callable[[str, int, int], float]
"""Money for tokens read and written by the model of this name."""


@dataclass(slots=True)
class Call:
    """What is known of it so far."""

    id: str
    trace: Trace
    started: float
    """Clock of ``time.perf_counter``: when the request's last byte was there."""
    answer: Answer = field(init=False)
    key: ApiKey | None = None
    request: ChatRequest | None = None
    feature: str = ""
    user: str = ""
    route: Route | None = None
    cache_control: str = ""
    """The caller's header."""
    place: Place | None = None
    """Where its answer is kept; None where it is not."""
    cached: str = ""
    asked: bool = False
    """Whether an engine was asked."""
    first_byte: float | None = None
    """When the first byte of a streamed answer went out."""
    answered: bool = False
    """Whether the caller has the whole answer."""
    closed: bool = False
    """Whether what became of it was taken down."""

    def __post_init__(self) -> None:
        self.answer = Answer(self.id)

    def headers(self) -> list[Header]:
        """Headers of every answer."""
        found = [(b"x-request-id", self.id.encode())]
        return (
            found if self.place is None else [*found, (b"x-cache", (self.cached or MISS).encode())]
        )

    def record(self, status: int, error: str, price: Price) -> RequestRecord | None:
        """The call for the log; None where nobody was asked: it was refused before."""
        if self.key is None or self.request is None or self.route is None:
            return None
        now, upstream = time.perf_counter(), self.route.upstream
        self.answer.close()
        read, written = self._tokens(status)
        told = self.answer.cost
        return RequestRecord(
            id=self.id,
            timestamp=datetime.now(UTC).isoformat(timespec="milliseconds"),
            release=upstream.release,
            messages=tuple(self.request.messages),
            output=self.answer.text,
            slices=self.request.slices,
            status=status,
            arm=self.route.arm,
            tenant=self.key.name,
            user=self.user,
            user_named=bool(self.request.user),
            feature=self.feature,
            prompt=upstream.prompt,
            model=self.request.model,
            tokens_in=read,
            tokens_out=written,
            cost=price(upstream.model, read, written) if told is None else told,
            latency_ms=round((now - self.started) * 1e3, 3),
            first_byte_ms=_since(self.started, self.first_byte),
            cached=self.cached,
            finish=self.answer.finish,
            error=error,
            trace=self.trace.id,
            experiment=dict(self.route.experiment),
        )

    def _tokens(self, status: int) -> tuple[int, int]:
        """What the engine read and wrote, or about that: whoever leaves has had it read, and what
        was made until then, too."""
        answer = self.answer
        if self.cached:
            return 0, 0
        if answer.tokens_in is not None and answer.tokens_out is not None:
            return answer.tokens_in, answer.tokens_out
        left = status == LEFT and self.asked
        if (status != 200 and not answer.pieces and not left) or self.request is None:
            return 0, 0
        asked = sum(len(each.get("content") or "") for each in self.request.messages)
        written = max(answer.pieces, math.ceil(len(answer.text) / LETTERS_PER_TOKEN))
        return math.ceil(asked / LETTERS_PER_TOKEN), written


def _since(started: float, then: float | None) -> float | None:
    return None if then is None else round((then - started) * 1e3, 3)
