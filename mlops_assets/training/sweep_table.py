"""A sweep on the terminal: a line for each trial, and a table at the end."""

from typing import TYPE_CHECKING, Any

from mlops_assets.training.sweep_result import COMPLETE, SweepResult, Trial

if TYPE_CHECKING:
    from rich.table import Table

MOST_TRIALS = 15  # rows of the table; the picture shows all
STYLES = {"complete": "", "pruned": "dim", "failed": "red"}


def trial_line(result: SweepResult) -> str:
    """The latest trial in one line, or where the sweep goes on from."""
    if not result.trials:
        return f"sweep {result.name}: {result.wanted} trials"
    last, done = result.trials[-1], len(result.trials)
    best = result.best
    shown = f", best {_number(best.value)} (trial {best.number})" if best else ""
    found = " from the store" if last.reused else ""
    outcome = last.reason or f"{last.state} {_number(last.value)}{found}"
    return f"{done} of {result.wanted}: {settings(last)}: {outcome}{shown}"


def result_table(result: SweepResult) -> "Table":
    """The best trials first, then those that were pruned or failed."""
    from rich.table import Table

    sign = 1 if result.direction == "minimize" else -1
    ranked = sorted(
        result.trials, key=lambda item: (item.state != COMPLETE, sign * (item.value or 0.0))
    )
    names = sorted({name for item in ranked for name in item.params})
    table = Table(title=f"Sweep {result.name}", title_justify="left", box=None, padding=(0, 2))
    for column in ("trial", result.objective, "state", *names, "seconds"):
        table.add_column(column, justify="left" if column == "state" else "right", no_wrap=True)
    for item in ranked[:MOST_TRIALS]:
        values = (_number(item.params.get(name)) for name in names)
        marks = (str(item.number), _number(item.value), item.state)
        style = "bold green" if item == result.best else STYLES[item.state]
        table.add_row(*marks, *values, f"{item.seconds:.1f}", style=style)
    if len(ranked) > MOST_TRIALS:
        table.caption = f"and {len(ranked) - MOST_TRIALS} more"
    return table


def print_result(result: SweepResult) -> None:
    """The table, and where the winner's profile and the picture lie."""
    from rich.console import Console

    console = Console(highlight=False)
    console.print()
    console.print(result_table(result))
    console.print(f"\n[bold]Winner's profile[/bold]\n  {result.profile}", soft_wrap=True)
    console.print(f"[bold]Picture[/bold]\n  {result.plot}", soft_wrap=True)
    console.print(f"\n[bold]Next[/bold]\n  make run MLOPS_PROFILE={result.profile}", soft_wrap=True)


def as_json(result: SweepResult) -> dict[str, Any]:
    """The result for machines."""
    return {
        "name": result.name,
        "objective": result.objective,
        "direction": result.direction,
        "trials": [vars(item) | {"params": dict(item.params)} for item in result.trials],
        "best": result.best and vars(result.best) | {"params": dict(result.best.params)},
        "profile": str(result.profile),
        "plot": str(result.plot),
        "mlflow_run": result.mlflow_run,
    }


def settings(trial: Trial) -> str:
    """The trial's settings as ``name value`` pairs."""
    return ", ".join(f"{name} {_number(value)}" for name, value in trial.params.items())


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
