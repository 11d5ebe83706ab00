"""The gateway's process: one for each home, on loopback, drained before it ends."""

import logging
import os
import signal
import socket
import time
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from mlops_assets.artifacts import LineageError
from mlops_assets.serving.gateway import Gateway

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


def make_server(app: Starlette) -> GatewayServer:
    """The server, not yet running."""
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
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
            f"The gateway cannot listen on {host} port {port} ({os.strerror(error.errno or 0)}).",
            "Stop the program that uses the port, or choose another with --port.",
        ) from error
    return listener


def address(listener: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
