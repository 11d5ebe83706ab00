"""The real gateway over real loopback HTTP, in a thread of the test's process."""

import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from mlops_assets.serving.gateway.api_keys import SCOPES, new_key
from mlops_assets.serving.gateway.application import make_app
from mlops_assets.serving.gateway.gateway import Gateway
from mlops_assets.serving.gateway.server import GatewayServer, address, listen, make_server
from mlops_assets.serving.gateway.upstream import Upstream
from mlops_assets.serving.gateway_spec import GatewaySpec
from mlops_assets.serving.serving_home import ServingHome
from mlops_assets.serving.traffic.route import OneUpstream, Routes
from mlops_assets_tests.waiting import wait_until

MODEL = "support-tickets"
RELEASE = "ab" * 32


@dataclass
class RunningGateway:
    """A gateway, its address, and a key with every scope."""

    files: ServingHome
    url: str
    key: str
    name: str
    gateway: Gateway
    server: GatewayServer

    @property
    def records(self) -> list[dict[str, Any]]:
        """What stands in the request log."""
        return read_log(self.files.requests)

    @property
    def authorization(self) -> dict[str, str]:
        """The header of the key."""
        return {"Authorization": f"Bearer {self.key}"}


def read_log(directory: Path) -> list[dict[str, Any]]:
    """Every record of a log."""
    segments = (path.read_bytes() for path in sorted(directory.glob("*.jsonl")))
    return [orjson.loads(line) for segment in segments for line in segment.splitlines()]


def upstream_of(url: str, **others: Any) -> Upstream:
    """An engine of tests as the gateway knows it."""
    return Upstream(**{"release": RELEASE, "url": url, "model": "/models/engine", **others})


@contextmanager
def serve_gateway(
    root: Path,
    upstream: Upstream | None = None,
    *,
    routes: Routes | None = None,
    prepare: Callable[[Gateway], None] = lambda _: None,
    shadow_tokens_per_day: int = 0,
    **settings: Any,
) -> Iterator[RunningGateway]:
    """Run one until the block ends: over one upstream, or over ``routes``."""
    files = ServingHome(root / "serving")
    name = f"tests-{time.monotonic_ns()}"
    _, key = new_key(files.keys, name, SCOPES)
    chosen = routes if routes is not None else OneUpstream(_known(upstream))
    made: list[Gateway] = []

    @asynccontextmanager
    async def opened() -> AsyncIterator[Gateway]:
        gateway = Gateway(
            files,
            GatewaySpec(**settings),
            MODEL,
            chosen,
            shadow_tokens_per_day=shadow_tokens_per_day,
        )
        prepare(gateway)
        made.append(gateway)
        async with gateway.running():
            yield gateway

    server = make_server(make_app(opened))
    listener = listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive(), "the gateway")
        server.gateway = made[0]
        yield RunningGateway(files, address(listener), key, name, made[0], server)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def _known(upstream: Upstream | None) -> Upstream:
    assert upstream is not None
    return upstream
