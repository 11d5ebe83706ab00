"""Hosted providers as an engine: a server on loopback that answers through LiteLLM's router.

It speaks the OpenAI protocol, so the gateway relays its bytes like those of every other engine.
It is a process of its own because LiteLLM takes seconds and some hundred MB to import, changes
the process that imports it, and wants older versions of libraries that the lineage uses: it may
run under an interpreter that has LiteLLM and nothing else of ours. That is why this module
imports nothing of ``mlops_assets``.

Which providers are asked stands on the command line. Their keys come from the environment
variables that LiteLLM reads (``OPENAI_API_KEY``, ``ANTHROPIC_API_KEY``, ``AWS_...``), which the
process inherits; no caller can name a key, an address or a model. It answers nobody but whoever
holds ``MLOPS_HOSTED_KEY``: other users of the machine reach loopback too, and answers cost money.
"""

import argparse
import hmac
import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

LOOPBACK = "127.0.0.1"
KEY_VARIABLE = "MLOPS_HOSTED_KEY"
FIRST = "first"
"""The router's name of the model that is asked first; fallbacks are ``fallback-1`` ..."""
OFFLINE = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_LOCAL_POLICY_TEMPLATES": "True",
    "LITELLM_LOCAL_AUTOROUTER_PRESETS": "True",
    "LITELLM_MODE": "PRODUCTION",  # else a `.env` of the working directory is read
}
"""Without these LiteLLM downloads its tables of prices and headers when it is imported."""
FIELDS = frozenset(
    {
        *("messages", "temperature", "top_p", "n", "stop", "max_tokens", "max_completion_tokens"),
        *("presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "top_logprobs"),
        *("seed", "response_format", "tools", "tool_choice", "parallel_tool_calls", "user"),
        *("reasoning_effort", "modalities", "prediction", "verbosity", "service_tier"),
    }
)
"""What a body may say. LiteLLM takes addresses, keys and other models from it as well."""
CALLERS_FAULT = frozenset({400, 413, 422})
REPORTED = {
    408: (504, "timeout_error", "The provider did not answer in time."),
    429: (429, "rate_limit_error", "The provider's rate limit is reached."),
}
"""What becomes of a provider's status; any other failure is a 502."""


def routed(models: Sequence[str], retries: int, timeout: float, api_base: str) -> Any:
    """LiteLLM's router: the first model, the others in order when it fails.

    ``api_base`` is the address of the first model, empty for the provider's own.
    """
    os.environ.update(OFFLINE)
    import litellm

    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
        logging.getLogger(name).disabled = True  # its lines hold requests, answers and addresses
    litellm.telemetry = False
    litellm.suppress_debug_info = True
    litellm.drop_params = True  # what a provider does not know of is left out, not refused
    names = [FIRST, *(f"fallback-{number}" for number in range(1, len(models)))]
    addresses = [api_base or None, *[None] * len(names[1:])]
    deployments = [
        {"model_name": name, "litellm_params": {"model": model, "api_base": address}}
        for name, model, address in zip(names, models, addresses, strict=True)
    ]
    return litellm.Router(
        model_list=deployments,
        fallbacks=[{FIRST: names[1:]}] if names[1:] else [],
        num_retries=retries,
        timeout=timeout,
        disable_cooldowns=True,  # the gateway's guardrails must see every failure
    )


def hosted_app(router: Any, name: str, key: str) -> Starlette:
    """The server; ``name`` is what it calls its one model, ``key`` what callers must send."""
    bearer = f"Bearer {key}".encode()

    async def chat(request: Request) -> Response:
        given = request.headers.get("authorization", "").encode("latin-1")
        if not hmac.compare_digest(given, bearer):
            return JSONResponse(_error("authentication_error", "No valid key was sent."), 401)
        body = orjson.loads(await request.body())
        asked = {field: value for field, value in body.items() if field in FIELDS}
        streams = bool(body.get("stream"))
        try:
            if not streams:
                answer = await router.acompletion(model=FIRST, **asked)
                return Response(orjson.dumps(completed(answer)), media_type="application/json")
            options = {"stream": True, "stream_options": {"include_usage": True}}
            answer = await router.acompletion(model=FIRST, **asked, **options)
        except Exception as error:
            status, said = refused(error)
            return JSONResponse(said, status)
        return StreamingResponse(events(answer), media_type="text/event-stream")

    async def models(_: Request) -> Response:
        listed = [{"id": name, "object": "model", "created": 0, "owned_by": "hosted"}]
        return JSONResponse({"object": "list", "data": listed})

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    return Starlette(
        routes=[
            Route("/v1/chat/completions", chat, methods=["POST"]),
            Route("/v1/models", models),
            Route("/health", health),
        ]
    )


def completed(answer: Any) -> dict[str, Any]:
    """The completion as the protocol has it, with its price in ``usage.cost``."""
    said: dict[str, Any] = answer.model_dump(exclude_none=True)
    return said | {"usage": said.get("usage", {}) | price(answer)}


async def events(answer: Any) -> AsyncIterator[bytes]:
    """The stream as server-sent events. One that breaks ends with an error and no ``[DONE]``."""
    try:
        async for chunk in answer:
            said = chunk.model_dump(exclude_none=True)
            for choice in said["choices"]:
                choice.setdefault("finish_reason", None)  # the protocol has it in every event
            if "usage" in said:
                said["usage"] |= price(chunk, answer)
            yield b"data: " + orjson.dumps(said) + b"\n\n"
    except Exception as error:
        yield b"data: " + orjson.dumps(refused(error)[1]) + b"\n\n"
        return
    yield b"data: [DONE]\n\n"


def price(answer: Any, stream: Any = None) -> dict[str, float]:
    """What LiteLLM's table says the answer cost, in US dollars; nothing where it has no price."""
    import litellm

    hidden = getattr(stream or answer, "_hidden_params", None) or {}
    model = hidden.get("litellm_model_name") or answer.model
    try:
        reading, writing = litellm.cost_per_token(
            model=model,
            prompt_tokens=answer.usage.prompt_tokens,
            completion_tokens=answer.usage.completion_tokens,
            custom_llm_provider=hidden.get("custom_llm_provider"),
        )
    except Exception:  # LiteLLM raises bare ones for a model that it does not know
        return {}
    return {"cost": reading + writing} if reading + writing > 0 else {}


def refused(error: Exception) -> tuple[int, Mapping[str, Any]]:
    """Status and error JSON. A provider's words reach the caller only where the request is at
    fault: others name accounts, addresses and parts of keys."""
    status = getattr(error, "status_code", None)
    if status in CALLERS_FAULT:
        message = str(getattr(error, "message", "")).rpartition("Exception - ")[2]
        found = (400, "invalid_request_error", message[:500] or "The provider refused it.")
    else:
        failed = (502, "engine_error", "The provider failed to answer.")
        found = REPORTED.get(status, failed) if isinstance(status, int) else failed
    logging.getLogger(__name__).warning("%s (status %s)", type(error).__name__, status)
    return found[0], _error(*found[1:])


def _error(kind: str, message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def main(words: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--host", default=LOOPBACK)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", required=True, help="As LiteLLM names it: PROVIDER/MODEL.")
    parser.add_argument("--fallback", action="append", default=[], help="Asked next, in order.")
    parser.add_argument("--retries", type=int, default=1, help="Of each model.")
    parser.add_argument("--timeout", type=float, default=60.0, help="Seconds for one answer.")
    parser.add_argument("--api-base", default="", help="Address of the first model's provider.")
    given = parser.parse_args(words)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    models = [given.model, *given.fallback]
    router = routed(models, given.retries, given.timeout, given.api_base)
    app = hosted_app(router, given.model, os.environ[KEY_VARIABLE])
    # Its own logging configuration would bring LiteLLM's lines back.
    uvicorn.run(app, host=given.host, port=given.port, log_config=None, access_log=False)


if __name__ == "__main__":
    main()
