"""Live requests, asked of the candidate once more: nobody sees what it answers.

A request is offered when its answer is complete, and ``offer`` only puts it into a queue, so
nothing here can slow it. The queue is short, what does not fit is dropped and counted. Mirrored
requests have their own connections, concurrency, time-out and tokens a day, and wait while users
need the machine. Each ends as a line in the log of pairs.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from mlops_assets.request_record import RequestRecord
from mlops_assets.serving.gateway.answer import Answer, Garbage
from mlops_assets.serving.gateway.call import Call
from mlops_assets.serving.gateway.chat_request import ChatRequest
from mlops_assets.serving.gateway.refusal import Refusal
from mlops_assets.serving.gateway.relay import Relay
from mlops_assets.serving.gateway.upstream import Upstream
from mlops_assets.serving.gateway_spec import GatewaySpec
from mlops_assets.serving.records.observations import counts_as_failure
from mlops_assets.serving.records.request_log import LogFailed, SegmentLog
from mlops_assets.serving.traffic.shadow_pairs import DIRECTORY, ShadowPair, Side, read_pairs

logger = logging.getLogger(__name__)

LONGEST_QUESTION = 2000  # characters
LOOK_AGAIN = 0.05  # seconds between two looks whether there is room beside the users
PAIRS = "pairs"
FULL, BUDGET, BUSY, LOG = "queue_full", "budget", "no_spare_capacity", "log"
"""Why a mirrored request was dropped."""
OUTCOMES = (PAIRS, FULL, BUDGET, BUSY, LOG)


@dataclass(frozen=True, slots=True)
class Mirrored:
    """A live request that has been answered, and who is to answer it again."""

    request: ChatRequest
    record: RequestRecord
    tool_calls: bool
    """Whether the live answer called tools."""
    upstream: Upstream
    deadline: float
    """Of the monotonic clock: it does not begin later."""


class Shadow:
    """Asks the candidate, in the background."""

    def __init__(
        self,
        serving: Path,
        spec: GatewaySpec,
        tokens_per_day: int,
        has_room: Callable[[], bool],
    ) -> None:
        """``serving`` is the home's directory of that name. ``has_room`` says whether users leave
        room now. To be made inside the event loop; raises LineageError when the log of pairs
        cannot be written."""
        self._spec, self._tokens_per_day, self._has_room = spec, tokens_per_day, has_room
        self._log = SegmentLog(serving / DIRECTORY, spec.log_segment_mib * 1024**2)
        self._relay = Relay(spec.model_copy(update={"total_timeout": spec.shadow_timeout}))
        self._queue: asyncio.Queue[Mirrored] = asyncio.Queue(spec.shadow_queue)
        self._day, self._tokens = _today(), _tokens_of(self._log.directory, _today())
        self._workers = [asyncio.create_task(self._work()) for _ in range(spec.shadow_concurrency)]
        self.counts: Counter[str] = Counter()
        """Pairs, and by the reason what was dropped."""

    @property
    def tokens_today(self) -> int:
        """Tokens that mirrored requests used since midnight (UTC)."""
        if self._day != (today := _today()):
            self._day, self._tokens = today, 0
        return self._tokens

    def offer(self, call: Call, record: RequestRecord) -> None:
        """Have the candidate of the call's route answer it too, if it has one and there is room.

        Never waits. What did not come from an engine, or failed for another reason than the
        engine, says nothing about a release.
        """
        upstream = call.route.mirror if call.route else None
        if upstream is None or call.request is None or record.cached:
            return
        if record.status != 200 and not counts_as_failure(record):
            return
        if self.tokens_today >= self._tokens_per_day:
            self.counts[BUDGET] += 1
            return
        deadline = time.monotonic() + self._spec.shadow_timeout
        asked = Mirrored(call.request, record, call.answer.tool_calls, upstream, deadline)
        try:
            self._queue.put_nowait(asked)
        except asyncio.QueueFull:
            self.counts[FULL] += 1

    async def close(self) -> None:
        """Stop at once: what is under way or waits is dropped."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        await self._relay.close()
        self._log.close()

    async def _work(self) -> None:
        while True:
            asked = await self._queue.get()
            try:
                await self._mirror(asked)
            except LogFailed as error:
                self.counts[LOG] += 1
                logger.error("a pair is not in the log of the shadow: %s", error)
            except Exception:
                # A bug here must not end the shadow, let alone reach a user.
                logger.exception("a mirrored request failed")

    async def _mirror(self, asked: Mirrored) -> None:
        while not self._has_room():
            if time.monotonic() > asked.deadline:
                self.counts[BUSY] += 1
                return
            await asyncio.sleep(LOOK_AGAIN)
        if self.tokens_today >= self._tokens_per_day:
            self.counts[BUDGET] += 1
            return
        side, tokens = await self._ask(asked)
        self._tokens += tokens
        self._log.append(_pair(asked, side, tokens))
        self.counts[PAIRS] += 1

    async def _ask(self, asked: Mirrored) -> tuple[Side, int]:
        """The candidate's answer, and the tokens that it cost."""
        body = _plain(asked.request).upstream_body(asked.upstream, self._spec.maximum_output_tokens)
        answer = Answer(asked.record.id, asked.record.model)
        began, error = time.perf_counter(), ""
        try:
            answer.take_completion(
                await self._relay.complete(
                    asked.upstream, body, {"content-type": "application/json"}
                )
            )
        except Refusal as refusal:
            error = refusal.type
        except Garbage:
            error = "garbage"
        latency = 1000 * (time.perf_counter() - began)
        tokens = (answer.tokens_in or 0) + (answer.tokens_out or 0)
        return Side(answer.text, latency, error, answer.finish, answer.tool_calls), tokens


def _plain(request: ChatRequest) -> ChatRequest:
    """The request without its stream: nobody reads along."""
    streaming = ("stream", "stream_options")
    fields = {name: value for name, value in request.fields.items() if name not in streaming}
    return replace(request, fields=fields, stream=False, wants_usage=False)


def _pair(asked: Mirrored, side: Side, tokens: int) -> ShadowPair:
    record = asked.record
    live = Side(record.output, record.latency_ms, record.error, record.finish, asked.tool_calls)
    return ShadowPair(
        id=record.id,
        timestamp=datetime.now(UTC).isoformat(timespec="milliseconds"),
        stable=record.release,
        candidate=asked.upstream.release,
        question=str(asked.request.messages[-1].get("content") or "")[:LONGEST_QUESTION],
        live=live,
        shadow=side,
        tokens=tokens,
    )


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _tokens_of(directory: Path, day: str) -> int:
    return sum(pair.tokens for pair in read_pairs(directory) if pair.timestamp.startswith(day))
