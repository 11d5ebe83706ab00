"""An answer's head and its first bytes leave in one piece; nothing that is due is kept back."""

import json
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from mlops_assets_tests.engine_server import serve_engine
from mlops_assets_tests.gateway_server import MODEL, RunningGateway, serve_gateway, upstream_of

ENOUGH = 65_536


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    with (
        serve_engine() as engine,
        serve_gateway(
            tmp_path_factory.mktemp("home"), upstream_of(engine.url), body_timeout=0.5
        ) as gateway,
    ):
        yield gateway


def connect(gateway: RunningGateway) -> socket.socket:
    at = urlsplit(gateway.url)
    return socket.create_connection((str(at.hostname), at.port or 80), timeout=10)


def question(gateway: RunningGateway, *headers: str, stream: bool = False) -> tuple[bytes, bytes]:
    """Head and body of a request."""
    messages = [{"role": "user", "content": "hi"}]
    body = json.dumps({"model": MODEL, "messages": messages, "stream": stream}).encode()
    lines = ["POST /v1/chat/completions HTTP/1.1", "Host: gateway", f"Content-Length: {len(body)}"]
    lines += ["Content-Type: application/json", f"Authorization: Bearer {gateway.key}", *headers]
    return "\r\n".join([*lines, "", ""]).encode(), body


def test_the_head_comes_with_the_answer(gateway: RunningGateway) -> None:
    with connect(gateway) as caller:
        for _ in range(3):  # on one connection
            caller.sendall(b"".join(question(gateway)))
            head, _, body = caller.recv(ENOUGH).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert json.loads(body)["choices"][0]["message"]["content"].endswith(": hi")


def test_the_head_of_a_stream_comes_with_its_first_event(gateway: RunningGateway) -> None:
    with connect(gateway) as caller:
        caller.sendall(b"".join(question(gateway, stream=True)))
        head, _, first = caller.recv(ENOUGH).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert b"data: {" in first


def test_a_caller_who_asks_whether_to_go_on_is_told_at_once(gateway: RunningGateway) -> None:
    head, body = question(gateway, "Expect: 100-continue")
    with connect(gateway) as caller:
        caller.sendall(head)
        assert caller.recv(ENOUGH).startswith(b"HTTP/1.1 100 ")
        caller.sendall(body)
        assert caller.recv(ENOUGH).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("sent", [0, 10])
def test_a_body_that_does_not_come_is_not_waited_for(gateway: RunningGateway, sent: int) -> None:
    head, body = question(gateway)
    with connect(gateway) as caller:
        caller.sendall(head + body[:sent])
        assert caller.recv(ENOUGH).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"HEAD /health HTTP/1.1", b"200"),
        (b"GET /nowhere HTTP/1.1", b"404"),
        (b"no HTTP", b"400"),
    ],
)
def test_what_has_no_body_or_is_refused_is_not_kept_back(
    gateway: RunningGateway, request_line: bytes, status: bytes
) -> None:
    with connect(gateway) as caller:
        caller.sendall(request_line + b"\r\nHost: gateway\r\n\r\n")
        assert caller.recv(ENOUGH).startswith(b"HTTP/1.1 " + status)
