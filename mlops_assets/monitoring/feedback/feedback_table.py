"""What became of feedback, as tables for people and as JSON for machines."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mlops_assets.artifacts import SHORT
from mlops_assets.monitoring.feedback.lessons import KINDS
from mlops_assets.monitoring.feedback.screening import REASONS
from mlops_assets.monitoring.feedback.versions import Version

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
    from rich.console import Console

    console = Console(highlight=False)
    _print(console, "Feedback", ["kind", *KIND_COLUMNS], kind_rows(summary))
    if reasons := reason_rows(summary):
        _print(console, "Quarantined", ["reason", "rows", "meaning"], reasons)
    if not versions:
        console.print("No version yet: nothing was accepted.")
        return
    now = versions[-1]
    console.print(
        f"In force since {now.time}: version {now.version[:SHORT]}, {now.training.rows} rows to"
        f" learn from, {now.cases.rows} cases, in {where}",
        markup=False,
        soft_wrap=True,
    )


def print_versions(versions: Sequence[Version]) -> None:
    """Every version, the newest first."""
    from rich.console import Console

    if not versions:
        Console(highlight=False).print("No version yet: nothing was accepted.")
        return
    columns = ["version", "since", "training", "cases", "added", "removed", "reason"]
    rows = [row | {"since": row["since"][:16]} for row in version_rows(versions)]
    _print(Console(highlight=False), "Versions (times in UTC)", columns, rows)


def _print(console: Any, title: str, columns: Sequence[str], rows: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in columns:
        numbers = bool(rows) and isinstance(rows[0][name], int)
        wraps = name in ("meaning", "reason") and not numbers
        table.add_column(name, justify="right" if numbers else "left", no_wrap=not wraps)
    for row in rows:
        table.add_row(*(str(row[name]) for name in columns))
    console.print(table)
