"""Kills a process right after it wrote something: the nth of the calls that are counted."""

import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

Counted = Sequence[tuple[Any, str]]
"""Owner and name of each function that counts as a write."""


def killed_after(writes: int, work: Callable[[], object], counted: Counted) -> bool:
    """Run ``work`` in a process of its own that dies of SIGKILL right after so many writes."""
    if (child := os.fork()) == 0:
        try:
            die_after(writes, counted)
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert ended in (0, -signal.SIGKILL)
    return ended != 0


def die_after(writes: int, counted: Counted) -> None:
    """Have this process die of SIGKILL right after so many of these calls."""
    done = 0

    def count(write: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            nonlocal done
            result = write(*args, **options)
            if (done := done + 1) == writes:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapped

    for owner, name in counted:
        setattr(owner, name, count(getattr(owner, name)))
