"""What `mlops prune` says to people."""

from collections import Counter
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from mlops_assets.promotion.pruning import Pruned
from mlops_assets.prunable import Item

SHOWN = 40  # lines of what goes; --json has them all


def print_pruned(pruned: Pruned, *, verbose: bool) -> None:
    """What goes and why, what stays by reason (each, if ``verbose``), and what that frees."""
    console = Console(width=max(Console().width, 100), highlight=False)
    plan = pruned.plan
    if plan.delete:
        console.print("[bold]Deleted[/bold]" if pruned.deleted else "[bold]May be deleted[/bold]")
        largest = sorted(plan.delete, key=lambda item: -item.size)
        console.print(_table(largest if verbose else largest[:SHOWN]))
        if (more := len(largest) - SHOWN) > 0 and not verbose:
            console.print(f"  and {more:,} more; --verbose or --json shows them all")
    console.print("[bold]Stays[/bold]")
    console.print(_table(plan.keep) if verbose else _reasons(plan.keep))
    freed, count = shown_size(plan.size), len(plan.delete)
    if pruned.deleted:
        console.print(f"{freed} freed.")
    elif count:
        console.print(f"{freed} would be freed. Nothing was deleted: --delete does it.")
    else:
        console.print("Nothing may be deleted.")


def shown_size(size: int) -> str:
    """Bytes for people."""
    if size < 1024**2:
        return f"{size / 1024:,.1f} KiB"
    return f"{size / 1024**2:,.1f} MiB" if size < 1024**3 else f"{size / 1024**3:,.2f} GiB"


def _table(items: Iterable[Item]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for item in items:
        table.add_row(item.what, item.name, shown_size(item.size), item.reason)
    return table


def _reasons(items: Iterable[Item]) -> Table:
    """One line for each reason; the inputs of what stays are one reason together."""
    count: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for item in items:
        reason = "named by something that stays" if item.reason.startswith("named by") else ""
        count[reason or item.reason] += 1
        size[reason or item.reason] += item.size
    table = Table(box=None, padding=(0, 2))
    table.add_column("number", justify="right")
    table.add_column("size", justify="right")
    table.add_column("because")
    for reason, total in count.most_common():
        table.add_row(f"{total:,}", shown_size(size[reason]) if size[reason] else "-", reason)
    return table
