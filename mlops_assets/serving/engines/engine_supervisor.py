"""Keeps one engine running: verified, started, proven, watched, restarted.

An engine comes up in one order: every byte is hashed; the process starts; it generates a real
token; every byte is hashed again, so that a change in between is found; it is warmed up; then it
is ready. While it is ready three things are watched: that it runs, that it answers, and that
nobody touches its files. What dies or hangs is restarted, ever later and only so often; what
was tampered with is killed and stays down.
"""

import asyncio
import logging
import shutil
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home
from mlops_assets.serving.engines.engine_plans import EnginePlan
from mlops_assets.serving.engines.engine_probe import EngineFault, probe
from mlops_assets.serving.engines.engine_process import EngineProcess, child_environment
from mlops_assets.serving.engines.engine_spec import EngineSpec
from mlops_assets.serving.engines.engine_startup import bring_up, copy_model, wait_until_listening
from mlops_assets.serving.engines.lora_adapters import unload_adapter
from mlops_assets.serving.engines.served_release import ServedRelease

if TYPE_CHECKING:
    import aiohttp

logger = logging.getLogger(__name__)

STARTING, READY, RESTARTING = "starting", "ready", "restarting"
FAILED, TAMPERED, STOPPED = "failed", "tampered", "stopped"
HOUR_S, LONGEST_BACKOFF_S = 3600.0, 60.0
BUSY_SHARE = 0.1
"""Of one CPU; an engine that waits uses a hundredth, one that computes all that it gets."""


