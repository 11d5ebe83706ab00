"""How an engine answers a chat completion: rightly, or in one of the ways in which engines fail.

The right answer is the model's name and the caller's last message, so that a test can tell who
answered which question. A reply is named ``name`` or ``name:argument``, such as ``slow:0.5``.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

DONE = b"data: [DONE]\n\n"
REFUSAL = "I'm sorry, but I can't help with that."
TRACEBACK = 'Traceback (most recent call last):\n  File "engine.py", line 1, in <module>\n'


@dataclass(frozen=True)
class Asked:
    """A request that the engine got."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]

    @property
    def model(self) -> str:
        return str(self.body.get("model", ""))

    @property
    def streams(self) -> bool:
        return bool(self.body.get("stream"))

    @property
    def question(self) -> str:
        """The last message of a user."""
        texts = [one["content"] for one in self.body["messages"] if one["role"] == "user"]
        return str(texts[-1]) if texts else ""


Reply = Callable[[web.BaseRequest, Asked, str], Awaitable[web.StreamResponse]]
"""Answers a request; the text is the argument, empty without one."""


def right_answer(model: str, question: str) -> str:
    """What an engine that works says."""
    return f"{model}: {question}"


def usage(asked: Asked, text: str) -> dict[str, int]:
    """Words for tokens."""
    given = sum(len(str(one.get("content")).split()) for one in asked.body["messages"])
    made = len(text.split())
    return {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}


def completion(asked: Asked, text: str, finish: str = "stop", **message: Any) -> dict[str, Any]:
    """A chat completion."""
    said = {"role": "assistant", "content": text, **message}
    return {
        "id": "chatcmpl-engine",
        "object": "chat.completion",
        "created": 0,
        "model": asked.model,
        "choices": [{"index": 0, "message": said, "finish_reason": finish, "logprobs": None}],
        "usage": usage(asked, text),
    }


def events(asked: Asked, text: str, finish: str = "stop") -> Iterator[bytes]:
    """A chat completion as server-sent events, a word each."""
    words = text.split(" ")
    deltas = [{"content": word if i == 0 else f" {word}"} for i, word in enumerate(words)]
    choices: list[dict[str, Any]] = [
        {"index": 0, "delta": delta, "finish_reason": None}
        for delta in ({"role": "assistant", "content": ""}, *deltas)
    ]
    choices.append({"index": 0, "delta": {}, "finish_reason": finish})
    for choice in choices:
        yield event({**chunk(asked), "choices": [choice]})
    if (asked.body.get("stream_options") or {}).get("include_usage"):
        yield event({**chunk(asked), "choices": [], "usage": usage(asked, text)})
    yield DONE


def chunk(asked: Asked) -> dict[str, Any]:
    """What every event of a stream begins with."""
    kind = {"object": "chat.completion.chunk", "created": 0, "model": asked.model}
    return {"id": "chatcmpl-engine", **kind}


def event(content: object) -> bytes:
    return b"data: " + orjson.dumps(content) + b"\n\n"


def document(content: object, status: int = 200, **headers: str) -> web.Response:
    """A JSON answer."""
    return web.Response(
        body=orjson.dumps(content), status=status, content_type="application/json", headers=headers
    )


async def begin(request: web.BaseRequest, length: int | None = None) -> web.StreamResponse:
    """The head of a stream, or of a JSON body of so many bytes that is sent in parts."""
    kind = "text/event-stream" if length is None else "application/json"
    response = web.StreamResponse(headers={"Content-Type": kind})
    response.content_length = length
    await response.prepare(request)
    return response


async def say(
    request: web.BaseRequest, asked: Asked, text: str, pause: float = 0.0
) -> web.StreamResponse:
    """The text as a completion, plain or streamed with a pause after each event."""
    if not asked.streams:
        return document(completion(asked, text))
    response = await begin(request)
    for part in events(asked, text):
        await response.write(part)
        if pause:
            await asyncio.sleep(pause)
    return response


