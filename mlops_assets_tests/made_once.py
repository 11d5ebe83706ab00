"""What takes long to make is made once, by the first of xdist's workers that asks for it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mlops_assets.file_lock import exclusive_lock


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder ``name`` that ``make`` filled, in this worker or in another; others wait for it.

    It stays where it was made: MLflow's database knows its files by their path.
    """
    ours = factory.getbasetemp()
    root = ours.parent if "PYTEST_XDIST_WORKER" in os.environ else ours
    folder, whole = root / name, root / f"{name}.whole"
    with exclusive_lock(root / f"{name}.lock"):
        if not whole.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed
            folder.mkdir(mode=0o700)
            make(folder)
            whole.touch()
    return folder
