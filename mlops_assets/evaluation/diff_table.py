"""`mlops diff` on the terminal."""

from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from mlops_assets.artifacts import SHORT
from mlops_assets.evaluation.comparison import Comparison, Difference
from mlops_assets.evaluation.diff import Diff, Example, Examples

COLUMNS = ("before", "after", "difference", "95% interval", "better", "worse", "same", "unscored")
INDENT = (1, 0, 0, 4)
NARROWEST = 110  # columns that the table wants; a narrower terminal wraps


def print_diff(found: Diff) -> None:
    """Per suite the metrics, the leading one by slice, and examples both ways."""
    console = Console(width=max(Console().width, NARROWEST), highlight=False)
    before, after = found.before, found.after
    console.print(f"\n  [bold]{after.label}[/bold] against [bold]{before.label}[/bold]")
    for name, side in (("before", before), ("after", after)):
        source = "the store" if side.source == "store" else f"MLflow run {side.source[:SHORT]}"
        console.print(f"  [dim]{name}: report {side.report[:SHORT]}, records from {source}[/dim]")
    if before.report == after.report:
        console.print("  Both were measured by the same report.")
    for one in found.suites:
        _print_suite(console, one, found.examples[one.suite])


def _print_suite(console: Console, one: Comparison, examples: Examples) -> None:
    console.print(f"\n  [bold]{escape(one.suite)}[/bold]  {pairing(one)}")
    if not one.pairs:
        return
    console.print(Padding(_metrics_table(one), INDENT, expand=False))
    _print_slices(console, one)
    for title, style, items, some in (
        ("better", "green", examples.better_items, examples.better),
        ("worse", "red", examples.worse_items, examples.worse),
    ):
        if items:
            shown = heading(title, items, len(some))
            console.print(f"\n    [{style}]{shown}[/{style}]")
        for example in some:
            _print_example(console, example)


def heading(title: str, items: int, shown: int) -> str:
    """How many items got better or worse, and how many of them are shown."""
    said = f"{items:,} item{'s' if items != 1 else ''} got {title}"
    return said if shown in (0, items) else f"{said}, the {shown} largest changes:"


def pairing(one: Comparison) -> str:
    """How many items were compared, and what was not."""
    parts = [f"{len(one.pairs):,} items compared"]
    parts += [
        f"{len(items):,} {what}"
        for items, what in (
            (one.only_before, "only before"),
            (one.only_after, "only after"),
            (one.altered, "with another input or reference"),
        )
        if items
    ]
    return ", ".join(parts)


def _metrics_table(one: Comparison) -> Table:
    table = _table("metric")
    for metric, difference in one.metrics.items():
        table.add_row(escape(metric), *cells(difference), style=_style(difference))
    return table


def _print_slices(console: Console, one: Comparison) -> None:
    """Those in which an item got better or worse; the page and the JSON have all."""
    slices = list(leading_by_slice(one))
    moved = [(name, found) for name, found in slices if found.better or found.worse]
    if moved:
        table = _table(f"slice, by {escape(next(iter(one.metrics)))}")
        for name, difference in moved:
            table.add_row(escape(name), *cells(difference), style=_style(difference))
        console.print(Padding(table, INDENT, expand=False))
    if still := len(slices) - len(moved):
        console.print(f"\n    [dim]no item changed in {still:,} of {len(slices):,} slices[/dim]")


def leading_by_slice(one: Comparison) -> Iterator[tuple[str, Difference]]:
    """The first metric for each slice that has it, named ``dimension = value``."""
    leading = next(iter(one.metrics), "")
    for dimension, values in one.slices.items():
        for value, metrics in values.items():
            if leading in metrics:
                yield f"{dimension} = {value}", metrics[leading]


def cells(one: Difference) -> tuple[str, ...]:
    """A row's cells, in the order of ``COLUMNS``."""
    low_high = "-" if one.interval is None else f"{one.interval[0]:+.3f} to {one.interval[1]:+.3f}"
    counts = (one.better, one.worse, one.same, one.unscored)
    scores = (_score(one.before), _score(one.after), _score(one.difference, "+"))
    return (*scores, low_high, *(f"{count:,}" for count in counts))


def direction(one: Difference) -> str:
    """``better`` or ``worse`` where the interval leaves out 0, else nothing."""
    if one.interval is None or one.interval[0] <= 0 <= one.interval[1]:
        return ""
    return "better" if one.interval[0] > 0 else "worse"


def _style(one: Difference) -> str:
    return {"better": "green", "worse": "red"}.get(direction(one), "")


def _score(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.3f}"


def _table(first: str) -> Table:
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.add_column(first, no_wrap=True)
    for column in COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _print_example(console: Console, example: Example) -> None:
    changes = ", ".join(f"{name} {rise:+.3f}" for name, rise in example.changes.items())
    console.print(f"      [bold]{escape(example.item)}[/bold]  [dim]{escape(changes)}[/dim]")
    rows = ("asked", example.asked), ("reference", example.reference)
    for name, text in (*rows, ("before", example.before), ("after", example.after)):
        shown = escape(text) if text else "[dim](nothing)[/dim]"
        console.print(f"        [dim]{name:<10}[/dim]{shown}", soft_wrap=True)