async def first_half(request: web.BaseRequest, asked: Asked) -> web.StreamResponse:
    """Half of the right answer, with a head that promises the whole."""
    text = right_answer(asked.model, asked.question)
    if asked.streams:
        parts = list(events(asked, text))
        response = await begin(request)
        for part in parts[: len(parts) // 2]:
            await response.write(part)
        return response
    whole = orjson.dumps(completion(asked, text))
    response = await begin(request, len(whole))
    await response.write(whole[: len(whole) // 2])
    return response


async def answer(request: web.BaseRequest, asked: Asked, _: str) -> web.StreamResponse:
    """The right answer at once."""
    return await say(request, asked, right_answer(asked.model, asked.question))


async def slow(request: web.BaseRequest, asked: Asked, seconds: str) -> web.StreamResponse:
    """The right answer after so many seconds."""
    await asyncio.sleep(float(seconds))
    return await answer(request, asked, "")


async def trickle(request: web.BaseRequest, asked: Asked, seconds: str) -> web.StreamResponse:
    """The right answer with so many seconds after each word of a stream."""
    return await say(request, asked, right_answer(asked.model, asked.question), float(seconds))


async def hang(request: web.BaseRequest, asked: Asked, _: str) -> web.StreamResponse:
    """Nothing, until the caller leaves."""
    await asyncio.Event().wait()
    raise AssertionError


async def stall(request: web.BaseRequest, asked: Asked, _: str) -> web.StreamResponse:
    """Half of the answer, then nothing until the caller leaves."""
    await first_half(request, asked)
    return await hang(request, asked, "")


async def cut(request: web.BaseRequest, asked: Asked, _: str) -> web.StreamResponse:
    """Half of the answer, then the connection breaks."""
    response = await first_half(request, asked)
    await asyncio.sleep(0.01)  # what was written is on its way before the reset
    assert request.transport is not None
    request.transport.abort()
    return response


async def unfinished(request: web.BaseRequest, asked: Asked, _: str) -> web.StreamResponse:
    """A stream that ends in good order without having said that it does; plain: half JSON."""
    if asked.streams:
        return await first_half(request, asked)
    return await half_json(request, asked, "")


async def half_json(request: web.BaseRequest, asked: Asked, _: str) -> web.StreamResponse:
    """A complete HTTP answer that holds half a JSON document."""
    whole = event(completion(asked, "half")) if asked.streams else b'{"choices": [{"mess'
    kind = "text/event-stream" if asked.streams else "application/json"
    return web.Response(body=whole[: len(whole) // 2], content_type=kind)


async def garbage(request: web.BaseRequest, asked: Asked, _: str) -> web.StreamResponse:
    """Bytes that are not HTTP."""
    assert request.transport is not None
    request.transport.write(bytes(range(256)) * 4)
    request.transport.close()
    return web.Response()


async def page(request: web.BaseRequest, asked: Asked, _: str) -> web.StreamResponse:
    """A web page, as a proxy in between answers."""
    return web.Response(text="<html><h1>Bad gateway</h1></html>", content_type="text/html")


async def error(request: web.BaseRequest, asked: Asked, status: str) -> web.StreamResponse:
    """An error in the protocol's form, with this status."""
    headers = {"Retry-After": "7"} if status == "429" else {}
    said = {"message": "The engine declines.", "type": "engine_error", "param": None, "code": None}
    return document({"error": said}, int(status), **headers)


async def crash(request: web.BaseRequest, asked: Asked, _: str) -> web.StreamResponse:
    """500 and a stack trace."""
    return web.Response(text=TRACEBACK, status=500)


async def late_error(request: web.BaseRequest, asked: Asked, _: str) -> web.StreamResponse:
    """An error in the midst of a stream, as an event; plain: 500."""
    if not asked.streams:
        return await error(request, asked, "500")
    response = await first_half(request, asked)
    await response.write(event({"error": {"message": TRACEBACK, "type": "engine_error"}}))
    return response


async def empty(request: web.BaseRequest, asked: Asked, _: str) -> web.StreamResponse:
    """An answer without text."""
    return await say(request, asked, "")


async def refusal(request: web.BaseRequest, asked: Asked, _: str) -> web.StreamResponse:
    """The model declines."""
    return await say(request, asked, REFUSAL)


async def nan(request: web.BaseRequest, asked: Asked, _: str) -> web.StreamResponse:
    """Numbers that are none, as Python's own JSON writes them."""
    text = right_answer(asked.model, asked.question)
    if asked.streams:
        last = {**chunk(asked), "choices": [], "usage": {"prompt_tokens": float("nan")}}
        response = await begin(request)
        for part in events(asked, text):
            if part == DONE:
                await response.write(b"data: " + json.dumps(last).encode() + b"\n\n")
            await response.write(part)
        return response
    whole = completion(asked, text)
    whole["usage"] |= {"completion_tokens": float("nan"), "total_tokens": float("inf")}
    whole["choices"][0]["logprobs"] = {"content": [{"token": "a", "logprob": float("-inf")}]}
    return web.Response(text=json.dumps(whole), content_type="application/json")


async def no_usage(request: web.BaseRequest, asked: Asked, _: str) -> web.StreamResponse:
    """The right answer, and nothing about tokens."""
    text = right_answer(asked.model, asked.question)
    if asked.streams:
        asked.body.pop("stream_options", None)
        return await say(request, asked, text)
    return document({**completion(asked, text), "usage": None})


async def odd_fields(request: web.BaseRequest, asked: Asked, _: str) -> web.StreamResponse:
    """JSON of the wrong shape everywhere."""
    odd = {"choices": [{"message": "text", "delta": 3, "finish_reason": 4}], "usage": ["many"]}
    if asked.streams:
        return web.Response(body=event(odd) + DONE, content_type="text/event-stream")
    return document(odd)


async def tool_call(request: web.BaseRequest, asked: Asked, _: str) -> web.StreamResponse:
    """A call of a function and no text; a stream says it in one event."""
    function = {"name": "find", "arguments": '{"order": 7}'}
    call = {"index": 0, "id": "call-1", "type": "function", "function": function}
    if not asked.streams:
        return document(completion(asked, "", "tool_calls", tool_calls=[call]))
    delta = {"role": "assistant", "tool_calls": [call]}
    response = await begin(request)
    for said, finish in ((delta, None), ({}, "tool_calls")):
        choice = {"index": 0, "delta": said, "finish_reason": finish}
        await response.write(event({**chunk(asked), "choices": [choice]}))
    await response.write(DONE)
    return response


REPLIES: dict[str, Reply] = {
    reply.__name__: reply
    for reply in (
        *(answer, slow, trickle, hang, stall, cut, unfinished, half_json, garbage, page),
        *(error, crash, late_error, empty, refusal, nan, no_usage, odd_fields, tool_call),
    )
}
"""Every way to answer, by its name."""
