"""Answers to questions that are repeated word for word: bounded, and none older than its time."""

from collections.abc import Callable
from time import monotonic

from cachetools import TTLCache

from mlops_assets.serving.caching.cached_answer import CachedAnswer

OVERHEAD = 500
"""Bytes that an entry takes beside its text, about."""


class ExactCache:
    """The least recently used answers give way."""

    def __init__(self, size: int, ttl: float, clock: Callable[[], float] = monotonic) -> None:
        """``size`` in bytes, ``ttl`` in seconds."""
        self._answers: TTLCache[bytes, CachedAnswer] = TTLCache(size, ttl, clock, _size)

    def find(self, key: bytes) -> CachedAnswer | None:
        """The answer under this key, if there is one."""
        return self._answers.get(key)

    def put(self, key: bytes, answer: CachedAnswer) -> None:
        """Keep an answer, unless it is larger than the cache."""
        if _size(answer) <= self._answers.maxsize:
            self._answers[key] = answer

    def flush(self) -> None:
        """Forget everything."""
        self._answers.clear()


def _size(answer: CachedAnswer) -> int:
    return OVERHEAD + 4 * len(answer.text)
