"""The gateway's process: one for each home, on loopback, drained before it ends."""

import asyncio
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import FrameType

import typer
import uvicorn
import uvloop
from starlette.types import ASGIApp

from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home
from mlops_assets.serving.gateway.access_log import log_as_json
from mlops_assets.serving.gateway.application import make_app
from mlops_assets.serving.gateway.gateway import Gateway
from mlops_assets.serving.gateway.http_protocol import GatewayProtocol
from mlops_assets.serving.gateway.lifecycle import Settings, open_gateway, provide_first_key
from mlops_assets.serving.serving_home import ServingHome

logger = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "::1", "localhost")
LAST_SECONDS = 2  # for answers that were told to end


class GatewayServer(uvicorn.Server):
    """Stops in two steps: new requests get 503 while those in flight finish, then it ends."""

    gateway: Gateway | None = None
    _stop_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain at the first signal, end at the second."""
        if self.gateway is None or self._stop_at is not None:
            super().handle_exit(sig, frame)
            return
        self.gateway.draining = True
        self._stop_at = time.monotonic() + self.gateway.spec.drain_timeout
        logger.info("%s: finishing requests", signal.Signals(sig).name)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to end."""
        if self._stop_at is not None and self.gateway is not None:
            idle = not self.gateway.admission.in_flight and not self.gateway.admission.waiting
            if idle or time.monotonic() > self._stop_at:
                self.should_exit = True
        return await super().on_tick(counter)


def make_server(app: ASGIApp) -> GatewayServer:
    """The server, not yet running."""
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=GatewayProtocol,
        ws="none",
        lifespan="on",
        access_log=False,  # ours names the key and the trace, and no address
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=LAST_SECONDS,
    )
    return GatewayServer(config)


def listen(host: str, port: int) -> socket.socket:
    """The listening socket. Raises LineageError when the address cannot be had."""
    if host not in LOOPBACK:
        logger.warning(
            "listening on %s: keys and texts travel in the clear, put a TLS proxy before it", host
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise LineageError(
            f"The gateway cannot listen on {host} port {port} ({error.strerror}).",
            "Choose a port that no program uses with --port, and an address of this machine with"
            " --host.",
        ) from error
    return listener


def address(listener: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(home: Home, port: int, host: str | None = None) -> None:
    """Serve what the ledger says until Ctrl-C or SIGTERM. Port 0 takes any that is free, no host
    the one of the settings.

    Raises LineageError when a gateway of this home runs already, when the port is taken, or when
    the settings or the logs cannot be used.
    """
    settings, files = Settings.of_profile(), ServingHome.of(home)
    home.prepare()
    log_as_json()
    with files.only_gateway(), listen(host or settings.gateway.host, port) as listener:
        if provide_first_key(files):
            typer.echo(f"A first API key lies in {files.first_key} (mode 0600).")
        url = address(listener)
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_serve(home, settings, files, listener, url))
        finally:
            files.address_file.unlink(missing_ok=True)


async def _serve(
    home: Home, settings: Settings, files: ServingHome, listener: socket.socket, url: str
) -> None:
    async with open_gateway(home, settings) as gateway:

        @asynccontextmanager
        async def opened() -> AsyncIterator[Gateway]:
            yield gateway

        server = make_server(make_app(opened))
        server.gateway = gateway
        facts = {"url": url, "pid": os.getpid(), "model": settings.model}
        facts["instance"] = gateway.instance
        files.note_address({**facts, "config": settings.gateway.digest})
        typer.echo(f"{settings.model}  {url}/v1  (OpenAI-compatible; state on {url}/health)")
        _settle_memory()
        await server.serve(sockets=[listener])


def _settle_memory() -> None:
    """What was loaded stays loaded: the collector need not look at it again. Looking at every
    700th new object would take a third of the time of a request."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
