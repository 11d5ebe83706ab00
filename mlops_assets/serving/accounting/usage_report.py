"""What was used on a day beside its limits, and whether the budget ledger adds up to the log."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table

from mlops_assets.serving.accounting.budget_spec import BudgetSpec
from mlops_assets.serving.accounting.counted_log import sum_of_log
from mlops_assets.serving.accounting.usage import (
    MONEY,
    NANO,
    SCOPES,
    TOKENS,
    Name,
    Totals,
    Usage,
    merge,
)
from mlops_assets.serving.accounting.usage_ledger import UsageLedger
from mlops_assets.serving.records.log_tail import BEGINNING, Position

MOST_SHOWN = 20  # names of a scope
WIDTH = 140  # where no terminal says how wide: room for a digest


@dataclass(frozen=True)
class Row:
    """One name's use of one day."""

    of: Name
    usage: Usage
    tokens_limit: int | None
    money_limit: float | None

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "scope": self.of.scope,
            "name": self.of.name,
            "requests": self.usage.requests,
            "tokens_in": self.usage.tokens_in,
            "tokens_out": self.usage.tokens_out,
            "tokens_limit": self.tokens_limit,
            "money": self.usage.nanos / NANO,
            "money_limit": self.money_limit,
        }


@dataclass(frozen=True)
class Difference:
    """A name of which ledger and log say different things."""

    of: Name
    ledger: Usage
    log: Usage

    def __str__(self) -> str:
        said = (
            f"{usage.requests:,} requests, {usage.of(TOKENS):,} tokens, {usage.nanos / NANO:g}"
            for usage in (self.ledger, self.log)
        )
        return "{} {} {}: the ledger has {}; the log {}".format(*self.of, *said)


def usage_of(ledger: UsageLedger, spec: BudgetSpec, day: str) -> list[Row]:
    """The day as the request log has it now, most tokens first in each scope; changes nothing."""
    totals, position = _counted(ledger, day)
    rest = sum_of_log(ledger.log, position)
    merge(totals, {name: usage for name, usage in rest.items() if name.day == day})
    rows = [_row(name, usage, spec) for name, usage in totals.items()]
    order = {scope: place for place, scope in enumerate(SCOPES)}
    return sorted(rows, key=lambda row: (order[row.of.scope], -row.usage.of(TOKENS), row.of.name))


def differences(ledger: UsageLedger) -> list[Difference]:
    """Where the ledger does not say what the log adds up to, as far as it was counted."""
    counted, position = _counted(ledger)
    logged = sum_of_log(ledger.log, end=position)
    return [
        Difference(name, counted.get(name, Usage()), logged.get(name, Usage()))
        for name in sorted(counted.keys() | logged.keys())
        if counted.get(name) != logged.get(name)
    ]


def print_usage(rows: list[Row], spec: BudgetSpec, day: str) -> None:
    """A table for people: of each scope the names that used most."""
    console = Console(highlight=False)
    console = console if console.is_terminal else Console(width=WIDTH, highlight=False)
    if not rows:
        console.print(f"Nothing was used on {day} (UTC).")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), title=f"{day} (UTC)", title_justify="left")
    for heading in ("scope", "name"):
        table.add_column(heading, overflow="fold")
    for heading in ("requests", "tokens", "of limit", spec.currency, "of limit"):
        table.add_column(heading, justify="right", no_wrap=True)
    for scope, group in groupby(rows, lambda row: row.of.scope):
        named = list(group)
        for place, row in enumerate(named[:MOST_SHOWN]):
            table.add_row("" if place else scope, *_cells(row))
        if rest := named[MOST_SHOWN:]:
            table.add_row("", f"and {len(rest):,} more: --json has all")
    console.print(table)


def _cells(row: Row) -> Iterator[str]:
    yield row.of.name or "(none)"
    yield f"{row.usage.requests:,}"
    money_limit = None if row.money_limit is None else round(row.money_limit * NANO)
    for unit, limit in ((TOKENS, row.tokens_limit), (MONEY, money_limit)):
        used = row.usage.of(unit)
        yield f"{used:,}" if unit == TOKENS else f"{used / NANO:,.4f}"
        yield "" if limit is None else _share(used, limit, unit)


def _share(used: int, limit: int, unit: str) -> str:
    most = f"{limit:,}" if unit == TOKENS else f"{limit / NANO:,.2f}"
    return f"{100 * used / limit:.0f}% of {most}" if limit else f"of {most}"


def _row(name: Name, usage: Usage, spec: BudgetSpec) -> Row:
    limit = spec.limit(name.scope, name.name)
    return Row(name, usage, limit.tokens, None if limit.nanos is None else limit.nanos / NANO)


def _counted(ledger: UsageLedger, day: str | None = None) -> tuple[Totals, Position]:
    return ledger.snapshot(day) if ledger.path.exists() else ({}, BEGINNING)
