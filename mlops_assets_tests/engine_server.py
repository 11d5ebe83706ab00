"""A real server on loopback that speaks the OpenAI protocol: the engine of tests and benchmarks.

It answers at once and rightly, until it is told to fail: by a message that holds
``[engine: REPLY]``, by a list of replies that are used up first, by a reply for one model, or by
one for all. ``engine_replies`` has the replies. ``serve_engine`` runs it in this process;
``EngineProcess`` (``python -m mlops_assets_tests.engine_server``) in one that can be killed with
SIGKILL and frozen with SIGSTOP.
"""

import argparse
import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson
import uvloop
from aiohttp import web

from mlops_assets.profiles import PROJECT
from mlops_assets_tests.engine_replies import REPLIES, Asked, document

TOLD = re.compile(r"\[engine: ([\w:.]+)\]")
KEPT = 20_000  # requests; a benchmark sends more
CONTROL = "/control"


@dataclass
class EngineServer:
    """What it was asked, and how it is to answer."""

    url: str = ""
    """Up to and with ``/v1``."""
    models: tuple[str, ...] = ("engine",)
    """What ``/v1/models`` lists; it answers for any."""
    asked: deque[Asked] = field(default_factory=lambda: deque(maxlen=KEPT))
    """The last chat requests, oldest first."""
    count: int = 0
    """Chat requests in all."""
    left: int = 0
    """Callers who left before they had their answer."""
    replies: deque[str] = field(default_factory=deque)
    """Used up first, one for a chat request."""
    by_model: dict[str, str] = field(default_factory=dict)
    always: str = "answer"

    def choose(self, asked: Asked) -> str:
        """The reply to a chat request."""
        if told := TOLD.search(asked.question):
            return told.group(1)
        if self.replies:
            return self.replies.popleft()
        return self.by_model.get(asked.model, self.always)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer any request."""
        if request.path == "/v1/chat/completions":
            return await self._chat(request)
        if request.path == "/v1/models":
            listed = [{"id": name, "object": "model", "owned_by": "tests"} for name in self.models]
            return document({"object": "list", "data": listed})
        if request.path == "/health":
            return document({"status": "ok"})
        if request.path == CONTROL:
            return await self._control(request)
        return document({"error": {"message": "Not found", "type": "not_found"}}, 404)

    async def _chat(self, request: web.BaseRequest) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        headers = {str(name): value for name, value in request.headers.items()}
        asked = Asked(request.method, request.path, headers, body)
        self.asked.append(asked)
        self.count += 1
        name, _, argument = self.choose(asked).partition(":")
        try:
            return await REPLIES[name](request, asked, argument)
        except (asyncio.CancelledError, ConnectionError):
            self.left += 1
            raise

    async def _control(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "PUT":
            self.switch(**orjson.loads(await request.read()))
        counts = {"count": self.count, "left": self.left}
        return document({**counts, "asked": [asdict(one) for one in self.asked]})

    def switch(
        self,
        always: str = "answer",
        replies: tuple[str, ...] = (),
        by_model: dict[str, str] | None = None,
    ) -> None:
        """Answer like this from now on; what is not named is as at the start."""
        self.always, self.by_model = always, dict(by_model or {})
        self.replies.clear()
        self.replies.extend(replies)


async def run_engine(
    state: EngineServer, port: int, end: asyncio.Event, ready: Callable[[], object]
) -> None:
    """Listen on loopback until ``end``; call ``ready`` when ``state`` has its URL."""
    server = web.Server(state.handle, access_log=None, handler_cancellation=True)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, backlog=1024)
    await site.start()
    state.url = "http://{}:{}/v1".format(*runner.addresses[0][:2])
    ready()
    await end.wait()
    await runner.cleanup()


@contextmanager
def serve_engine(*models: str) -> Iterator[EngineServer]:
    """Run a server in this process until the block ends."""
    state = EngineServer(models=models or ("engine",))
    ready, end = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    def run() -> None:
        loop.run_until_complete(run_engine(state, 0, end, ready.set))
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(10)
    try:
        yield state
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join()


class EngineProcess:
    """A server in a process of its own; after ``kill``, ``start`` brings it back on its port."""

    def __init__(self, *models: str, port: int = 0) -> None:
        self.models, self.port, self.url = models, port, ""
        self.start()

    def start(self) -> None:
        """Start it, and return when it listens."""
        words = ["-m", "mlops_assets_tests.engine_server", "--port", str(self.port)]
        self.process = subprocess.Popen(
            [sys.executable, *words, *(f"--model={name}" for name in self.models)],
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        assert self.url, "the engine did not start"
        self.port = int(self.url.removesuffix("/v1").rpartition(":")[2])

    def kill(self) -> None:
        """As the kernel does when memory runs out."""
        self.process.send_signal(signal.SIGCONT)  # a frozen one, too
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def freeze(self) -> None:
        """It keeps its connections, and does nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def switch(self, always: str = "answer", **others: Any) -> None:
        """As ``EngineServer.switch``."""
        self._control(json.dumps({"always": always, **others}).encode())

    @property
    def asked(self) -> list[Asked]:
        """The last chat requests, oldest first."""
        return [Asked(**one) for one in self._control()["asked"]]

    @property
    def left(self) -> int:
        """Callers who left before they had their answer."""
        return int(self._control()["left"])

    def _control(self, data: bytes | None = None) -> Any:
        url = self.url.removesuffix("/v1") + CONTROL
        request = urllib.request.Request(url, data, method="PUT" if data else "GET")  # noqa: S310
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
            return json.load(response)


@contextmanager
def engine_process(*models: str) -> Iterator[EngineProcess]:
    """A server in a process of its own until the block ends."""
    engine = EngineProcess(*models)
    try:
        yield engine
    finally:
        engine.kill()


def free_port() -> int:
    """A port on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    """Serve until SIGTERM; the first line of the output is the URL."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--always", default="answer")
    given = parser.parse_args()
    state = EngineServer(models=tuple(given.model) or ("engine",), always=given.always)

    async def serve() -> None:
        end = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.set)
        await run_engine(state, given.port, end, lambda: print(state.url, flush=True))

    uvloop.run(serve())


if __name__ == "__main__":
    main()
