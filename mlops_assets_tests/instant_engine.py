"""An engine that answers at once: what a relay is measured against.

One answer, made beforehand, is written as soon as a request is complete. The HTTP is read by hand,
so that the engine is never what limits a benchmark: it takes some 20,000 requests a second.

python -m mlops_assets_tests.instant_engine    prints its URL, serves until SIGTERM
"""

import asyncio
import json
import re
import signal

import uvloop

WORDS = ("the", "router", "was", "restarted", "and", "the", "line", "is", "stable", "again")
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
STREAM = re.compile(rb'"stream": ?true')
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\n%s\r\n\r\n"


def plain_answer() -> bytes:
    """A whole chat completion with its head."""
    message = {"role": "assistant", "content": " ".join(WORDS)}
    body = json.dumps(
        {
            "id": "chatcmpl-instant",
            "object": "chat.completion",
            "created": 1,
            "model": "instant",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": _usage(),
        }
    ).encode()
    return HEAD % (b"application/json", b"Content-Length: %d" % len(body)) + body


def streamed_answer() -> list[bytes]:
    """The same as server-sent events in chunks, a word each."""
    choices = [{"index": 0, "delta": {"content": f"{word} "}} for word in WORDS]
    last = {"index": 0, "delta": {}, "finish_reason": "stop"}
    events = [_event({"choices": [choice]}) for choice in (*choices, last)]
    events += [_event({"choices": [], "usage": _usage()}), b"data: [DONE]\n\n"]
    chunks = [b"%x\r\n%s\r\n" % (len(event), event) for event in events]
    return [HEAD % (b"text/event-stream", b"Transfer-Encoding: chunked"), *chunks, b"0\r\n\r\n"]


def _usage() -> dict[str, int]:
    return {"prompt_tokens": 50, "completion_tokens": len(WORDS), "total_tokens": 50 + len(WORDS)}


def _event(content: dict[str, object]) -> bytes:
    kind = {"object": "chat.completion.chunk", "created": 1, "model": "instant"}
    return b"data: " + json.dumps({"id": "chatcmpl-instant", **kind, **content}).encode() + b"\n\n"


PLAIN, STREAMED = plain_answer(), streamed_answer()


class InstantEngine(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport, self.received = transport, b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            found = LENGTH.search(self.received, 0, end)
            whole = end + 4 + (int(found.group(1)) if found else 0)
            if len(self.received) < whole:
                return
            request, self.received = self.received[:whole], self.received[whole:]
            self._answer(request, end)

    def _answer(self, request: bytes, end: int) -> None:
        if STREAM.search(request, end):
            for part in STREAMED:
                self.transport.write(part)
        else:
            self.transport.write(PLAIN)


async def serve() -> None:
    """Serve until SIGTERM; the first line of the output is the URL."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(InstantEngine, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    print(f"http://127.0.0.1:{port}/v1", flush=True)
    end = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, end.set)
    await end.wait()


if __name__ == "__main__":
    uvloop.run(serve())
