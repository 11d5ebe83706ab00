"""A manager with a program of ours as its engine, for the tests of engines."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from mlops_assets.home import Home
from mlops_assets.serving.engines.engine_manager import EngineManager, EngineState
from mlops_assets.serving.engines.engine_spec import EngineSpec
from mlops_assets.serving.gateway.upstream import Upstream
from mlops_assets_tests.waiting import wait_beside

QUICK = {
    "engine": "vllm",
    "engine_start_s": 30.0,
    "engine_probe_s": 0.2,
    "engine_probe_timeout_s": 1.0,
    "engine_watch_s": 0.05,
    "engine_backoff_s": 0.0,
}


@asynccontextmanager
async def managing(home: Home, program: Path, **settings: Any) -> AsyncIterator[EngineManager]:
    """A manager of engines that are ``program``, closed at the end."""
    spec = EngineSpec(**QUICK | {"engine_program": str(program)} | settings)
    manager = EngineManager(home, spec)
    try:
        yield manager
    finally:
        await manager.close()


async def ask(upstream: Upstream, question: str, **fields: Any) -> tuple[int, Any]:
    """Status and JSON of an answer."""
    messages = [{"role": "user", "content": question}]
    body = {**upstream.generation, "model": upstream.model, "messages": messages, **fields}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{upstream.url}/chat/completions", json=body) as response,
    ):
        return response.status, await response.json()


async def answer(upstream: Upstream, question: str) -> str:
    """The text of an answer."""
    status, found = await ask(upstream, question)
    assert status == 200, found
    return str(found["choices"][0]["message"]["content"])


async def streamed(upstream: Upstream, messages: list[Any]) -> str:
    """The text of a streamed answer, put together."""
    body = {**upstream.generation, "model": upstream.model, "messages": messages, "stream": True}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{upstream.url}/chat/completions", json=body) as response,
    ):
        events = [json.loads(line[5:]) async for line in response.content if line[:5] == b"data:"]
    return "".join(each["choices"][0]["delta"].get("content", "") for each in events)


async def asked_of(upstream: Upstream) -> list[dict[str, Any]]:
    """The bodies of the chat requests that the program got, oldest first."""
    address = upstream.url.removesuffix("/v1")
    async with aiohttp.ClientSession() as session, session.get(f"{address}/control") as response:
        return [one["body"] for one in (await response.json())["asked"]]


async def switch(upstream: Upstream, always: str) -> None:
    """Have the program answer like this from now on."""
    address = upstream.url.removesuffix("/v1")
    async with aiohttp.ClientSession() as session:
        await session.put(f"{address}/control", json={"always": always})


async def until(manager: EngineManager, done: Callable[[EngineState], bool]) -> EngineState:
    """The first engine's state as soon as ``done`` says so of it."""
    await wait_beside(lambda: (states := manager.state()) and done(states[0]), "that state")
    return manager.state()[0]


def is_running(pid: int) -> bool:
    """Whether there is such a process that has not ended."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"
