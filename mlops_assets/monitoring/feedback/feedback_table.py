"""What became of feedback, as tables for people and as JSON for machines."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mlops_assets.artifacts import SHORT
from mlops_assets.monitoring.feedback.lessons import KINDS
from mlops_assets.monitoring.feedback.screening import REASONS
from mlops_assets.monitoring.feedback.versions import Version
from mlops_assets.monitoring.shown_time import to_the_minute

WIDTH = 100
"""Of a table at least, in letters: narrower ones lose their last column."""
KIND_COLUMNS = ("received", "training", "cases", "signals", "quarantined")
"""The first is the sum of the others."""
KIND_TABLE = {"kind": "string", **dict.fromkeys(KIND_COLUMNS, "int"), "meaning": "string"}
REASON_TABLE = {"reason": "string", "rows": "int", "meaning": "string"}


def kind_rows(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each kind of feedback: how much of it became what."""
    return [
        {"kind": kind, **{name: said[name] for name in KIND_COLUMNS[:-1]}}
        | {"quarantined": sum(said["quarantined"].values()), "meaning": KINDS[kind]}
        for kind, said in summary["kinds"].items()
    ]


def reason_rows(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each reason of the quarantine, the commonest first."""
    total: Counter[str] = Counter()
    for said in summary["kinds"].values():
        total.update(said["quarantined"])
    return [
        {"reason": reason, "rows": rows, "meaning": REASONS[reason]}
        for reason, rows in sorted(total.items(), key=lambda item: (-item[1], item[0]))
    ]


def version_rows(versions: Sequence[Version]) -> list[dict[str, Any]]:
    """A row for each version, the newest first; the first of them is in force."""
    return [
        {
            "version": version.version[:SHORT],
            "since": version.time,
            "training": version.training.rows,
            "cases": version.cases.rows,
            "added": version.added,
            "removed": version.removed,
            "reason": version.reason,
            "training_md5": version.training.md5,
            "regressions_md5": version.cases.md5,
        }
        for version in reversed(versions)
    ]


def as_json(summary: Mapping[str, Any] | None, versions: Sequence[Version]) -> dict[str, Any]:
    """Everything that ``mlops feedback`` shows; ``kinds`` is null before the first look."""
    return {
        "kinds": None if summary is None else summary["kinds"],
        "versions": [
            asdict(version) | {"files": {n: p._asdict() for n, p in version.files.items()}}
            for version in reversed(versions)
        ],
    }


def print_feedback(summary: Mapping[str, Any], versions: Sequence[Version], where: str) -> None:
    """What there is, why some of it is set aside, and what is in force."""
    console = _console()
    _print(console, "Feedback", ["kind", *KIND_COLUMNS], kind_rows(summary))
    if reasons := reason_rows(summary):
        _print(console, "Quarantined", ["reason", "rows", "meaning"], reasons)
    if not versions:
        console.print("No version yet: nothing was accepted.")
        return
    now = versions[-1]
    console.print(
        f"In force since {to_the_minute(now.time)} UTC: version {now.version[:SHORT]},"
        f" {now.training.rows:,} rows to learn from, {now.cases.rows:,} cases, in {where}",
        markup=False,
        soft_wrap=True,
    )


def print_versions(versions: Sequence[Version]) -> None:
    """Every version, the newest first."""
    if not versions:
        _console().print("No version yet: nothing was accepted.")
        return
    columns = ["version", "since", "training", "cases", "added", "removed", "reason"]
    rows = [row | {"since": to_the_minute(row["since"])} for row in version_rows(versions)]
    _print(_console(), "Versions (times in UTC)", columns, rows)


def _console() -> Any:
    from rich.console import Console

    return Console(width=max(Console().width, WIDTH), highlight=False)


def _print(console: Any, title: str, columns: Sequence[str], rows: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in columns:
        numbers = bool(rows) and isinstance(rows[0][name], int)
        wraps = name in ("meaning", "reason") and not numbers
        table.add_column(name, justify="right" if numbers else "left", no_wrap=not wraps)
    for row in rows:
        table.add_row(
            *(f"{cell:,}" if isinstance(cell := row[name], int) else str(cell) for name in columns)
        )
    console.print(table)
