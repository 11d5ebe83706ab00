"""How much of each draw came back labelled."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from mlops_assets.home import Home
from mlops_assets.monitoring.quality.label_store import (
    Draw,
    labels_directory,
    read_draws,
    read_labels,
)
from mlops_assets.monitoring.shown_time import to_the_minute

WIDTH = 110
"""Of a table that no terminal shows."""


@dataclass(frozen=True)
class DrawState:
    """One draw, and what became of it."""

    draw: Draw
    labelled: int
    """Requests that somebody labelled."""
    people: tuple[str, ...]

    @property
    def response(self) -> float:
        """The share that came back."""
        return self.labelled / len(self.draw.requests)

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "draw": self.draw.id,
            "at": self.draw.at,
            "seed": self.draw.seed,
            "since": self.draw.since,
            "until": self.draw.until,
            "population": self.draw.population,
            "drawn": len(self.draw.requests),
            "labelled": self.labelled,
            "response": self.response,
            "people": list(self.people),
        }


def draw_states(home: Home) -> list[DrawState]:
    """Every draw of the home, oldest first. Raises LineageError for a file that was changed."""
    directory = labels_directory(home)
    labels = read_labels(directory)
    found = []
    for draw in read_draws(directory):
        ids = {one.request for one in draw.requests}
        its = [label for label in labels if label.request in ids]
        people = tuple(sorted({label.person for label in its}))
        found.append(DrawState(draw, len({label.request for label in its}), people))
    return found


def print_draws(found: Sequence[DrawState]) -> None:
    """A table for people."""
    console = Console(highlight=False)
    console = console if console.is_terminal else Console(width=WIDTH, highlight=False)
    if not found:
        console.print("Nothing was drawn yet. Draw: mlops label draw --help", markup=False)
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("draw", "drawn at", "requests until"):
        table.add_column(heading, no_wrap=True)
    for heading in ("drawn", "labelled"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("by", overflow="fold")
    for one in found:
        table.add_row(
            one.draw.id,
            to_the_minute(one.draw.at),
            to_the_minute(one.draw.until),
            f"{len(one.draw.requests):,} of {one.draw.population:,}",
            f"{one.labelled:,} ({one.response:.0%})",
            ", ".join(one.people),
        )
    console.print(table)
