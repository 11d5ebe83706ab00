"""A program that is called as ``vllm serve`` and answers as it does, on loopback, without a model.

It takes the command's words, has vLLM's endpoints for adapters beside those of
``engine_server``, and knows only the models that it serves. ``install`` writes it as a program.
"""

import argparse
import asyncio
import re
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from aiohttp import web

from mlops_assets_tests.engine_replies import document
from mlops_assets_tests.engine_server import EngineServer, run_engine

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"

COMPUTES = re.compile(r"\[compute: ([\d.]+)\]")
"""In a message: seconds in which nothing else is answered, as by an engine without batches."""


@dataclass
class VllmServer(EngineServer):
    """A base model and the adapters that it was given."""

    adapters: dict[str, str] = field(default_factory=dict)
    """Directory by name."""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method != "POST" or request.path == "/control":
            return await super().handle(request)
        body = orjson.loads(await request.read())
        if request.path == LOAD:
            return self._load(body["lora_name"], Path(body["lora_path"]))
        if request.path == UNLOAD:
            return self._unload(body["lora_name"])
        if body["model"] not in (*self.models, *self.adapters):
            return document({"error": {"message": f"no model {body['model']}"}}, 404)
        if computes := COMPUTES.search(str(body["messages"])):
            end = time.monotonic() + float(computes.group(1))
            while time.monotonic() < end:
                pass
        return await super().handle(request)

    def _load(self, name: str, path: Path) -> web.Response:
        if name in self.adapters:
            return document({"error": {"message": f"{name} has already been loaded"}}, 400)
        if not (path / "adapter_config.json").is_file():
            return document({"error": {"message": f"no adapter in {path}"}}, 404)
        self.adapters[name] = str(path)
        return web.Response(text=f"Success: LoRA adapter '{name}' added successfully.")

    def _unload(self, name: str) -> web.Response:
        if self.adapters.pop(name, None) is None:
            return document({"error": {"message": f"no adapter {name}"}}, 404)
        return web.Response(text=f"Success: LoRA adapter '{name}' removed successfully.")


def install(folder: Path, *, start_s: float = 0.0, ends: str = "", always: str = "answer") -> Path:
    """A program that listens after ``start_s`` seconds, or ends with these words instead."""
    path = folder / "vllm"
    call = f"main({start_s!r}, {ends!r}, {always!r})"
    text = f"#!{sys.executable}\nfrom mlops_assets_tests.engine_program import main\n{call}\n"
    path.write_text(text)
    path.chmod(0o700)
    return path


def main(start_s: float, ends: str, always: str) -> None:
    """Serve as the command line says until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("model")
    parser.add_argument("--host", choices=["127.0.0.1"], required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--served-model-name", required=True)
    given, _ = parser.parse_known_args()
    if ends:
        sys.exit(ends)
    time.sleep(start_s)
    state = VllmServer(models=(given.served_model_name,), always=always)

    async def serve() -> None:
        end = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.set)
        await run_engine(state, given.port, end, lambda: print(state.url, flush=True))

    asyncio.run(serve())
