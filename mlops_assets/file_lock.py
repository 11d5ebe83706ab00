"""One after the other, whether threads or processes: a lock that is a file."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Wait until nobody else has the lock at ``path``, and have it until the block ends.

    The file is made where it is missing, for our eyes only. The kernel frees the lock of a
    process that dies. Threads that wait for each other open the file each on its own, and a
    thread that has the lock must not ask for it again.
    """
    path.touch(mode=0o600)
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
