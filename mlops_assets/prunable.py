"""What takes room in a home, and why it stays or may go: what `mlops prune` shows and deletes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path


@dataclass(frozen=True)
class Item:
    """Something that takes room, and why it stays or may go."""

    what: str
    """``artifact``, ``version``, ``upload``, ``checkpoint``, ``segment``, ``unfinished`` or
    ``trash``."""
    name: str
    size: int
    """Bytes."""
    reason: str
    path: Path | None = None
    """None for a version, whose files are an item of their own."""
    version: tuple[str, int] | None = field(default=None, metadata={"shown": False})
    """Model and number of a registered version."""
    remove: Callable[[], None] | None = field(default=None, metadata={"shown": False})
    """How it goes, where that is not by way of the trash."""

    def as_json(self) -> dict[str, object]:
        """For machines."""
        shown = [each.name for each in fields(self) if each.metadata.get("shown", True)]
        return {name: getattr(self, name) for name in shown} | {
            "path": str(self.path) if self.path else None
        }


Decided = tuple[Item, bool]
"""An item, and whether it stays."""


@dataclass(frozen=True)
class Decisions:
    """What a stage decided about what it keeps outside of the artifact store."""

    items: Sequence[Decided]
    names: Sequence[str]
    """Keys of the artifacts that stand in for what was deleted or is going to be."""
