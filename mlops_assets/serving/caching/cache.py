"""Which requests a kept answer may serve, and under which name it is kept.

An answer belongs to its tenant, release, system prompt, tools, response format and generation
parameters: all of them are in the name, so none of them can be mixed up. Only requests whose
answer is determined are looked up: temperature 0, said by the caller or by the bundle. The
semantic cache takes single questions only: what a text means inside a conversation depends on
the rest of it.

What is kept is forgotten when the release that users get changes. An answer that was under way
then is not kept either.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import orjson

from mlops_assets.request_record import CHAMPION
from mlops_assets.serving.caching.cache_spec import CacheSpec
from mlops_assets.serving.caching.cached_answer import CachedAnswer
from mlops_assets.serving.caching.exact_cache import ExactCache
from mlops_assets.serving.caching.semantic_cache import SemanticCache
from mlops_assets.serving.gateway.answer import Answer
from mlops_assets.serving.gateway.chat_request import ChatRequest
from mlops_assets.serving.traffic.route import Route

EXACT, SEMANTIC, MISS = "exact", "semantic", "miss"
LONGEST_QUESTION = 500
"""Letters. An encoder reads a few hundred tokens: what differs behind them it would not see."""
BEFORE_THE_QUESTION = frozenset({"system", "developer"})


@dataclass(frozen=True, slots=True)
class Place:
    """Where the answer to one request is kept."""

    key: bytes
    scope: str
    question: str
    """For the semantic cache; empty where it does not apply."""
    epoch: int
    look: bool
    keep: bool


class AnswerCache:
    """Both caches of one gateway. To be made inside the event loop."""

    def __init__(self, spec: CacheSpec) -> None:
        """Raises LineageError when the semantic cache is wanted and has no encoder."""
        size = spec.cache_exact_mib * 1024**2
        self.exact = ExactCache(size, spec.cache_ttl) if size else None
        self.semantic = SemanticCache(spec) if spec.cache_semantic else None
        self._epoch = 0
        self._champion = ""

    def start(self) -> None:
        """Begin to load what takes long."""
        if self.semantic is not None:
            self.semantic.start()

    def close(self) -> None:
        """End what was started."""
        if self.semantic is not None:
            self.semantic.close()

    def place(self, tenant: str, route: Route, request: ChatRequest, control: str) -> Place | None:
        """Where this request's answer is kept; None for one whose answer is not.

        ``control`` is the caller's header Cache-Control: with ``no-cache`` a new answer is made,
        with ``no-store`` it is not kept either.
        """
        self._follow(route)
        if self.exact is None and self.semantic is None:
            return None
        parameters = {**route.upstream.generation, **request.parameters()}
        if not _is_determined(parameters):
            return None
        directives = {each.strip().lower() for each in control.split(",")}
        owner = [tenant, route.upstream.release, route.upstream.prompt, parameters]
        *before, last = request.messages
        single = (
            self.semantic is not None
            and last["role"] == "user"
            and len(last["content"]) <= LONGEST_QUESTION
            and all(each["role"] in BEFORE_THE_QUESTION for each in before)
        )
        return Place(
            key=_digest([owner, request.messages]),
            scope=_digest([owner, before, {**last, "content": ""}]).hex(),
            question=last["content"] if single else "",
            epoch=self._epoch,
            look=not directives & {"no-cache", "no-store"},
            keep="no-store" not in directives,
        )

    async def find(self, place: Place) -> tuple[str, CachedAnswer] | None:
        """The answer that is kept there, and which cache had it."""
        if not place.look:
            return None
        if self.exact is not None and (found := self.exact.find(place.key)) is not None:
            return EXACT, found
        if self.semantic is not None and place.question:
            near = await self.semantic.find(place.scope, place.question)
            if near is not None and place.epoch == self._epoch:
                return SEMANTIC, near
        return None

    def put(self, place: Place, answer: Answer) -> None:
        """Keep an answer that is whole and in the log."""
        if not place.keep or place.epoch != self._epoch:
            return
        if (kept := CachedAnswer.of(answer)) is None:
            return
        if self.exact is not None:
            self.exact.put(place.key, kept)
        if self.semantic is not None and place.question:
            self.semantic.put(place.scope, place.question, kept)

    def flush(self) -> None:
        """Forget every answer."""
        self._epoch += 1
        if self.exact is not None:
            self.exact.flush()
        if self.semantic is not None:
            self.semantic.flush()

    def _follow(self, route: Route) -> None:
        """Flush when the release that users get is another than before."""
        if route.arm == CHAMPION and route.upstream.release != self._champion:
            if self._champion:
                self.flush()
            self._champion = route.upstream.release


def _is_determined(parameters: dict[str, Any]) -> bool:
    """Whether the same question gets the same answer, and the answer is its text alone."""
    return parameters.get("temperature") == 0 and not parameters.get("logprobs")


def _digest(value: Any) -> bytes:
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).digest()
