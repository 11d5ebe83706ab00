"""Waiting for what is about to happen: looked for again and again, until a deadline."""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

PATIENT = 60.0
"""Seconds for what takes one or two on a machine that does nothing else."""
RAREST = 0.1
Found = TypeVar("Found")


def wait_until(
    look: Callable[[], Found | None], what: str = "it", seconds: float = PATIENT
) -> Found:
    """The first result that is true. Raises TimeoutError that says what did not come."""
    pauses = _pauses(what, seconds)
    while not (found := look()):
        time.sleep(next(pauses))
    return found


async def wait_beside(look: Callable[[], Found | None], what: str = "it") -> Found:
    """As ``wait_until``, in a coroutine: others go on meanwhile."""
    pauses = _pauses(what, PATIENT)
    while not (found := look()):
        await asyncio.sleep(next(pauses))
    return found


def _pauses(what: str, seconds: float) -> Iterator[float]:
    """A tenth of what was waited so far, so that looking takes nothing from what it waits for."""
    began = time.monotonic()
    while (waited := time.monotonic() - began) < seconds:
        yield min(max(waited / 10, 0.005), RAREST)
    raise TimeoutError(f"{what} did not come within {seconds:.0f} s")
