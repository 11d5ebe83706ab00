"""The gateway as a Starlette application: its routes, its start and its end."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from mlops_assets.request_record import LEFT
from mlops_assets.serving.gateway.api_keys import ADMIN, CHAT, FEEDBACK, METRICS
from mlops_assets.serving.gateway.chat import Chat
from mlops_assets.serving.gateway.gateway import Gateway
from mlops_assets.serving.gateway.http_calls import CallerLeft, read_body
from mlops_assets.serving.gateway.refusal import (
    INVALID_REQUEST,
    NOT_FOUND,
    SERVER,
    Refusal,
)
from mlops_assets.serving.gateway.server_metrics import CONTENT_TYPE

CHAT_PATH = "/v1/chat/completions"
Opened = Callable[[], AbstractAsyncContextManager[Gateway]]
"""Gives the gateway, running; ends it where that is its part."""
MOST_FEEDBACK = 256 * 1024  # bytes


def make_app(opened: Opened) -> ASGIApp:
    """The application around the gateway that ``opened`` gives when it starts.

    Chat goes past Starlette's layers, which it needs none of: it answers its own errors.
    """
    endpoints = Endpoints()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with opened() as gateway:
            endpoints.gateway = endpoints.chat.gateway = gateway
            yield

    rest = Starlette(
        routes=[
            Route(CHAT_PATH, endpoints.chat, methods=["POST"]),
            Route("/v1/models", endpoints.models),
            Route("/v1/models/{model}", endpoints.one_model),
            Route("/v1/feedback", endpoints.feedback, methods=["POST"]),
            Route("/health", endpoints.health),
            Route("/metrics", endpoints.metrics),
            Route("/admin/state", endpoints.state),
            Route("/admin/cache/flush", endpoints.flush, methods=["POST"]),
        ],
        exception_handlers={
            Refusal: _refused,
            CallerLeft: _left,
            HTTPException: _no_such_route,
            Exception: _failed,
        },
        lifespan=lifespan,
    )

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        is_chat = scope["type"] == "http" and scope["path"] == CHAT_PATH
        if is_chat and scope["method"] == "POST":
            await endpoints.chat(scope, receive, send)
        else:
            await rest(scope, receive, send)

    return app


class Endpoints:
    """The routes beside chat."""

    gateway: Gateway

    def __init__(self) -> None:
        self.chat = Chat()

    async def models(self, request: Request) -> Response:
        """The one model that is served, under the name by which callers ask for it."""
        self._authenticate(request, CHAT)
        return _json({"object": "list", "data": [self._model()]})

    async def one_model(self, request: Request) -> Response:
        """The same for a client that asks for it by name."""
        self._authenticate(request, CHAT)
        if request.path_params["model"] != self.gateway.model:
            raise Refusal(404, NOT_FOUND, "There is no such model.", code="model_not_found")
        return _json(self._model())

    async def health(self, _: Request) -> Response:
        """What is served, for load balancers: 503 when nothing can be."""
        told = self.gateway.health()
        return _json(told, 200 if told["status"] == "ok" else 503)

    async def metrics(self, request: Request) -> Response:
        """For Prometheus."""
        self._authenticate(request, METRICS)
        body = await self.gateway.metrics.render()
        return Response(body, headers={"content-type": CONTENT_TYPE.decode()})

    async def state(self, request: Request) -> Response:
        """Everything that the gateway knows of itself, for who runs it."""
        self._authenticate(request, ADMIN)
        return _json(self.gateway.state())

    async def flush(self, request: Request) -> Response:
        """Forget every kept answer."""
        self._authenticate(request, ADMIN)
        self.gateway.cache.flush()
        return _json({"flushed": True})

    async def feedback(self, request: Request) -> Response:
        """What a user said of an answer."""
        key = self._authenticate(request, FEEDBACK)
        self.gateway.limits.take(key)
        headers = dict(request.scope["headers"])
        timeout = self.gateway.spec.body_timeout
        body = await read_body(request.receive, headers, MOST_FEEDBACK, timeout)
        vote = await self.gateway.votes.give(key.name, body)
        self.gateway.metrics.vote(vote)
        told = {"id": vote.id, "object": "feedback", "request_id": vote.request}
        return _json({**told, "metric": vote.metric, "score": vote.score}, 201)

    def _authenticate(self, request: Request, scope: str) -> Any:
        header = request.headers.get("authorization", "").encode("latin-1")
        return self.gateway.authenticate(header, scope)

    def _model(self) -> dict[str, Any]:
        return {
            "id": self.gateway.model,
            "object": "model",
            "created": int(self.gateway.started),
            "owned_by": "mlops-assets",
        }


def _json(value: Any, status: int = 200) -> Response:
    headers = {"content-type": "application/json", "cache-control": "no-store"}
    return Response(orjson.dumps(value), status, headers)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)  # noqa: S101
    headers = {name.decode(): value.decode() for name, value in error.headers()}
    return Response(error.body(), error.status, {"content-type": "application/json", **headers})


async def _left(_: Request, error: Exception) -> Response:  # noqa: ARG001
    return Response(status_code=LEFT)


async def _no_such_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    if status == 405:
        refusal = Refusal(405, INVALID_REQUEST, f"{request.method} is not what this address takes.")
    else:
        refusal = Refusal(404, NOT_FOUND, "There is no such address.")
    response = await _refused(request, refusal)
    response.headers.update(getattr(error, "headers", None) or {})
    return response


async def _failed(request: Request, _: Exception) -> Response:
    """The server writes the stack trace to its log; the caller gets none of it."""
    return await _refused(request, Refusal(500, SERVER, "The gateway failed."))
