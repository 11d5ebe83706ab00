"""HTTP as the gateway's hot path reads and writes it: straight ASGI, no request object."""

import asyncio
from typing import Any

from starlette.types import Receive, Scope, Send

from mlops_assets.serving.gateway.refusal import (
    INVALID_REQUEST,
    JSON_HEADER,
    Header,
    Refusal,
    invalid,
)

CLOSE: Header = (b"connection", b"close")
EVENT_STREAM: tuple[Header, ...] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # a proxy that buffers would take the stream away
)


class CallerLeft(Exception):
    """The caller closed the connection before it had its answer."""


def read_headers(scope: Scope) -> dict[bytes, bytes]:
    """Headers by lower-case name; of one that stands twice the last."""
    return dict(scope["headers"])


async def read_body(
    receive: Receive, headers: dict[bytes, bytes], most: int, timeout: float
) -> bytes:
    """The whole body, JSON by its content type, of ``most`` bytes, within ``timeout`` seconds.

    Raises Refusal (400, 408, 413, 415) or CallerLeft.
    """
    if headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != b"application/json":
        raise Refusal(415, INVALID_REQUEST, "The body must be application/json.")
    length = headers.get(b"content-length", b"0")
    if not length.isdigit():
        raise invalid("The content length is no number.")
    if int(length) > most:
        raise _too_large(most)
    try:
        async with asyncio.timeout(timeout):
            return await _read(receive, most)
    except TimeoutError:
        raise Refusal(408, INVALID_REQUEST, "The body did not arrive in time.") from None


async def send_whole(send: Send, status: int, body: bytes, headers: list[Header]) -> None:
    """An answer in one piece."""
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def send_refusal(send: Send, refusal: Refusal, headers: list[Header]) -> None:
    """An error in the form of the OpenAI protocol."""
    found = [JSON_HEADER, *headers, *refusal.headers()]
    if refusal.status in (408, 413):
        found.append(CLOSE)  # the rest of the body is not read
    await send_whole(send, refusal.status, refusal.body(), found)


class WhileConnected:
    """Cancels the block when the caller leaves, and says so by CallerLeft."""

    def __init__(self, receive: Receive) -> None:
        """The request's body was read before."""
        self._receive = receive
        self._left = False
        self._watch: asyncio.Task[None] | None = None

    def __enter__(self) -> "WhileConnected":
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        self._watch = asyncio.create_task(self._wait(task))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.release()
        if self._left and kind is asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.uncancel() == 0:
                raise CallerLeft from None

    def release(self) -> None:
        """Watch no longer: the answer is complete, the end of the connection means nothing."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    async def _wait(self, task: "asyncio.Task[Any]") -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left = True
        task.cancel()


async def _receive(receive: Receive) -> dict[str, Any]:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise CallerLeft
    return {"body": message.get("body", b""), "more_body": message.get("more_body", False)}


async def _read(receive: Receive, most: int) -> bytes:
    body, more = bytearray(), True
    while more:
        message = await _receive(receive)
        body += message["body"]
        if len(body) > most:
            raise _too_large(most)
        more = message["more_body"]
    return bytes(body)


def _too_large(most: int) -> Refusal:
    return Refusal(413, INVALID_REQUEST, f"The body may have {most // 1024:,} KiB.")
