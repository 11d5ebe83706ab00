"""Requests to engines: one pool of kept-alive connections, and a limit on every wait.

aiohttp is the client because httpx was seen to collapse at 64 connections (153 requests a second
where aiohttp holds 6,400).
"""

import asyncio
from collections.abc import AsyncGenerator

import aiohttp

from mlops_assets.serving.gateway.answer import broken
from mlops_assets.serving.gateway.refusal import INVALID_REQUEST, RATE_LIMIT, TIMEOUT, Refusal
from mlops_assets.serving.gateway.upstream import Upstream
from mlops_assets.serving.gateway_spec import GatewaySpec
from mlops_assets.serving.records.observations import ENGINE_BUSY, ENGINE_REFUSED

PATH = "/chat/completions"
REFUSED_BY_ENGINE = (400, 413, 422)


class Relay:
    """Asks engines. What goes wrong there is a Refusal that says nothing of them."""

    def __init__(self, spec: GatewaySpec) -> None:
        """To be made inside the event loop."""
        self._spec = spec
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30.0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=spec.connect_timeout),
            auto_decompress=False,
            trust_env=False,  # an engine is reached as its address says, through no proxy
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def complete(self, upstream: Upstream, body: bytes, headers: dict[str, str]) -> bytes:
        """The whole answer. Raises Refusal."""
        try:
            async with asyncio.timeout(self._spec.total_timeout):
                response = await self._post(upstream, body, headers)
                try:
                    return await _read(response, self._spec.maximum_answer_kib * 1024)
                finally:
                    response.release()
        except TimeoutError:
            raise too_slow("The model took too long to answer.") from None
        except aiohttp.ClientError:
            raise broken() from None

    async def stream(
        self, upstream: Upstream, body: bytes, headers: dict[str, str]
    ) -> AsyncGenerator[bytes, None]:
        """The answer's bytes as they come. Raises Refusal, also after the first ones.

        The waits for the first byte and between bytes are limited here; how long the whole may
        take, who reads it limits.
        """
        response: aiohttp.ClientResponse | None = None
        left = self._spec.maximum_answer_kib * 1024
        try:
            async with asyncio.timeout(self._spec.first_byte_timeout):
                response = await self._post(upstream, body, headers)
                block = await response.content.readany()
            while block:
                left -= len(block)
                if left < 0:
                    raise broken("answer_too_long")
                yield block
                async with asyncio.timeout(self._spec.chunk_timeout):
                    block = await response.content.readany()
        except TimeoutError:
            raise too_slow("The model stopped answering.") from None
        except aiohttp.ClientError:
            raise broken() from None
        finally:
            if response is not None:
                response.close()  # an answer that is not read to its end stops being made

    async def _post(
        self, upstream: Upstream, body: bytes, headers: dict[str, str]
    ) -> aiohttp.ClientResponse:
        """The answer, its body unread, its status 200."""
        if upstream.api_key:
            headers = {**headers, "authorization": f"Bearer {upstream.api_key}"}
        try:
            response = await self._send(upstream, body, headers)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            # Most likely a kept connection that the engine had closed already. Where it died
            # instead, the second connection is refused at once.
            response = await self._send(upstream, body, headers)
        if response.status != 200:
            try:
                raise await _refusal(response)
            finally:
                response.release()
        return response

    async def _send(
        self, upstream: Upstream, body: bytes, headers: dict[str, str]
    ) -> aiohttp.ClientResponse:
        url = upstream.url + PATH
        return await self._session.post(url, data=body, headers=headers, allow_redirects=False)


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The body, refused as soon as it is too large."""
    blocks, size = [], 0
    while block := await response.content.readany():
        size += len(block)
        if size > most:
            response.close()
            raise broken("answer_too_long")
        blocks.append(block)
    return blocks[0] if len(blocks) == 1 else b"".join(blocks)


async def _refusal(response: aiohttp.ClientResponse) -> Refusal:
    """What an engine's refusal is to our caller. Its text stays here: it may name our paths."""
    if response.status in REFUSED_BY_ENGINE:
        return Refusal(
            400,
            INVALID_REQUEST,
            "The model's server refused the request: a field is not supported, or the"
            " conversation is too long.",
            code=ENGINE_REFUSED,
        )
    if response.status == 429:
        return Refusal(
            429,
            RATE_LIMIT,
            "The model is busy. Try again.",
            _retry_after(response),
            code=ENGINE_BUSY,
        )
    return broken()


def _retry_after(response: aiohttp.ClientResponse) -> float:
    given = response.headers.get("retry-after", "")
    return min(float(given), 60.0) if given.isdecimal() else 1.0


def too_slow(message: str) -> Refusal:
    """An engine did not answer in time."""
    return Refusal(503, TIMEOUT, f"{message} Try again.", 1.0, code="engine_timeout")
