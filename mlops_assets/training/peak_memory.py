"""The memory that a training really took at its peak, to set beside the plan."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROCESS = Path("/proc/self")
RESET_PEAK = "5"  # proc_pid_clear_refs(5): forget the resident set's high-water mark


@dataclass
class Peak:
    """Filled when the measured block ends."""

    size: int | None = None
    """Bytes; None where the system does not tell."""
    source: str = ""


@contextmanager
def measured_peak(kind: str) -> Iterator[Peak]:
    """Measure the block on a device of this ``kind``.

    A GPU's figure is what torch's allocator gave to tensors. A CPU's is by how much the process
    grew: it also holds what libraries allocate, and misses what was free in the process before.
    """
    peak = Peak()
    if kind == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
        yield peak
        peak.size, peak.source = torch.cuda.max_memory_allocated(), "torch's allocator"
        return
    before = _reset_resident()
    yield peak
    if before is not None:
        peak.size = max(0, _status("VmHWM") - before)
        peak.source = "growth of the process"


def _reset_resident() -> int | None:
    try:
        (PROCESS / "clear_refs").write_text(RESET_PEAK, encoding="ascii")
        return _status("VmRSS")
    except OSError:  # no Linux, or a container that forbids it
        return None


def _status(field: str) -> int:
    for line in (PROCESS / "status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"the kernel gives no {field}")
