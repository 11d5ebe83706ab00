"""What the values of a version and of its reproduction add up to."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

TOLERANCE = 0.05
"""Relative difference of a loss that is still the same training on other hardware."""
IDENTICAL, SIMILAR, DIFFERENT = "identical", "similar", "different"
STEPS = ("data", "splits", "base", "adapter")
"""In the order in which a difference would spread."""


@dataclass(frozen=True)
class Reproduction:
    """A version beside what was made from its commit now."""

    model: str
    version: int
    commit: str
    verdict: str
    """``identical``, ``similar`` (other hardware, losses within the tolerance), ``different``."""
    reason: str
    digests: Mapping[str, tuple[str, str]]
    """Registered and rebuilt, of each step."""
    metrics: Mapping[str, tuple[float, float]]
    hardware: Mapping[str, tuple[str, str]]
    libraries: Mapping[str, tuple[str, str]]

    def as_json(self) -> dict[str, Any]:
        pairs = {
            name: {key: {"registered": a, "rebuilt": b} for key, (a, b) in values.items()}
            for name, values in (
                ("digests", self.digests),
                ("metrics", self.metrics),
                ("hardware", self.hardware),
                ("libraries", self.libraries),
            )
        }
        return asdict(self) | pairs | {"tolerance": TOLERANCE}


def judge(
    digests: Mapping[str, tuple[str, str]],
    metrics: Mapping[str, tuple[float, float]],
    hardware: Mapping[str, tuple[str, str]],
) -> tuple[str, str]:
    """Verdict and reason from pairs of registered and rebuilt values."""
    differing = [name for name in STEPS if digests[name][0] != digests[name][1]]
    if "adapter" not in differing:
        return IDENTICAL, "the adapter is equal, byte for byte"
    begins = f"the difference begins with the {differing[0]}"
    where = _without_equal_bytes(hardware)
    if not where or differing[0] in ("data", "splits"):
        return DIFFERENT, begins + ("" if where else ", on hardware that gives equal bytes")
    where = f"{where}, where bytes cannot be equal; {begins}"
    far = [name for name, (old, new) in metrics.items() if _distance(old, new) > TOLERANCE]
    if far:
        return DIFFERENT, f"{where}; off by more than {TOLERANCE:.0%}: {', '.join(far)}"
    return SIMILAR, f"{where}; every loss within {TOLERANCE:.0%}"


def _without_equal_bytes(hardware: Mapping[str, tuple[str, str]]) -> str:
    """What forbids that the same training gives the same bytes; empty where nothing does."""
    other = [name.replace("_", " ") for name, (old, new) in hardware.items() if old != new]
    if other:
        return f"another {' and '.join(other)}"
    # The backward passes of attention and embeddings add up in no fixed order there.
    return "a GPU" if hardware.get("gpu", ("none", "none"))[0] != "none" else ""


def _distance(old: float, new: float) -> float:
    """Relative difference; infinite where a value is not a number, which agrees with nothing."""
    distance = abs(new - old) / max(abs(old), 1e-9)
    return distance if distance == distance else float("inf")
