"""What happened, as it happens: a line each, with the time and where the evidence lies."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

WIDTH = 100
PLACES = {
    "world": "cyan",
    "users": "cyan",
    "monitor": "blue",
    "sensor": "magenta",
    "retrain": "magenta",
    "people": "yellow",
    "gateway": "green",
    "registry": "green",
}
"""Who acts, and the colour of it."""


@dataclass(frozen=True)
class Event:
    """One thing that happened."""

    seconds: float
    """Since the beginning."""
    who: str
    what: str
    evidence: str = ""
    """A file, a run, a row of the ledger."""
    key: str = ""
    """What a test looks for; empty for what only people want to know."""


def shown(path: Path) -> str:
    """The path relative to where the person stands, if it lies below."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


class Timeline:
    """Events in their order, printed at once and kept."""

    def __init__(self, console: Console | None = None) -> None:
        self.events: list[Event] = []
        self._begun = time.monotonic()
        self._console = console or Console(width=max(Console().width, WIDTH), highlight=False)

    def tell(self, who: str, what: str, evidence: object = "", key: str = "") -> Event:
        """Something has happened now."""
        where = shown(evidence) if isinstance(evidence, Path) else str(evidence)
        event = Event(time.monotonic() - self._begun, who, what, where, key)
        self.events.append(event)
        self._print(event)
        return event

    def chapter(self, title: str) -> None:
        """What follows belongs together."""
        self._console.print(f"\n[bold]{escape(title)}[/bold]")

    def happened(self) -> list[str]:
        """What happened, for a test."""
        return [event.key for event in self.events if event.key]

    def write(self, path: Path) -> None:
        """The same for machines."""
        path.write_text(json.dumps([asdict(event) for event in self.events], indent=1))

    def _print(self, event: Event) -> None:
        minutes, seconds = divmod(int(event.seconds), 60)
        colour = PLACES.get(event.who, "white")
        line = f"{minutes:3d}:{seconds:02d}  [{colour}]{event.who:<8}[/{colour}]  "
        self._console.print(line + escape(event.what), soft_wrap=True)
        if event.evidence:
            self._console.print(f"{'':18}[dim]{escape(event.evidence)}[/dim]", soft_wrap=True)
