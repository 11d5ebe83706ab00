"""A client that asks for chat completions as fast as a server gives them, over kept connections.

Reads HTTP by hand for the same reason as the instant engine: a tool such as wrk is no Python
package, and a client library would be what is measured. Every answer is checked to be whole and a
200. Each request is another one, so that no cache answers it.

python -m mlops_assets_tests.load_client URL --connections 16 --seconds 2 [--stream] [--model M]
    prints {"requests", "seconds", "failed", "p50_ms", "p99_ms"}; the key is LOAD_CLIENT_KEY
"""

import argparse
import asyncio
import json
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import uvloop

USERS = 997
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
LAST_CHUNK = b"0\r\n\r\n"
QUESTION = (
    "My router lost its connection twice since this morning, and the bill was wrong, too. " * 3
)


@dataclass
class Load:
    """What is asked, until when, and how long the answers took."""

    head: bytes
    model: str
    stream: bool
    until: float = 0.0
    seconds: list[float] = field(default_factory=list)
    """Of each answer, from the request's first byte to the answer's last."""
    failed: int = 0
    asked: int = 0
    open: int = 0

    def request(self) -> bytes:
        """The next request."""
        self.asked += 1
        content = f"{QUESTION} Ticket {os.getpid()}-{self.asked}."
        body = json.dumps(
            {
                "model": self.model,
                "messages": [{"role": "user", "content": content}],
                "user": f"user-{self.asked % USERS}",
                "stream": self.stream,
            }
        ).encode()
        return self.head + b"Content-Length: %d\r\n\r\n" % len(body) + body


class Connection(asyncio.Protocol):
    """Asks, reads the answer to its end, asks again."""

    def __init__(self, load: Load, done: Callable[[], None]) -> None:
        self.load, self.done, self.received = load, done, bytearray()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        self.received += data
        if not self._is_whole():
            return
        now = time.perf_counter()
        self.load.seconds.append(now - self.started)
        self.load.failed += not self._is_right()
        if now < self.load.until:
            self._ask()
        else:
            self.transport.close()

    def connection_lost(self, _: Exception | None) -> None:
        self.load.failed += time.perf_counter() < self.load.until
        self.done()

    def _ask(self) -> None:
        self.received.clear()
        request = self.load.request()
        self.started = time.perf_counter()
        self.transport.write(request)

    def _is_whole(self) -> bool:
        if (end := self.received.find(b"\r\n\r\n")) < 0:
            return False
        if found := LENGTH.search(self.received, 0, end):
            return len(self.received) >= end + 4 + int(found.group(1))
        return self.received.endswith(LAST_CHUNK)

    def _is_right(self) -> bool:
        end = b"data: [DONE]" if self.load.stream else b'"usage"'
        return self.received.startswith(b"HTTP/1.1 200") and end in self.received


async def run(load: Load, host: str, port: int, connections: int, seconds: float) -> None:
    """Ask over this many connections for so long; ``load`` holds what came of it."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    load.open, load.until = connections, time.perf_counter() + seconds

    def done() -> None:
        load.open -= 1
        if not load.open:
            over.set()

    for _ in range(connections):
        await loop.create_connection(lambda: Connection(load, done), host, port)
    await asyncio.wait_for(over.wait(), seconds + 30)


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which this share of the sorted values lies; NaN of none."""
    return ordered[int(share * (len(ordered) - 1))] if ordered else float("nan")


def main() -> None:
    """Ask, and print the figures."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("url")
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--model", default="instant")
    parser.add_argument("--stream", action="store_true")
    given = parser.parse_args()
    at = urlsplit(given.url)
    key = os.environ.get("LOAD_CLIENT_KEY", "none")
    head = (
        f"POST {at.path}/chat/completions HTTP/1.1\r\nHost: {at.netloc}\r\n"
        f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\n"
    )
    load = Load(head.encode(), given.model, given.stream)
    started = time.perf_counter()
    uvloop.run(run(load, str(at.hostname), at.port or 80, given.connections, given.seconds))
    seconds, ordered = time.perf_counter() - started, sorted(load.seconds)
    times = {f"p{share:.0f}_ms": 1000 * quantile(ordered, share / 100) for share in (50, 99)}
    print(json.dumps({"requests": len(ordered), "seconds": seconds, "failed": load.failed} | times))


if __name__ == "__main__":
    main()
