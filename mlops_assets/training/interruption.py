"""Notice SIGTERM and Ctrl-C, finish what must not be torn, then pass the signal on.

A spot machine that is taken away sends SIGTERM and waits a little. As every well-behaved
process does, we save, put the previous handler back and raise the signal again: under
Dagster its handler ends the run as interrupted, elsewhere the process dies of the signal.
"""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)  # Dagster's parent process sends the second


class Interruption:
    """Remembers the first signal. Further ones change nothing: saving is under way."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def watch(self) -> None:
        """Take the signals over. Only the main thread can; elsewhere nothing is noticed."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if handler not in (None, signal.SIG_IGN):  # set from C, or not wanted
                self._previous[number] = handler
                signal.signal(number, self._note)

    def give_back(self) -> None:
        """Put the previous handlers back."""
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, handler)

    def pass_on(self) -> None:
        """Give the handlers back and raise the signal that was received again, if any."""
        self.give_back()
        received, self.received = self.received, None
        if received is not None:
            signal.raise_signal(received)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.received is None:
            self.received = number


@contextmanager
def noticed_interruption() -> Iterator[Interruption]:
    """Delay signals until the block passes them on, at the latest until it ends."""
    interruption = Interruption()
    interruption.watch()
    try:
        yield interruption
        interruption.pass_on()
    finally:
        interruption.give_back()
