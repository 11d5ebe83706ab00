"""The gateway's side of the semantic cache: it asks the process beside it, and never waits long.

One thread writes to and reads from that process; the event loop waits for the thread, at most
``cache_semantic_timeout``. A question that finds too many waiting is not looked up: the engine
answers it, as it does while the process starts or after it has died.
"""

import asyncio
import logging
import math
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from mlops_assets.artifacts import LineageError
from mlops_assets.sentence_encoder import packaged_encoder
from mlops_assets.serving.caching.cache_spec import CacheSpec
from mlops_assets.serving.caching.cached_answer import CachedAnswer
from mlops_assets.serving.engines.engine_process import child_environment, launched

logger = logging.getLogger(__name__)

MOST_WAITING = 16  # lookups; each takes some milliseconds
LONGEST_START = 120.0  # seconds, for the encoder's library
LONGEST_REPLY = 10.0  # seconds, then the process hangs
PAUSE = 30.0  # seconds until a process that died is started again


class SemanticCache:
    """Questions that mean the same as one that was answered before."""

    def __init__(self, spec: CacheSpec) -> None:
        """Raises LineageError where there is no encoder."""
        settings = {
            "encoder": str(_encoder(spec)),
            "threshold": spec.cache_semantic_threshold,
            "entries": spec.cache_semantic_entries,
            "scopes": spec.cache_semantic_scopes,
            "ttl": spec.cache_ttl,
        }
        self._timeout = spec.cache_semantic_timeout
        self._worker = Worker(settings)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="semantic-cache")
        self._room = threading.Semaphore(MOST_WAITING)

    def start(self) -> None:
        """Begin to load the encoder; until it is there, nothing is found."""
        self._thread.submit(self._worker.start)

    @property
    def ready(self) -> bool:
        """Whether the encoder is loaded."""
        return self._worker.ready

    async def find(self, scope: str, text: str) -> CachedAnswer | None:
        """The answer to a question that means the same, if there is one and it is found in time."""
        job = self._ask({"do": "find", "scope": scope, "text": text})
        if job is None:
            return None
        try:
            async with asyncio.timeout(self._timeout):
                reply = await asyncio.wrap_future(job)
        except TimeoutError:
            return None
        return CachedAnswer(**reply["answer"]) if "answer" in reply else None

    def put(self, scope: str, text: str, answer: CachedAnswer) -> None:
        """Keep an answer, unless there is too much to do."""
        self._ask({"do": "put", "scope": scope, "text": text, "answer": asdict(answer)})

    def flush(self) -> None:
        """Forget everything, before anything that is asked later."""
        if self._worker.ready:
            self._thread.submit(self._worker.ask, {"do": "flush"})

    def close(self) -> None:
        """End the process."""
        self._worker.stop()
        self._thread.shutdown(cancel_futures=True)
        self._worker.forget()

    def _ask(self, asked: Mapping[str, Any]) -> "Future[dict[str, Any]] | None":
        if not self._worker.wanted or not self._room.acquire(blocking=False):
            return None
        job = self._thread.submit(self._worker.ask, asked)
        job.add_done_callback(lambda _: self._room.release())
        return job


def _encoder(spec: CacheSpec) -> Path:
    """The encoder's directory. Raises LineageError where there is none."""
    if not spec.cache_encoder:
        return packaged_encoder()
    directory = Path(spec.cache_encoder).expanduser()
    if not directory.is_dir():
        raise LineageError(
            f"cache_encoder {directory} is no directory.",
            "Name that of a sentence encoder in safetensors, or leave cache_encoder empty.",
        )
    return directory


class Worker:
    """The process; all but ``stop`` belongs to one thread at a time."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._command = [
            sys.executable,
            *("-m", "mlops_assets.serving.caching.semantic_worker"),
            orjson.dumps(settings).decode(),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self._not_before = 0.0
        self._rest = b""
        self._stopped = False
        self._lock = threading.Lock()
        self.ready = False

    @property
    def wanted(self) -> bool:
        """Whether asking now can be worth it."""
        return self.ready or time.monotonic() >= self._not_before

    def start(self) -> None:
        """Start the process and wait until it is ready; what fails is logged."""
        self._not_before = math.inf  # nobody waits for it meanwhile
        self._rest = b""
        with self._lock:
            if self._stopped:
                return
            self._process = subprocess.Popen(
                launched(self._command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=child_environment(1),
                bufsize=0,
                start_new_session=True,  # Ctrl-C is for the gateway, which ends it
            )
        try:
            said = self._reply(LONGEST_START)
        except (OSError, ValueError) as error:
            said = {"error": str(error)}
        self.ready = "ready" in said
        if not self.ready:
            self._lost(said.get("error"))

    def ask(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The reply; empty when there is none."""
        if not self.ready:
            if not self.wanted:
                return {}
            self.start()
        if self._process is None or self._process.stdin is None or not self.ready:
            return {}
        try:
            self._process.stdin.write(orjson.dumps(asked, option=orjson.OPT_APPEND_NEWLINE))
            return self._reply(LONGEST_REPLY)
        except (OSError, ValueError) as error:
            self._lost(error)
            return {}

    def stop(self) -> None:
        """End the process, from any thread; whoever waits for it is told."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()

    def forget(self) -> None:
        """Let go of a process that has ended or is of no use."""
        self.ready = False
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        process.wait()

    def _lost(self, why: object) -> None:
        if not self._stopped:
            logger.error("the semantic cache has no process for %g s: %s", PAUSE, why)
        self.forget()
        self._not_before = time.monotonic() + PAUSE

    def _reply(self, seconds: float) -> dict[str, Any]:
        """The next line. Raises OSError when the process has ended or says nothing in time."""
        assert self._process is not None  # noqa: S101
        assert self._process.stdout is not None  # noqa: S101
        stream, until = self._process.stdout.fileno(), time.monotonic() + seconds
        while b"\n" not in self._rest:
            left = max(0.0, until - time.monotonic())
            if not select.select([stream], [], [], left)[0]:
                raise OSError(f"no reply within {seconds:g} s")
            if not (block := os.read(stream, 1 << 16)):
                raise OSError("it closed its output")
            self._rest += block
        line, _, self._rest = self._rest.partition(b"\n")
        reply: dict[str, Any] = orjson.loads(line)
        return reply
