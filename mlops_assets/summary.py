"""The table that ``make run`` and ``mlops status`` end with."""

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mlops_assets.artifacts import SHORT
from mlops_assets.state import State

NEXT_COMMANDS = (
    ("make dev", "the Dagster UI on 3000, the MLflow UI on 5000, approvals on 3001"),
    (".venv/bin/mlops status --json", "the same for a machine"),
    ("make run MLOPS_PROFILE=tiny-shifted", "the same on traffic that changed: a drift verdict"),
)
MODELS = ("base", "tuned", "champion", "majority", "tfidf")


def print_summary(state: State) -> None:
    """Print the state as a table a person can read."""
    console = Console(width=max(Console().width, 100))
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _lines(state):
        table.add_row(name, value)
    console.print()
    console.print(table)
    for name, page in _pages(state):
        # On a line of its own, so that a terminal makes it a link whatever its width.
        console.print(f"  [bold]{name}[/bold]\n    {_short(page)}", soft_wrap=True, highlight=False)
    console.print("\n[bold]Next[/bold]")
    for command, what in NEXT_COMMANDS:
        console.print(f"  {command}\n    [dim]{what}[/dim]", soft_wrap=True)


def _lines(state: State) -> Iterator[tuple[str, str]]:
    yield from _data_lines(state)
    yield from _score_lines(state)
    yield from _release_lines(state)


def _data_lines(state: State) -> Iterator[tuple[str, str]]:
    if (validated := state.validated) is None:
        yield "Data", "not validated yet: make run"
        return
    yield "Rows in", f"{validated.rows_in:,}"
    reasons = sorted(validated.quarantined.items(), key=lambda item: -item[1])
    why = ", ".join(f"{reason} {count:,}" for reason, count in reasons)
    yield "Quarantined", f"{sum(validated.quarantined.values()):,}" + (f" ({why})" if why else "")
    if state.splits:
        yield "Splits", ", ".join(f"{name} {rows:,}" for name, rows in state.splits.rows.items())


def _score_lines(state: State) -> Iterator[tuple[str, str]]:
    if state.report is None:
        return
    scores = state.report["exact_match"]
    shown = [f"{name} {scores[name]:.3f}" for name in MODELS if scores.get(name) is not None]
    yield "Exact match", ", ".join(shown) + f"  (test, {state.report['items']:,} rows)"


def _release_lines(state: State) -> Iterator[tuple[str, str]]:
    if (registered := state.registered) is not None:
        bundle = registered.bundle.digest[:SHORT]
        yield "Registered", f"{registered.name} version {registered.version}, bundle {bundle}"
    if (decision := state.decision) is not None:
        yield "Decision", f"{decision.outcome}: {decision.reason} (ledger entry {decision.entry})"
    champion = state.champion
    yield "Champion", f"version {champion.decision.version}" if champion else "none yet"
    if (drift := state.drift) is not None:
        which = f" in {', '.join(drift.columns)}" if drift.columns else ""
        yield "Drift", f"{drift.verdict.replace('_', ' ')}{which} ({drift.records:,} records)"


def _pages(state: State) -> Iterator[tuple[str, Path]]:
    pages = {
        "Eval report": state.report_page,
        "Drift report": state.drift_page,
        "Quarantine": state.quarantine_file,
    }
    yield from ((name, page) for name, page in pages.items() if page is not None)


def _short(page: Path) -> str:
    """The path relative to where the person stands, if it lies below."""
    here = Path.cwd()
    return str(page.relative_to(here)) if page.is_relative_to(here) else str(page)
