"""One chat request, from its first byte to its record in the log.

Authenticate, limit, parse, route, relay, log, answer. The record is written before the last byte
of the answer: an answer that was acknowledged is always in the log, and when the log cannot be
written the caller gets 503.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

from starlette.types import Receive, Scope, Send

from mlops_assets.request_record import LEFT
from mlops_assets.serving.accounting.budgets import Names
from mlops_assets.serving.caching.cached_answer import CachedAnswer
from mlops_assets.serving.gateway.answer import DONE, Events, Garbage, broken
from mlops_assets.serving.gateway.api_keys import CHAT
from mlops_assets.serving.gateway.call import Call
from mlops_assets.serving.gateway.chat_request import check_model, parse, parse_feature
from mlops_assets.serving.gateway.http_calls import (
    EVENT_STREAM,
    CallerLeft,
    WhileConnected,
    read_body,
    read_headers,
    send_refusal,
    send_whole,
)
from mlops_assets.serving.gateway.refusal import JSON_HEADER, SERVER, Refusal, unavailable
from mlops_assets.serving.gateway.relay import too_slow
from mlops_assets.serving.gateway.upstream import Upstream
from mlops_assets.serving.records.request_log import LogFailed

if TYPE_CHECKING:
    from mlops_assets.serving.gateway.gateway import Gateway

logger = logging.getLogger(__name__)

LAST_EVENT = b"data: [DONE]\n\n"
LAST_WORDS = 0.2  # seconds in which an engine may end a stream after its last event


class Chat:
    """The route ``/v1/chat/completions``."""

    gateway: "Gateway"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever happens."""
        headers = read_headers(scope)
        trace = self.gateway.tracing.begin(headers.get(b"traceparent", b""))
        call = Call(f"chatcmpl-{os.urandom(16).hex()}", trace, time.perf_counter())
        try:
            await self._take(call, headers, receive, send)
        except Refusal as refusal:
            await self._refuse(call, refusal, send)
        except CallerLeft:
            self._take_down(call, LEFT, "client_closed_request")
        except asyncio.CancelledError:
            # The server stops and waits no longer: a clean end instead of a silent cut.
            await self._refuse(call, unavailable("The gateway is stopping.", code="stopping"), send)
        except Exception:
            logger.exception("request %s failed", call.id)
            await self._refuse(call, Refusal(500, SERVER, "The gateway failed."), send)

    async def _take(
        self, call: Call, headers: dict[bytes, bytes], receive: Receive, send: Send
    ) -> None:
        gateway, spec = self.gateway, self.gateway.spec
        call.key = gateway.authenticate(headers.get(b"authorization", b""), CHAT)
        gateway.check_open()
        gateway.limits.take(call.key)
        call.feature = parse_feature(headers.get(b"x-feature", b"").decode("latin-1"))
        call.cache_control = headers.get(b"cache-control", b"").decode("latin-1")
        body = await read_body(receive, headers, spec.maximum_body_kib * 1024, spec.body_timeout)
        call.started = time.perf_counter()
        call.request = parse(body, spec)
        check_model(call.request.model, gateway.model)
        call.answer.model = gateway.model
        call.user = gateway.hash_user(call.key.name, call.request.user or call.key.name)
        with WhileConnected(receive) as watch:
            await gateway.admission.enter()
            try:
                await self._answer(call, watch, send)
            finally:
                gateway.admission.leave()

    async def _answer(self, call: Call, watch: WhileConnected, send: Send) -> None:
        assert call.key is not None  # noqa: S101
        assert call.request is not None  # noqa: S101
        call.trace.step("route")
        tenant, cache = call.key.name, self.gateway.cache
        call.route = self.gateway.routes.route(tenant, call.user, call.request.attributes)
        call.place = cache.place(tenant, call.route, call.request, call.cache_control)
        if call.place is not None and (found := await cache.find(call.place)) is not None:
            await self._repeat(call, *found, watch, send)
            return
        call.trace.step("upstream", release=call.route.upstream.release, arm=call.route.arm)
        with self.gateway.track(call.route.upstream.release):
            if call.request.stream:
                await self._stream(call, watch, send)
            else:
                await self._plain(call, watch, send)

    async def _repeat(
        self, call: Call, cache: str, kept: CachedAnswer, watch: WhileConnected, send: Send
    ) -> None:
        """Give an answer that is kept."""
        assert call.request is not None  # noqa: S101
        call.trace.step("cache", kind=cache)
        call.cached = cache
        kept.fill(call.answer)
        names = call.id, call.answer.model
        if call.request.stream:
            await self._send_part(call, kept.events(*names, call.request.wants_usage), send)
        self._acknowledge(call)
        self.gateway.metrics.cache_hit(cache)
        watch.release()
        if call.request.stream:
            await send({"type": "http.response.body", "body": LAST_EVENT})
        else:
            await send_whole(send, 200, kept.completion(*names), [JSON_HEADER, *call.headers()])

    async def _plain(self, call: Call, watch: WhileConnected, send: Send) -> None:
        upstream, body, headers = self._question(call)
        raw = await self.gateway.relay.complete(upstream, body, headers)
        try:
            answer = call.answer.take_completion(raw)
        except Garbage as garbage:
            raise broken(garbage.code) from None
        self._acknowledge(call)
        watch.release()
        call.answered = True
        await send_whole(send, 200, answer, [JSON_HEADER, *call.headers()])

    async def _stream(self, call: Call, watch: WhileConnected, send: Send) -> None:
        upstream, body, headers = self._question(call)
        events = Events(self.gateway.spec.maximum_answer_kib * 1024)
        try:
            async with (
                asyncio.timeout(self.gateway.spec.total_timeout),
                aclosing(self.gateway.relay.stream(upstream, body, headers)) as blocks,
            ):
                async for block in blocks:
                    passed, done = _pass_on(call, events.feed(block))
                    if passed:
                        await self._send_part(call, passed, send)
                    if done:
                        break
                if not call.answer.finish:
                    raise broken("engine_cut_off")
                self._acknowledge(call)
                watch.release()
                await send({"type": "http.response.body", "body": LAST_EVENT})
                call.answered = True
                await _read_out(blocks)
        except Garbage as garbage:
            raise broken(garbage.code) from None
        except TimeoutError:
            raise too_slow("The answer took too long.") from None

    async def _send_part(self, call: Call, part: bytes, send: Send) -> None:
        if call.first_byte is None:
            call.first_byte = time.perf_counter()
            headers = [*EVENT_STREAM, *call.headers()]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": part, "more_body": True})

    def _question(self, call: Call) -> tuple[Upstream, bytes, dict[str, str]]:
        """Whom to ask, and what. Raises Refusal when a budget does not allow it."""
        assert call.key is not None  # noqa: S101
        assert call.request is not None  # noqa: S101
        assert call.route is not None  # noqa: S101
        upstream, most = call.route.upstream, self.gateway.spec.maximum_output_tokens
        body = call.request.upstream_body(upstream, most)
        names = Names(call.key.name, call.user, call.feature, upstream.prompt)
        answer_tokens = call.request.longest_answer(upstream, most)
        self.gateway.budgets.reserve(call.id, names, upstream.model, len(body), answer_tokens)
        call.asked = True
        headers = {
            "content-type": "application/json",
            "accept-encoding": "identity",
            "x-request-id": call.id,
            "traceparent": call.trace.traceparent(),
        }
        return upstream, body, headers

    def _acknowledge(self, call: Call) -> None:
        """Write the record of an answer that is complete but for its last byte."""
        try:
            self.gateway.take_down(call, 200, "")
        except LogFailed:
            raise unavailable(
                "The gateway cannot record requests and answers none.", 5.0, code="log_unavailable"
            ) from None
        if call.place is not None and not call.cached:
            self.gateway.cache.put(call.place, call.answer)

    async def _refuse(self, call: Call, refusal: Refusal, send: Send) -> None:
        """Tell the caller, in a stream that has begun by a last event."""
        self._take_down(call, refusal.status, refusal.code or refusal.type)
        if call.answered:
            return
        if call.first_byte is None:
            await send_refusal(send, refusal, call.headers())
        else:
            await send({"type": "http.response.body", "body": refusal.event()})

    def _take_down(self, call: Call, status: int, error: str) -> None:
        """Record what got no answer, as far as the log takes it."""
        with suppress(LogFailed):
            self.gateway.take_down(call, status, error)


def _pass_on(call: Call, events: list[bytes]) -> tuple[bytes, bool]:
    """The events as the caller gets them, and whether the stream says that it is over."""
    assert call.request is not None  # noqa: S101
    passed = bytearray()
    for data in events:
        if data == DONE:
            return bytes(passed), True
        data, is_usage = call.answer.take_event(data)
        if call.request.wants_usage or not is_usage:
            passed += b"data: " + data + b"\n\n"
    return bytes(passed), False


async def _read_out(blocks: AsyncGenerator[bytes, None]) -> None:
    """Let the engine end its stream, so that the connection to it can be used again. The caller
    has its answer: nothing that goes wrong here is an error."""
    with suppress(TimeoutError, Refusal):
        async with asyncio.timeout(LAST_WORDS):
            async for _ in blocks:
                pass
