"""What the sensors that start retrainings said when they last looked, for who asks why none runs.

Dagster keeps it too, tick by tick; these notes are read without Dagster, so `mlops status` can
show them. They decide nothing.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mlops_assets.artifacts import atomic_write
from mlops_assets.home import Home

logger = logging.getLogger(__name__)

FOLDER = "retraining"


@dataclass(frozen=True)
class LastRetraining:
    """The latest run of `retrain` that started by itself."""

    at: str
    """ISO 8601 in UTC."""
    run: str
    """Dagster's id of the run."""
    trigger: str
    """``drift``, ``feedback`` or ``data``."""
    reason: str


@dataclass(frozen=True)
class Note:
    """One sensor's last look."""

    sensor: str
    at: str
    """ISO 8601 in UTC."""
    said: str
    """Why it started none, or that it did."""
    last: LastRetraining | None = None

    def as_json(self) -> Mapping[str, Any]:
        """For machines."""
        return asdict(self)


_NOTE = TypeAdapter(Note)


def write_note(home: Home, note: Note) -> None:
    """Keep the note in the place of the sensor's last one. A full disk is logged, never raised:
    a note must not keep a sensor from its work."""
    if not home.root.is_dir():
        return  # nothing ran here yet
    path = home.root / FOLDER / f"{note.sensor}.json"
    try:
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(note.as_json()), encoding="utf-8")
    except OSError as error:
        logger.warning("the note %s could not be written (%s)", path, error.strerror)


def read_notes(home: Home) -> list[Note]:
    """The notes of this home by the sensor's name; one that cannot be read is left out."""
    notes = []
    for path in sorted((home.root / FOLDER).glob("*.json")):
        try:
            notes.append(_NOTE.validate_json(path.read_bytes()))
        except (OSError, ValidationError):
            logger.warning("%s is no note of a sensor", path)
    return notes
