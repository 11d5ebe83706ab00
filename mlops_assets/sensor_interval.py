"""How long sensors wait between two looks at the world."""

import os

from mlops_assets.artifacts import LineageError

VARIABLE = "MLOPS_SENSOR_SECONDS"
"""Most seconds between two looks of any sensor, where somebody is watching; Dagster's daemon goes
through all sensors every five."""


def sensor_seconds(usual: int) -> int:
    """``usual``, or fewer where the environment asks for it.

    Raises LineageError when the variable holds no whole number of at least 1.
    """
    asked = os.environ.get(VARIABLE, "").strip()
    if not asked:
        return usual
    if not asked.isdecimal() or int(asked) < 1:
        raise LineageError(
            f"{VARIABLE} is {asked!r}, which is no whole number of seconds.",
            "Give at least 1, or unset it for the sensors' own intervals.",
        )
    return min(usual, int(asked))
