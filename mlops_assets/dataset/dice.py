"""Seeded choices that are the same on every machine and in every version of Python.

Of ``random`` only ``random()`` is used, whose sequence Python promises to keep.
"""

import random
from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """Choices drawn from ``random()`` alone."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).random

    def chance(self, share: float) -> bool:
        return self._random() < share

    def number(self, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``, both included."""
        return low + int(self._random() * (high - low + 1))

    def pick(self, values: Sequence[T]) -> T:
        return values[self.number(0, len(values) - 1)]

    def weighted(self, weights: Mapping[str, float]) -> str:
        point = self._random() * sum(weights.values())
        for value, weight in weights.items():
            point -= weight
            if point < 0:
                return value
        return value

    def sample(self, values: Sequence[T], count: int) -> list[T]:
        """``count`` different values, in a random order."""
        keys = [self._random() for _ in values]
        return [values[index] for index in sorted(range(len(keys)), key=keys.__getitem__)[:count]]
