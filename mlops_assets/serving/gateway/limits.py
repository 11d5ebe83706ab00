"""What one key may ask for in a minute, and what the gateway takes on at once."""

import asyncio
import time
from collections import deque
from contextlib import suppress

from mlops_assets.serving.gateway.api_keys import ApiKey
from mlops_assets.serving.gateway.refusal import RATE_LIMIT, Refusal, overloaded

MINUTE = 60.0


class Bucket:
    """A token bucket: it holds a minute's worth and fills evenly.

    What is spent may exceed what it holds, because an answer's tokens are known only
    afterwards: then it is in debt, and nothing is taken on until time has paid.
    """

    __slots__ = ("_at", "_level", "per_minute")

    def __init__(self, per_minute: int, now: float) -> None:
        self.per_minute = per_minute
        self._level = float(per_minute)
        self._at = now

    def wait(self, need: float, now: float) -> float:
        """Seconds until ``need`` is there; 0 if it is."""
        rate = self.per_minute / MINUTE
        self._level = min(float(self.per_minute), self._level + (now - self._at) * rate)
        self._at = now
        return max(0.0, (need - self._level) / rate)

    def spend(self, amount: float) -> None:
        """Take out."""
        self._level -= amount


class KeyLimits:
    """The buckets of every key that has called."""

    def __init__(self) -> None:
        self._requests: dict[str, Bucket] = {}
        self._tokens: dict[str, Bucket] = {}

    def take(self, key: ApiKey) -> None:
        """Count a request. Raises Refusal (429) when the key's minute is used up."""
        now = time.monotonic()
        requests = _bucket(self._requests, key.id, key.requests_per_minute, now)
        tokens = _bucket(self._tokens, key.id, key.tokens_per_minute, now)
        for bucket, what in ((requests, "requests"), (tokens, "tokens")):
            if bucket is not None and (wait := bucket.wait(1.0, now)) > 0:
                raise Refusal(
                    429,
                    RATE_LIMIT,
                    f"The key {key.name!r} may use {bucket.per_minute:,} {what} a minute.",
                    wait,
                    code="rate_limit_exceeded",
                )
        if requests is not None:
            requests.spend(1.0)

    def spend_tokens(self, key: ApiKey, tokens: int) -> None:
        """Count what a request used."""
        if (bucket := self._tokens.get(key.id)) is not None:
            bucket.spend(tokens)


def _bucket(
    buckets: dict[str, Bucket], key: str, per_minute: int | None, now: float
) -> Bucket | None:
    if per_minute is None:
        return None
    bucket = buckets.get(key)
    if bucket is None or bucket.per_minute != per_minute:  # new, or changed in the file
        bucket = buckets[key] = Bucket(per_minute, now)
    return bucket


class Admission:
    """Places for requests that are answered at the same time, and a queue before them."""

    def __init__(self, places: int, waiting: int, timeout: float) -> None:
        """``timeout`` is the longest wait in seconds."""
        self._free = places
        self._most_waiting = waiting
        self._timeout = timeout
        self._queue: deque[asyncio.Future[None]] = deque()
        self.in_flight = 0

    @property
    def waiting(self) -> int:
        """How many wait now."""
        return len(self._queue)

    async def enter(self) -> None:
        """Take a place, after a wait if need be. Raises Refusal (429) when there is none."""
        if self._free > 0 and not self._queue:
            self._free -= 1
        elif len(self._queue) >= self._most_waiting:
            raise overloaded()
        else:
            await self._wait()
        self.in_flight += 1

    def leave(self) -> None:
        """Give the place to who waits longest."""
        self.in_flight -= 1
        self._hand_on()

    async def _wait(self) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            async with asyncio.timeout(self._timeout):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._hand_on()  # the place came at the very moment when we gave up
            else:
                with suppress(ValueError):  # or it was passed over already
                    self._queue.remove(turn)
            if isinstance(error, TimeoutError):
                raise overloaded() from None
            raise

    def _hand_on(self) -> None:
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
