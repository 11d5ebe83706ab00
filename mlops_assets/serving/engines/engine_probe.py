"""Whether an engine answers: a chat completion of one real token, plain or streamed."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mlops_assets.serving.gateway.upstream import Upstream

if TYPE_CHECKING:
    import aiohttp

ASKED = "Hello"


class EngineFault(Exception):
    """An engine does not do what one that works does; the text says what."""


async def probe(
    session: "aiohttp.ClientSession", upstream: Upstream, timeout_s: float, *, stream: bool = False
) -> None:
    """Have one token generated. Raises EngineFault."""
    import aiohttp

    try:
        async with session.post(
            f"{upstream.url}/chat/completions",
            json=_body(upstream, stream=stream),
            headers={"Authorization": f"Bearer {upstream.api_key}"} if upstream.api_key else {},
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            allow_redirects=False,
        ) as response:
            content = await response.read()
            if response.status != 200:
                raise EngineFault(f"it answers with status {response.status}")
    except TimeoutError as error:
        raise EngineFault(f"it gave no answer in {timeout_s:g} s") from error
    except aiohttp.ClientError as error:
        raise EngineFault(f"it cannot be reached ({type(error).__name__})") from error
    if not has_token(content, stream=stream):
        raise EngineFault("what it answers is no chat completion with a token in it")


def _body(upstream: Upstream, *, stream: bool) -> dict[str, Any]:
    system = [{"role": "system", "content": upstream.system}] if upstream.system else []
    return {
        **upstream.generation,
        "model": upstream.model,
        "messages": [*system, {"role": "user", "content": ASKED}],
        "max_tokens": 1,
        "stream": stream,
    }


def has_token(content: bytes, *, stream: bool) -> bool:
    """Whether this answer, plain or streamed, is a chat completion of at least one token."""
    try:
        parts = list(_events(content)) if stream else [json.loads(content)]
        return any(map(_generated, parts)) and not any("error" in part for part in parts)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return False


def _events(content: bytes) -> Iterator[dict[str, Any]]:
    for line in content.splitlines():
        if line.startswith(b"data:") and (data := line[5:].strip()) != b"[DONE]":
            yield json.loads(data)


def _generated(part: dict[str, Any]) -> bool:
    """Whether a token was generated: one that ends the answer has no text."""
    usage = part.get("usage") or {}
    if "completion_tokens" in usage:
        return int(usage["completion_tokens"]) > 0
    choices = part.get("choices") or [{}]
    said = choices[0].get("message") or choices[0].get("delta") or {}
    return bool(said.get("content") or choices[0].get("finish_reason"))
