"""One request to an OpenAI-compatible server, and what may be wrong with its response.

Every fault has a class and a short reason. A response body is never quoted: a server may echo
what it was sent, the key included.
"""

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

LARGEST_RESPONSE = 8 * 1024**2  # bytes
BUSY = {408, 409, 425, 429, 500, 502, 503, 504}


class NoVerdictError(Exception):
    """A question has no answer; the text is the reason, the same for all of one kind."""


class BudgetSpentError(NoVerdictError):
    """Nothing was asked: the run may spend no more. The server has not failed."""


class RefusedError(NoVerdictError):
    """The server does not take such a request; asking again changes nothing."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the server refuses the request (HTTP {status})")
        self.status = status


class TryAgainError(Exception):
    """The request failed in a way that may pass."""

    def __init__(self, reason: str, wait: float | None = None, *, served: bool = True) -> None:
        super().__init__(reason)
        self.wait = wait
        """Seconds that the server asks us to wait, if it does."""
        self.served = served
        """Whether the model may have worked on it, so that it may have cost tokens."""


class Usage(NamedTuple):
    """Tokens that a response says were read and written."""

    prompt: int
    answer: int


async def post(session: "ClientSession", url: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object that the server answers; no redirect is followed.

    Raises RefusedError, or TryAgainError where the same request may succeed later.
    """
    import aiohttp

    try:
        async with session.post(url, json=body, allow_redirects=False) as response:
            _check_status(response)
            text = await _read(response)
    except TimeoutError as error:
        raise TryAgainError("the server timed out") from error
    except (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError) as error:
        raise TryAgainError("the response broke off") from error
    except (aiohttp.ClientConnectionError, ConnectionError) as error:
        raise TryAgainError("the server cannot be reached", served=False) from error
    except aiohttp.ClientError as error:
        raise TryAgainError("the response is not HTTP") from error
    try:
        reply = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TryAgainError("the response is not JSON") from error
    if not isinstance(reply, dict):
        raise TryAgainError("the response is not JSON")
    return reply


def content(reply: Mapping[str, Any]) -> str:
    """The text that the model wrote, if it ended by itself. Raises NoVerdictError."""
    try:
        choice = reply["choices"][0]
        reason, message = choice["finish_reason"], choice["message"]
        text, refusal = message["content"], message.get("refusal")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise NoVerdictError("the response is no chat completion") from error
    if reason == "length":
        raise NoVerdictError("the answer was cut off at its token limit")
    if reason != "stop" or refusal or not isinstance(text, str):
        raise NoVerdictError("the server withheld the answer")
    return text


def vector(reply: Mapping[str, Any]) -> list[float]:
    """The one embedding of a response. Raises NoVerdictError."""
    try:
        numbers = reply["data"][0]["embedding"]
        found = [float(number) for number in numbers]
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise NoVerdictError("the response is no embedding") from error
    if not any(found) or not all(math.isfinite(number) for number in found):
        raise NoVerdictError("the embedding is zero or not finite")
    return found


def usage(reply: Mapping[str, Any]) -> Usage | None:
    """What the response says it cost; None where it does not say so in whole numbers."""
    said = reply.get("usage")
    if not isinstance(said, Mapping):
        return None
    counts = [said.get("prompt_tokens"), said.get("completion_tokens", 0)]
    if not all(type(count) is int and count >= 0 for count in counts):
        return None
    return Usage(*counts)


def _check_status(response: "ClientResponse") -> None:
    if response.status in BUSY:
        named = "is busy (HTTP 429)" if response.status == 429 else "fails"
        detail = "" if response.status == 429 else f" (HTTP {response.status})"
        wait = retry_after(response.headers.get("Retry-After"))
        raise TryAgainError(f"the server {named}{detail}", wait, served=False)
    if response.status != 200:
        raise RefusedError(response.status)


def retry_after(value: str | None) -> float | None:
    """The seconds that a ``Retry-After`` header asks for: a number or a date (RFC 9110)."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


async def _read(response: "ClientResponse") -> bytes:
    """The body, which may not be larger than any answer can be."""
    parts = bytearray()
    async for chunk in response.content.iter_any():
        parts += chunk
        if len(parts) > LARGEST_RESPONSE:
            raise NoVerdictError("the response is too large")
    return bytes(parts)
