"""Progress of long work: a bar on a terminal, plain log lines elsewhere."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0

# Dagster redirects a step's output to a file while it runs, so whether a person watches is
# asked when the definitions are loaded, and the bar goes to the terminal itself.
WATCHED = sys.stderr is not None and sys.stderr.isatty()
TERMINAL = Path("/dev/tty")

Advance = Callable[[int, str], None]
"""Called with the steps done since the last call and a short note (may be empty)."""


@contextmanager
def progress(logger: logging.Logger, what: str, total: int) -> Iterator[Advance]:
    """Yield the function that reports progress of ``total`` steps of ``what``."""
    if not WATCHED:
        yield _lines(logger, what, total)
        return
    with (
        TERMINAL.open("w") as terminal,
        tqdm(
            total=total, desc=f"    {what}", leave=False, file=terminal, dynamic_ncols=True
        ) as bar,
    ):

        def advance(steps: int, note: str = "") -> None:
            bar.set_postfix_str(note, refresh=False)
            bar.update(steps)

        yield advance


def _lines(logger: logging.Logger, what: str, total: int) -> Advance:
    done, spoken = 0, time.monotonic()

    def advance(steps: int, note: str = "") -> None:
        nonlocal done, spoken
        done += steps
        if time.monotonic() - spoken >= SECONDS_BETWEEN_LINES:
            spoken = time.monotonic()
            share = done / max(total, 1)
            logger.info("%s: %d of %d (%.0f%%) %s", what, done, total, 100 * share, note)

    return advance
