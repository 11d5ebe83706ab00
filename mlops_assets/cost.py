"""What a piece of work used and what that costs: time, energy, money.

Energy is read from a counter where the machine has one that we may read: NVML's for a GPU,
RAPL's for the CPU packages. Elsewhere it is the configured power times the time, and the
record says so.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")
KILOWATT_HOUR = 3.6e6  # joules
Counter = Callable[[], float]
"""Joules since some moment in the past."""


@dataclass(frozen=True)
class Rates:
    """What time and power are assumed to be."""

    price_per_hour: float = 0.0
    currency: str = "USD"
    watts: float = 65.0
    """Power of the machine, for where no counter can be read."""


@dataclass(frozen=True)
class Usage:
    """What a piece of work used."""

    seconds: float
    joules: float | None = None
    """None where no counter could be read."""
    counter: str = ""
    """What counted the joules."""

    def priced(self, rates: Rates) -> dict[str, float | str]:
        """Seconds, energy with its source, and money, for people and for MLflow."""
        estimated = self.joules is None
        joules = rates.watts * self.seconds if self.joules is None else self.joules
        return {
            "wall_seconds": round(self.seconds, 1),
            "energy_kwh": joules / KILOWATT_HOUR,
            "energy_source": f"{rates.watts:g} W assumed" if estimated else self.counter,
            "cost": rates.price_per_hour * self.seconds / 3600,
            "currency": rates.currency,
        }


class Meter:
    """Measures from when it is made. ``gpu`` is the UUID of the GPU that works, if one does."""

    def __init__(self, gpu: str = "", powercap: Path = POWERCAP) -> None:
        self._source, self._counter = _gpu_counter(gpu) if gpu else _cpu_counter(powercap)
        self._earlier = Usage(0.0, 0.0 if self._counter else None, self._source)
        self._joules = self._counter() if self._counter else 0.0
        self._started = time.monotonic()

    def go_on_from(self, earlier: Usage) -> None:
        """Count what an earlier part used, too; its energy only if the same counter counted it."""
        same = earlier.counter == self._source
        self._earlier = earlier if same else Usage(earlier.seconds)

    def read(self) -> Usage:
        """What was used up to now."""
        seconds = self._earlier.seconds + time.monotonic() - self._started
        if self._counter is None or self._earlier.joules is None:
            return Usage(seconds)
        joules = self._earlier.joules + self._counter() - self._joules
        return Usage(seconds, joules, self._source)


def _gpu_counter(uuid: str) -> tuple[str, Counter | None]:
    import pynvml

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid.removeprefix('GPU-')}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:  # no driver, or a GPU older than Volta
        return "", None
    return (
        "NVML, the GPU alone",
        lambda: (
            pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3  # millijoules
        ),
    )


def _cpu_counter(powercap: Path) -> tuple[str, Counter | None]:
    packages = [
        path
        for path in sorted(powercap.glob("intel-rapl:*"))
        if path.name.count(":") == 1  # deeper ones are parts of a package
    ]
    counters = [_Wrapping(path) for path in packages if _readable(path / "energy_uj")]
    if not counters:
        return "", None
    return "RAPL, the CPU packages", lambda: sum(counter.joules() for counter in counters)


def _readable(path: Path) -> bool:
    try:
        path.read_text(encoding="ascii")
    except OSError:  # since 2020 the kernel lets only root read it
        return False
    return True


class _Wrapping:
    """A RAPL counter, which starts anew at its maximum. Read it at least once a wrap."""

    def __init__(self, package: Path) -> None:
        self._counter = package / "energy_uj"
        self._span = int((package / "max_energy_range_uj").read_text(encoding="ascii"))
        self._first = self._last = self._read()
        self._wraps = 0

    def joules(self) -> float:
        """Since this object was made."""
        now = self._read()
        self._wraps += now < self._last
        self._last = now
        return (now - self._first + self._wraps * self._span) / 1e6

    def _read(self) -> int:
        return int(self._counter.read_text(encoding="ascii"))


def usage_of(summary: Mapping[str, Any]) -> Usage:
    """The usage that a stage wrote into its artifact's summary."""
    return Usage(**summary["usage"])
