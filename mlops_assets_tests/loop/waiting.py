"""Waiting for a state of the real system: looked at again and again, never slept through."""

import time
from collections.abc import Callable
from typing import TypeVar

from mlops_assets_tests.waiting import wait_until

POLL_S = 0.2
Found = TypeVar("Found")


class NotSeenError(Exception):
    """What was waited for did not come; the text says what there was instead."""


def wait_for(
    what: str,
    look: Callable[[], Found | None],
    seconds: float,
    instead: Callable[[], str],
    check: Callable[[], None],
) -> Found:
    """The first result that is true.

    ``instead`` tells the last state for the error; ``check`` raises where waiting on is of no use,
    such as when a process has died. Raises NotSeenError.
    """

    def pace() -> Found | None:
        check()
        time.sleep(POLL_S)  # looking costs: the ledger and Dagster's storage are read
        return look()

    try:
        return wait_until(pace, what, seconds)
    except TimeoutError as error:
        raise NotSeenError(f"Waiting was in vain: {error}.\n{instead()}") from error
