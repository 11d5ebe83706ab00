"""Waiting for a state of the real system: looked at again and again, never slept through."""

import time
from collections.abc import Callable
from typing import TypeVar

POLL_S = 0.2
Found = TypeVar("Found")


class NotSeenError(Exception):
    """What was waited for did not come; the text says what there was instead."""


def wait_for(
    what: str,
    look: Callable[[], Found | None],
    seconds: float,
    instead: Callable[[], str],
    check: Callable[[], None] = lambda: None,
) -> Found:
    """The first result that is not None.

    ``instead`` tells the last state for the error; ``check`` raises where waiting on is of no use,
    such as when a process has died. Raises NotSeenError.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (found := look()) is not None:
            return found
        check()
        time.sleep(POLL_S)
    raise NotSeenError(f"Waited {seconds:.0f} s for {what}. It did not come.\n{instead()}")
