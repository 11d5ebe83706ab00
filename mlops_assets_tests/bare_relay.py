"""The least that a relay can do: aiohttp takes a request, aiohttp asks the engine, bytes pass.

It knows no keys, writes no log and reads no body: the floor that the gateway is measured against.

python -m mlops_assets_tests.bare_relay ENGINE_URL    prints its URL, serves until SIGTERM
"""

import asyncio
import signal
import sys

import aiohttp
import uvloop
from aiohttp import web


async def serve(engine: str) -> None:
    """Serve until SIGTERM; the first line of the output is the URL."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def relay(request: web.BaseRequest) -> web.StreamResponse:
            body = await request.read()
            headers = {"Content-Type": "application/json"}
            url = f"{engine}/chat/completions"
            async with session.post(url, data=body, headers=headers) as answer:
                if "Content-Length" in answer.headers:
                    whole = await answer.read()
                    return web.Response(body=whole, content_type=answer.content_type)
                response = web.StreamResponse(headers={"Content-Type": answer.content_type})
                await response.prepare(request)
                async for block in answer.content.iter_any():
                    await response.write(block)
                await response.write_eof()
                return response

        loop = asyncio.get_running_loop()
        server = await loop.create_server(web.Server(relay), "127.0.0.1", 0)
        print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
        end = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, end.set)
        await end.wait()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
