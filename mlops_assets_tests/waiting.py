"""Waiting for what is about to happen: looked for again and again, until a deadline."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

PATIENT = 60.0
"""Seconds for what takes one or two on a machine that does nothing else."""
PAUSE = 0.01
Found = TypeVar("Found")


def wait_until(
    look: Callable[[], Found | None], what: str = "it", seconds: float = PATIENT
) -> Found:
    """The first result that is true. Raises TimeoutError that says what did not come."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come within {seconds:.0f} s")
        time.sleep(PAUSE)
    return found


async def wait_beside(look: Callable[[], Found | None], what: str = "it") -> Found:
    """As ``wait_until``, in a coroutine: others go on meanwhile."""
    deadline = time.monotonic() + PATIENT
    while not (found := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come within {PATIENT:.0f} s")
        await asyncio.sleep(PAUSE)
    return found
