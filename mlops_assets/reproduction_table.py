"""What `mlops reproduce` shows people: registered beside rebuilt, and the verdict."""

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from mlops_assets.artifacts import SHORT
from mlops_assets.reproduction_verdict import IDENTICAL, SIMILAR, Reproduction

STYLES = {IDENTICAL: "green", SIMILAR: "yellow"}


def print_reproduction(result: Reproduction) -> None:
    """Print a small table, and under it the verdict with its reason."""
    console = Console(width=max(Console().width, 100), highlight=False)
    table = Table(box=None, padding=(0, 2))
    for column in ("", "registered", "rebuilt", ""):
        table.add_column(column, no_wrap=True)
    for name, old, new, equal in _rows(result):
        table.add_row(name, old, new, "[green]equal[/green]" if equal else "[red]differs[/red]")
    where = f"version {result.version} of {result.model}, commit {result.commit[:SHORT]}"
    console.print(f"\n  [bold]{where}[/bold]\n")
    console.print(table)
    style = STYLES.get(result.verdict, "red")
    console.print(f"\n  [{style}]{result.verdict}[/{style}]: {result.reason}", soft_wrap=True)


def _rows(result: Reproduction) -> Iterator[tuple[str, str, str, bool]]:
    for name, (old, new) in result.digests.items():
        yield name, old[:SHORT], new[:SHORT], old == new
    for name, (loss, again) in result.metrics.items():
        yield name.replace("_", " "), f"{loss:.6g}", f"{again:.6g}", loss == again
    for name, (had, has) in ({**result.hardware, **result.libraries}).items():
        if had != has:
            yield name.replace("_", " "), had, has, False
