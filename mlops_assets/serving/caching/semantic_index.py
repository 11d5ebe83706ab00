"""Questions by their meaning, and the answers they got: Qdrant in local mode, in memory.

On disk Qdrant's local mode pickles, so nothing is ever given a path. Each scope is a collection of
its own: no search can reach another tenant's or another release's answers, and none has to filter
for them, which local mode does slowly. Vectors have length 1 and are compared by dot product:
that is the cosine, and local mode would norm every vector anew for its own.

An embedding hardly knows one number from another, so questions with different numbers never
share an answer, however alike they are.
"""

import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from mlops_assets.sentence_encoder import Encoder

NUMBER = re.compile(r"\d+")
CANDIDATES = 8
"""Nearest questions that are looked at: the first may be too old or hold another number."""


@dataclass(slots=True)
class Ring:
    """The slots of one scope's collection: the newest question takes the oldest one's.

    Local mode keeps the memory of what is deleted, but not of what is overwritten.
    """

    slots: dict[str, int] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    oldest: int = 0

    def take(self, text: str, most: int) -> int:
        """The slot for this question: its own, a new one, or the oldest."""
        if (slot := self.slots.get(text)) is not None:
            return slot
        if len(self.texts) < most:
            slot = len(self.texts)
            self.texts.append(text)
        else:
            slot = self.oldest
            self.oldest = (slot + 1) % most
            del self.slots[self.texts[slot]]
            self.texts[slot] = text
        self.slots[text] = slot
        return slot


class SemanticIndex:
    """Answers by scope and meaning. Needs a thread or process of its own: it computes."""

    def __init__(
        self,
        encoder: Encoder,
        threshold: float,
        entries: int,
        scopes: int,
        ttl: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``threshold`` is a cosine similarity, ``entries`` the most of one scope, ``ttl`` in
        seconds."""
        from qdrant_client import QdrantClient

        self._client = QdrantClient(":memory:")
        self._encoder = encoder
        # What is put was looked for just before: it is not encoded twice.
        self._vector = lru_cache(256)(lambda text: encoder.encode([text])[0])
        self._threshold = threshold
        self._entries = entries
        self._scopes = scopes
        self._ttl = ttl
        self._clock = clock
        self._rings: OrderedDict[str, Ring] = OrderedDict()

    def find(self, scope: str, text: str) -> tuple[Any, float] | None:
        """The answer to the nearest question of the scope, and how near it is; None for a miss."""
        if scope not in self._rings or not self._encoder.knows(text):
            return None
        self._rings.move_to_end(scope)
        found = self._client.query_points(
            scope, query=self._vector(text), limit=CANDIDATES, with_payload=True
        )
        oldest = self._clock() - self._ttl
        for point in found.points:
            kept = point.payload or {}
            if point.score < self._threshold:
                return None
            if kept["at"] < oldest:
                self._client.delete(scope, [point.id])
            elif NUMBER.findall(kept["text"]) == NUMBER.findall(text):
                return kept["answer"], point.score
        return None

    def put(self, scope: str, text: str, answer: Any) -> None:
        """Keep an answer; one that the same text has already is replaced."""
        from qdrant_client.models import PointStruct

        if not self._encoder.knows(text):
            return
        vector = self._vector(text)
        slot = self._ring(scope, len(vector)).take(text, self._entries)
        payload = {"text": text, "answer": answer, "at": self._clock()}
        self._client.upsert(scope, [PointStruct(id=slot, vector=vector, payload=payload)])

    def flush(self) -> None:
        """Forget everything."""
        while self._rings:
            self._client.delete_collection(self._rings.popitem()[0])

    def _ring(self, scope: str, width: int) -> Ring:
        from qdrant_client.models import Distance, VectorParams

        if scope not in self._rings:
            while len(self._rings) >= self._scopes:
                self._client.delete_collection(self._rings.popitem(last=False)[0])
            self._client.create_collection(scope, VectorParams(size=width, distance=Distance.DOT))
            self._rings[scope] = Ring()
        self._rings.move_to_end(scope)
        return self._rings[scope]
