"""A release while an engine serves it: what it reads, where it is answered, how it does."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from mlops_assets.artifacts import SHORT, LineageError
from mlops_assets.serving.engines.engine_plans import EnginePlan
from mlops_assets.serving.engines.release_files import Mark, ReleaseFiles
from mlops_assets.serving.gateway.upstream import Upstream

logger = logging.getLogger(__name__)


@dataclass
class ServedRelease:
    """Times are monotonic seconds."""

    plan: EnginePlan
    files: ReleaseFiles
    upstream: Upstream
    mismatched: Callable[[str], object]
    """Told the release when its files are not what was approved."""
    marks: tuple[Mark, ...] = ()
    """Of its files when they were last hashed."""
    copied: tuple[Mark, ...] = ()
    """Of the engine's own copy when that was hashed."""
    verified: float = 0.0
    """When every file was last found to be what was approved."""
    fault: LineageError | None = None
    """What was changed, if anything was: it is not served any more."""
    draining: bool = False
    in_flight: int = 0
    answered: float = 0.0
    """When a user's request was last answered."""
    waiting: float = 0.0
    """Since when users wait without an answer, while any do."""

    def begin(self) -> None:
        """A user's request is sent to the engine."""
        if not self.in_flight:
            self.waiting = time.monotonic()
        self.in_flight += 1

    def end(self, *, answered: bool) -> None:
        """It is over."""
        self.in_flight -= 1
        if answered:
            self.answered = self.waiting = time.monotonic()

    async def verify(self) -> None:
        """Hash every file; notes and tells the fault, if they are not what was approved."""
        await asyncio.to_thread(self._hash)
        if self.fault is not None:
            logger.error("release %s: %s", self.upstream.release[:SHORT], self.fault.problem)
            self.mismatched(self.upstream.release)

    async def is_touched(self) -> bool:
        """Whether the kernel notes anything else of a file than when it was last hashed."""
        return await asyncio.to_thread(self.files.marks) != self.marks

    def _hash(self) -> None:
        self.marks = self.files.marks()
        try:
            self.files.verify()
        except LineageError as error:
            self.fault = error
        else:
            self.fault, self.verified = None, time.monotonic()
