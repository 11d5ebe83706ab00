"""The engines of a release: those that are to be ready are started, one after the other, and those
that no longer are get the time to finish.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from mlops_assets.artifacts import SHORT, LineageError
from mlops_assets.ledger import LedgerEntry
from mlops_assets.serving.gateway.upstream import Upstream

logger = logging.getLogger(__name__)

RETRY_S = 10.0
"""Before an engine that could not be started is tried again."""


class Engines(Protocol):
    """What starts and stops the engines of releases: ``EngineManager``."""

    crashed: Callable[[str], object]
    mismatched: Callable[[str], object]

    async def ensure(self, entry: LedgerEntry) -> Upstream:
        """A ready and warm engine of this promotion's bundle, whose approval and bytes were
        verified. Raises LineageError."""
        ...

    def is_ready(self, release: str) -> bool:
        """Whether the bundle's engine takes requests now."""
        ...

    async def retire(self, release: str) -> None:
        """Let the bundle's engine finish what it has begun, and end it."""
        ...


@dataclass(frozen=True)
class Failure:
    """Why an engine could not be started, and when that was."""

    problem: str
    at: float
    """Of the monotonic clock."""


class ReleaseEngines:
    """Follows what is to be served. All of it runs in one event loop."""

    def __init__(self, engines: Engines, changed: Callable[[], object]) -> None:
        """``changed`` is called when an engine has become ready, or could not be started."""
        self.failures: dict[str, Failure] = {}
        """By the digest of the bundle."""
        self._engines, self._changed = engines, changed
        self._upstreams: dict[str, Upstream] = {}
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._retiring: dict[str, asyncio.Task[None]] = {}

    def ready(self, digest: str) -> Upstream | None:
        """The engine of a release; None while it is not ready."""
        return self._upstreams.get(digest) if self._engines.is_ready(digest) else None

    def follow(self, wanted: Mapping[str, LedgerEntry]) -> list[str]:
        """Start what is to be served, in this order, and retire what no longer is; returns what
        is retired. Waits for nothing."""
        retired = [each for each in self._upstreams if each not in wanted]
        for digest in retired:
            del self._upstreams[digest]
            self._retiring[digest] = asyncio.create_task(self._retire(digest))
        for digest in [each for each in self.failures if each not in wanted]:
            del self.failures[digest]
        for digest, entry in wanted.items():
            if digest in self._upstreams or digest in self._retiring:
                continue
            if digest not in self._starting and not self._failed_lately(digest):
                self._starting[digest] = asyncio.create_task(self._start(digest, entry))
            if digest not in self.failures:
                break  # one after the other: what users wait for gets the whole machine
        return retired

    async def close(self) -> None:
        """Give up what is under way."""
        under_way = [*self._starting.values(), *self._retiring.values()]
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    def _failed_lately(self, digest: str) -> bool:
        failure = self.failures.get(digest)
        return failure is not None and time.monotonic() < failure.at + RETRY_S

    async def _start(self, digest: str, entry: LedgerEntry) -> None:
        try:
            self._upstreams[digest] = await self._engines.ensure(entry)
            self.failures.pop(digest, None)
        except LineageError as error:
            logger.error("version %d is not served: %s", entry.decision.version, error.problem)
            self.failures[digest] = Failure(error.problem, time.monotonic())
        except Exception as error:  # a bug, or a machine that refuses: not to be tried in a rush
            logger.exception("version %d is not served", entry.decision.version)
            problem = f"its engine cannot be started ({type(error).__name__}: {error})"
            self.failures[digest] = Failure(problem, time.monotonic())
        finally:
            del self._starting[digest]
            self._changed()

    async def _retire(self, digest: str) -> None:
        try:
            await self._engines.retire(digest)
        except Exception:
            logger.exception("the engine of release %s was not taken down", digest[:SHORT])
        finally:
            del self._retiring[digest]
