"""One run at a time writes to a home; the next in a queue waits for the end of its process."""

import threading

import pytest

from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home, RunLock


def test_the_next_run_waits_for_the_process_of_one_that_is_over(home: Home) -> None:
    first, second = RunLock(), RunLock()
    assert first.hold(home, "a")
    with pytest.raises(LineageError, match=r"Run a .* is at work"):
        second.hold(home, "b")
    with pytest.raises(LineageError, match=r"Run a .* is at work"):
        second.hold(home, "b", is_over=lambda run: run != "a")
    ending = threading.Timer(0.2, first.release)
    ending.start()
    assert second.hold(home, "b", is_over=lambda run: run == "a")
    ending.join()
    assert not second.hold(home, "b")
    second.release()