@dataclass
class EngineSupervisor:
    """One server, ours or somebody else's, and the releases on it."""

    home: Home
    spec: EngineSpec
    name: str
    session: "aiohttp.ClientSession"
    process: EngineProcess | None = None
    """None for somebody else's server."""
    releases: list[ServedRelease] = field(default_factory=list)
    state: str = STARTING
    detail: str = ""
    """Why it is in this state, for people."""
    since: str = ""
    """ISO 8601 in UTC."""
    restarts: int = 0
    """Times that the server was taken down for a reason other than ours, in all."""

    crashed: Callable[[str], object] = lambda _: None
    """Told the release whose engine, once ready, has died or hangs."""

    def __post_init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()  # of the list of releases while one comes or goes
        self._change = asyncio.Condition()
        self._deaths: deque[float] = deque()

    @classmethod
    def of(
        cls, home: Home, spec: EngineSpec, plan: EnginePlan, session: "aiohttp.ClientSession"
    ) -> "EngineSupervisor":
        """The supervisor of a plan's server, not yet started."""
        process = None
        if plan.command:
            environment = child_environment(spec.engine_threads) | dict(plan.environment)
            log = home.root / "serving" / "engines" / f"{plan.server}.log"
            process = EngineProcess(plan.command, log, environment)
        return cls(home, spec, plan.server, session, process)

    @property
    def folder(self) -> Path:
        """Where the process runs, and where its copy of the model lies while it loads."""
        return self.home.root / "serving" / "engines" / self.name

    @property
    def deaths(self) -> int:
        """In the last hour."""
        while self._deaths and self._deaths[0] < time.monotonic() - HOUR_S:
            self._deaths.popleft()
        return len(self._deaths)

    async def add(self, served: ServedRelease) -> None:
        """Take a release; a server that runs already loads it now. Raises EngineFault."""
        async with self._lock:
            if self.state == READY:
                await served.verify()
                await bring_up(served, self.spec, self.session, self.folder)
            self.releases.append(served)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=self.name)

    async def remove(self, served: ServedRelease) -> None:
        """Let a release go; a server without any is stopped."""
        if self.releases == [served]:
            await self.stop()
            return
        async with self._lock:
            self.releases.remove(served)
            if self.state == READY:
                with suppress(EngineFault):  # a server that does not hear is restarted without it
                    await self._unload(served)

    async def stop(self) -> None:
        """Stop watching, then the process."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.releases.clear()
        if self.process is not None:
            await self.process.stop(self.spec.engine_stop_s if self.state == READY else 0)
            self.process.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        await self._set(STOPPED, "")

    async def ready(self, served: ServedRelease) -> None:
        """Return when the release is answered. Raises LineageError when it will not be."""
        async with self._change:
            await self._change.wait_for(
                lambda: served.fault or self.state in (READY, FAILED, TAMPERED, STOPPED)
            )
        if served.fault is not None:
            raise served.fault
        if self.state != READY:
            raise LineageError(
                f"The engine {self.name} is {self.state}: {self.detail or 'it was taken down'}.",
                f"Look into {self.process.log}." if self.process else "Look at its own log.",
            )

    async def _run(self) -> None:
        """Up, watched, down, and again."""
        while True:
            reason = await self._live()
            died, was_ready = bool(self._healthy()), self.state == READY
            if self.process is not None:
                await self.process.stop(0)
            self._deaths.append(time.monotonic())
            self.restarts += 1
            if not died:
                await self._set(TAMPERED, reason)
                await self._restored()
                continue
            if was_ready:
                for served in self._healthy():
                    self.crashed(served.upstream.release)
            if self.process is not None and self.deaths > self.spec.engine_restarts_per_hour:
                await self._set(FAILED, reason)
                await self._rested()
                continue
            await self._set(RESTARTING, reason)
            logger.warning("engine %s: %s; it is restarted", self.name, reason)
            pause = self.spec.engine_backoff_s * 2 ** min(self.deaths - 1, 10)
            await asyncio.sleep(min(pause, LONGEST_BACKOFF_S))

    async def _live(self) -> str:
        """One life of the server; returns why it ended."""
        try:
            async with self._lock, asyncio.timeout(self.spec.engine_start_s):
                await self._start()
                await self._set(READY, "")
            return await self._watch()
        except TimeoutError:
            return f"it was not ready after {self.spec.engine_start_s:g} s"
        except EngineFault as fault:
            return str(fault)
        except LineageError as error:
            return error.problem
        except Exception as error:  # whatever it is, nobody is served by what nobody watches
            logger.exception("engine %s", self.name)
            return f"it cannot be watched ({type(error).__name__}: {error})"

    async def _restored(self) -> None:
        """Return when the files of a release are again what was approved."""
        while not self._healthy():
            await asyncio.sleep(self.spec.engine_watch_s)
            for served in self.releases:
                try:
                    if await served.is_touched():
                        await served.verify()
                except OSError as error:  # the disk's fault, and perhaps gone at the next look
                    logger.warning("engine %s: its files cannot be read: %s", self.name, error)

    async def _rested(self) -> None:
        """Return when it may be tried again."""
        while self.deaths > self.spec.engine_restarts_per_hour:
            await asyncio.sleep(self.spec.engine_watch_s)

    async def _start(self) -> None:
        for served in self._healthy():
            await served.verify()
        if not self._healthy():
            raise EngineFault(self._changes())
        if self.process is not None:
            self.folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.folder.mkdir(exist_ok=True, mode=0o700)  # of parents it would not be the mode
            for served in self._healthy():
                await copy_model(self.home, self.folder, served)
            await self.process.start(self.folder)
            await wait_until_listening(self.process, self.session)
        for served in self._healthy():
            await bring_up(served, self.spec, self.session, self.folder)

    async def _watch(self) -> str:
        """Return the first reason to take the server down."""
        looks = [self._hangs(), self._touched()]
        if self.process is not None:
            looks.append(self._exits(self.process))
        watchers = [asyncio.create_task(look) for look in looks]
        try:
            await asyncio.wait(watchers, return_when=asyncio.FIRST_COMPLETED)
            done = next(watcher for watcher in watchers if watcher.done())
            return str(done.result())
        finally:
            for watcher in watchers:
                watcher.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)

    async def _exits(self, process: EngineProcess) -> str:
        code = await process.wait()
        return f"it ended by signal {-code}" if code < 0 else f"it ended with code {code}"

    async def _hangs(self) -> str:
        failures = 0
        while True:
            await asyncio.sleep(self.spec.engine_probe_s)
            for served in self._healthy():
                began, used = time.monotonic(), self._cpu_s()
                if began - served.answered < self.spec.engine_probe_s:
                    failures = 0  # a user's answer is as good, and a probe may cost money
                    continue
                try:
                    await probe(self.session, served.upstream, self.spec.engine_probe_timeout_s)
                    failures = 0
                except EngineFault as fault:
                    failures = 0 if self._is_busy(served, began, used) else failures + 1
                    if failures >= self.spec.engine_probe_failures:
                        return f"it does not answer a probe: {fault}"

    def _is_busy(self, served: ServedRelease, began: float, used: float) -> bool:
        """Whether users are why a probe that began then was late: an engine that takes one request
        after the other lets it wait while it computes. One that hangs computes nothing."""
        now = time.monotonic()
        if served.answered > began:
            return True
        computes = self._cpu_s() - used > BUSY_SHARE * (now - began)
        in_time = now - served.waiting < self.spec.engine_busy_s
        return served.in_flight > 0 and computes and in_time

    def _cpu_s(self) -> float:
        return self.process.cpu_s if self.process else 0.0

    async def _touched(self) -> str:
        """Look at every file; hash what was touched, and everything from time to time."""
        while True:
            await asyncio.sleep(self.spec.engine_watch_s)
            if self.process is not None:
                self.process.trim_log(self.spec.engine_log_mb * 1024**2)
            for served in self._healthy():
                await self._look(served)
            if not self._healthy():
                return self._changes()

    async def _look(self, served: ServedRelease) -> None:
        due = time.monotonic() - served.verified >= self.spec.engine_verify_s
        if not due and not await served.is_touched():
            return
        await served.verify()
        if served.fault is not None and self._healthy():  # others stay on this server
            await self._unload(served)

    async def _unload(self, served: ServedRelease) -> None:
        if served.plan.adapter is not None:
            await unload_adapter(self.session, served.upstream.url, served.plan.model)

    def _healthy(self) -> list[ServedRelease]:
        return [served for served in self.releases if served.fault is None]

    def _changes(self) -> str:
        return " ".join(served.fault.problem for served in self.releases if served.fault)

    async def _set(self, state: str, detail: str) -> None:
        async with self._change:
            self.state, self.detail = state, detail
            self.since = datetime.now(UTC).isoformat(timespec="milliseconds")
            self._change.notify_all()
