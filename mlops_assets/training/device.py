"""The device that trains: its name, and how much memory a training may take there."""

import gc
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CGROUPS = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
CGROUP_FOLDERS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/memory"))


@dataclass(frozen=True)
class Device:
    """What a training runs on."""

    kind: str
    """``cuda`` or ``cpu``."""
    name: str
    count: int
    """GPUs, or the CPU threads that a large model would use."""
    available: int
    """Bytes of memory that are free for a training."""


def find_device() -> Device:
    """The GPU that torch would use, else the CPU."""
    import torch

    if torch.cuda.is_available():
        gc.collect()  # what an earlier training in this process left is not in use
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info()
        return Device("cuda", torch.cuda.get_device_name(), 1, free)
    return Device("cpu", cpu_name(), torch.get_num_threads(), available_memory())


def gpu_in_use() -> str:
    """UUID of the GPU that torch uses, empty without one."""
    import torch

    if not torch.cuda.is_available():
        return ""
    return str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name as the kernel gives it."""
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def available_memory(
    meminfo: Path = Path("/proc/meminfo"), cgroups: tuple[Path, ...] = CGROUP_FOLDERS
) -> int:
    """Bytes that this machine, or the container we are in, can still give."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if meminfo.is_file():
        fields = dict(line.split(":") for line in meminfo.read_text().splitlines())
        machine = int(fields["MemAvailable"].split()[0]) * 1024
    return min([machine, *_container_room(cgroups)])


def _container_room(folders: tuple[Path, ...]) -> Iterator[int]:
    for folder in folders:
        for limit, usage in CGROUPS:
            if (folder / limit).is_file() and (folder / usage).is_file():
                bound = (folder / limit).read_text().strip()
                if bound != "max":
                    # Files in the cache are given back under pressure: they are not in use.
                    used = int((folder / usage).read_text()) - _cached(folder / "memory.stat")
                    yield max(0, int(bound) - used)


def _cached(stat: Path) -> int:
    if not stat.is_file():
        return 0
    fields = dict(line.split() for line in stat.read_text().splitlines())
    return int(fields.get("inactive_file", fields.get("total_inactive_file", 0)))
