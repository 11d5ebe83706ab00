"""How much was used, by whom: what one request charges, and to which names.

The same function reads a record that was just written and a line of the request log, so that
what the gateway counted while it ran and what it counts again from the log are one.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

SCOPES = ("key", "user", "feature", "prompt")
TOKENS, MONEY = "tokens", "money"
UNITS = (TOKENS, MONEY)
NANO = 10**9
"""Money is counted in billionths: whole numbers add up to the same in any order."""
DAY = re.compile(r"\d{4}-\d\d-\d\d")


class Name(NamedTuple):
    """Who used something on one day. An empty name is that of requests which gave none."""

    day: str
    """YYYY-MM-DD in UTC."""
    scope: str
    name: str


@dataclass(slots=True)
class Usage:
    """A sum over requests."""

    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    nanos: int = 0

    def add(self, other: "Usage") -> None:
        """Count ``other`` too."""
        self.requests += other.requests
        self.tokens_in += other.tokens_in
        self.tokens_out += other.tokens_out
        self.nanos += other.nanos

    def of(self, unit: str) -> int:
        """Tokens, or billionths of the currency."""
        return self.tokens_in + self.tokens_out if unit == TOKENS else self.nanos


class Limit(NamedTuple):
    """What may be used in a day; None is no limit."""

    tokens: int | None = None
    nanos: int | None = None

    def of(self, unit: str) -> int | None:
        """The limit in this unit."""
        return self.tokens if unit == TOKENS else self.nanos

    def __bool__(self) -> bool:
        return self.tokens is not None or self.nanos is not None


class Charge(NamedTuple):
    """What one request adds, and to whom."""

    day: str
    names: tuple[str, ...]
    """One for each of ``SCOPES``."""
    usage: Usage


Totals = dict[Name, Usage]


def charge(record: Mapping[str, Any]) -> Charge | None:
    """What the fields of one record add; None for what is no record of a request."""
    try:
        day = record["timestamp"][:10]
        names = tuple(record.get(field) or "" for field in ("tenant", "user", "feature", "prompt"))
        tokens = int(record.get("tokens_in") or 0), int(record.get("tokens_out") or 0)
        nanos = round((record.get("cost") or 0.0) * NANO)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return None
    if not DAY.fullmatch(day) or not all(isinstance(name, str) for name in names):
        return None
    return Charge(day, names, Usage(1, *tokens, nanos))


def add_up(charges: Iterable[Charge]) -> Totals:
    """The sums of these charges, by day, scope and name."""
    totals: Totals = {}
    for day, names, usage in charges:
        for scope, name in zip(SCOPES, names, strict=True):
            _total(totals, Name(day, scope, name)).add(usage)
    return totals


def merge(totals: Totals, more: Totals) -> None:
    """Add ``more`` to ``totals``."""
    for name, usage in more.items():
        _total(totals, name).add(usage)


def _total(totals: Totals, name: Name) -> Usage:
    if (total := totals.get(name)) is None:
        total = totals[name] = Usage()
    return total


def shown(unit: str, amount: int, currency: str) -> str:
    """An amount for people: ``12,000 tokens`` or ``0.25 USD``."""
    return f"{amount:,} tokens" if unit == TOKENS else f"{amount / NANO:,.6g} {currency}"
