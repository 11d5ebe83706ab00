"""How the CPU computes while a model works: on how many threads, and without denormals."""

from collections.abc import Iterator
from contextlib import contextmanager

ONE_THREAD_BELOW = 30_000_000
"""Parameters. A model of a million trains at 15,400 tokens/s on one core and at 17,400 on
two, but at 2,800 on two when anything else wants one of them: the threads wait for each
other at every small matrix. It answers Banking77 in 1.5 s on one, in 4 to 16 s on two. With one,
the sums are also in the same order on every machine."""


@contextmanager
def fitting_threads(parameters: int) -> Iterator[None]:
    """Use one CPU thread for a small model, and put the number back at the end.

    Numbers below 1e-38 count as zero meanwhile: those of dying activations cost half the speed.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_flush_denormal(True)
    if parameters < ONE_THREAD_BELOW:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(False)
