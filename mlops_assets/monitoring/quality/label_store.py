"""Labels that people gave to requests that were drawn at random, below ``MLOPS_HOME/labels``.

A draw is one file in ``draws/``: which requests, out of how many, by which seed. An import of
labels is one file beside it, written whole and never changed. So nothing is ever half written, and
every label can be followed to the draw that asked for it and to who gave it.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mlops_assets.artifacts import LineageError, atomic_write, canonical_json, digest_json
from mlops_assets.home import Home


@dataclass(frozen=True)
class Drawn:
    """A request of a draw."""

    request: str
    release: str
    """Digest of the bundle that answered it."""


@dataclass(frozen=True)
class Draw:
    """A simple random sample of the answered requests of a time."""

    at: str
    """When it was drawn, ISO 8601 in UTC."""
    seed: int
    since: str
    """Time of the oldest request that could be drawn."""
    until: str
    """Time of the newest one."""
    population: int
    """How many could be drawn."""
    log: str
    """Key of the prediction log that they stood in."""
    requests: tuple[Drawn, ...]

    @property
    def id(self) -> str:
        """12 hex digits."""
        return digest_json(asdict(self))[:12]


@dataclass(frozen=True)
class Label:
    """The answer that a request should have had, as one person sees it."""

    request: str
    label: str
    """The answer: a JSON object where answers have fields, else text. A field of which no label
    of the vocabulary fits is null."""
    person: str
    """Who says so. Nobody but the machine's users can, and nothing proves it."""
    at: str
    """When it was imported, ISO 8601 in UTC."""
    draw: str
    """Id of the draw."""
    release: str
    """Digest of the bundle that answered the request."""


_DRAW, _LABEL = TypeAdapter(Draw), TypeAdapter(Label)


def labels_directory(home: Home) -> Path:
    """Where labels lie."""
    return home.root / "labels"


def draw_ids(ids: Iterable[str], count: int, seed: int) -> list[str]:
    """A simple random sample: the ``count`` ids of the smallest hash with the seed. Whoever has
    the ids can draw it again, in whatever order they stand."""
    return sorted(ids, key=lambda id: _ticket(seed, id))[:count]


def write_draw(directory: Path, draw: Draw) -> None:
    """Keep a draw; private."""
    _write(directory / "draws" / f"{draw.id}.json", [draw])


def read_draws(directory: Path) -> list[Draw]:
    """Every draw, oldest first. Raises LineageError for one that was changed since."""
    found = []
    for path in sorted((directory / "draws").glob("*.json")):
        draw = _read(path, _DRAW)[0]
        tickets = [_ticket(draw.seed, one.request) for one in draw.requests]
        if draw.id != path.stem or tickets != sorted(tickets):
            raise LineageError(
                f"{path} is not the draw that was written there.",
                "Bring it back from a backup, or take it and its labels away.",
            )
        found.append(draw)
    return sorted(found, key=lambda draw: draw.at)


def write_labels(directory: Path, labels: Sequence[Label]) -> Path:
    """Keep the labels of one import; private. Returns the file."""
    stamp = labels[0].at.replace(":", "").replace("+0000", "Z")
    path = directory / f"{stamp}-{digest_json([asdict(label) for label in labels])[:12]}.jsonl"
    _write(path, labels)
    return path


def read_labels(directory: Path) -> list[Label]:
    """Every label, oldest first; of several by one person of one request the first.

    Raises LineageError for a file that holds anything else.
    """
    found: dict[tuple[str, str], Label] = {}
    for path in sorted(directory.glob("*.jsonl")):
        for label in _read(path, _LABEL):
            found.setdefault((label.request, label.person), label)
    return list(found.values())


def _ticket(seed: int, id: str) -> bytes:
    return hashlib.sha256(f"{seed}:{id}".encode()).digest()


def _write(path: Path, items: Iterable[Any]) -> None:
    try:
        for directory in (path.parent.parent, path.parent):
            directory.mkdir(exist_ok=True, mode=0o700)
        with atomic_write(path) as temporary:
            temporary.touch(mode=0o600)
            temporary.write_bytes(b"".join(canonical_json(asdict(one)) + b"\n" for one in items))
    except OSError as error:
        raise LineageError(
            f"{path} cannot be written ({error.strerror}).",
            "Free some space or mend its directory.",
        ) from error


def _read(path: Path, kind: TypeAdapter[Any]) -> list[Any]:
    try:
        return [kind.validate_json(line) for line in path.read_bytes().splitlines()]
    except (OSError, ValidationError) as error:
        raise LineageError(
            f"{path} cannot be read.", "Bring it back from a backup, or take it away."
        ) from error
