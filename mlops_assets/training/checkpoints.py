"""The checkpoints of one training: where it goes on after its process died.

Each is a directory with a manifest, written like an artifact: never visible half-written. A
checkpoint is taken only when every byte of it is what the manifest says; the highest number,
which transformers' ``get_last_checkpoint`` goes by, says nothing about that.
"""

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlops_assets.artifacts import find_fault, write_sealed

logger = logging.getLogger(__name__)

KEPT = 2  # one to go on from, and one in case the disk spoils it


@dataclass(frozen=True)
class Checkpoints:
    """Directories ``step-00000120``, the newest last."""

    directory: Path

    def write(self, step: int, produce: Callable[[Path], None]) -> None:
        """Write what ``produce`` writes as the checkpoint of ``step``; keep the last two.

        Raises what ``produce`` raises; the earlier checkpoints then stay as they are.
        """

        def headless(building: Path) -> dict[str, object]:
            produce(building)
            return {}

        self._delete(step)  # a damaged one, which was passed over
        write_sealed(self._path(step), headless)
        for outdated in self._all()[:-KEPT]:
            shutil.rmtree(outdated)

    def newest_complete(self) -> Path | None:
        """The newest checkpoint whose bytes are all as written, or None.

        Says loudly which ones are passed over, and why.
        """
        for half_written in self.directory.glob(".step-*"):
            _warn(half_written, "its writing was interrupted")
            shutil.rmtree(half_written)
        for checkpoint in reversed(self._all()):
            fault = find_fault(checkpoint)
            if fault is None:
                return checkpoint
            _warn(checkpoint, fault)
        return None

    def _all(self) -> list[Path]:
        return sorted(self.directory.glob("step-*"))

    def _path(self, step: int) -> Path:
        return self.directory / f"step-{step:08}"

    def _delete(self, step: int) -> None:
        shutil.rmtree(self._path(step), ignore_errors=True)


def _warn(checkpoint: Path, reason: str) -> None:
    logger.warning("CHECKPOINT SKIPPED: %s cannot be used: %s", checkpoint, reason)
