"""How the CPU computes while a model works: on how many threads, and without denormals."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

ONE_THREAD_BELOW = 30_000_000
"""Parameters. A model of a million trains at 15,400 tokens/s on one core and at 17,400 on
two, but at 2,800 on two when anything else wants one of them: the threads wait for each
other at every small matrix. It answers Banking77 in 1.5 s on one, in 4 to 16 s on two. With one,
the sums are also in the same order on every machine."""


@contextmanager
def fitting_threads(parameters: int) -> Iterator[int]:
    """Use one CPU thread for a small model, and put the number back at the end.

    Yields how many pieces of independent work then fit side by side: as many as there were
    threads. Numbers below 1e-38 count as zero meanwhile: those of dying activations cost half the
    speed.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_flush_denormal(True)
    if parameters < ONE_THREAD_BELOW:
        torch.set_num_threads(1)
    try:
        yield before if parameters < ONE_THREAD_BELOW else 1
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(False)


@contextmanager
def side_by_side(workers: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """Yield a ``map`` that calls its function on so many threads, each computing on one.

    Other than one matrix product on two threads, two products on one each wait for nothing.
    """
    if workers == 1:
        yield map
        return
    with ThreadPoolExecutor(workers, initializer=_compute_on_one) as pool:
        yield pool.map


def _compute_on_one() -> None:
    import torch

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
