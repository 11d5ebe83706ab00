"""Read the ledger against itself: the chain of hashes, and every decision replayed.

The chain finds a row that was changed, taken out, put in or moved. Replaying finds what the chain
alone does not: a promotion without its approvals or of another bundle than was approved, a step of
a release that cannot have followed, a rollback to what never was in force. What
neither can find is rows cut off at the end; whoever wants to keeps the head that an audit printed,
and asks with ``expected`` whether it still stands.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlops_assets.approval_requests import utc_now
from mlops_assets.approval_standing import find_invalid
from mlops_assets.approvers import read_approvers
from mlops_assets.artifacts import SHORT, LineageError
from mlops_assets.home import Home
from mlops_assets.ledger import (
    APPROVED,
    CHAMPIONS,
    FAILED,
    GENESIS,
    INCONCLUSIVE,
    PASSED,
    PROMOTED,
    REJECTED,
    REQUESTED,
    LedgerEntry,
    last_champion,
)
from mlops_assets.promotion import registry
from mlops_assets.promotion.aliases import CHAMPION
from mlops_assets.release_check import precedes_approvals, verify_approvals
from mlops_assets.release_state import STEPS, find_impossible

CHAINED = {PASSED, FAILED, INCONCLUSIVE, REQUESTED, APPROVED, REJECTED, *STEPS}
"""Outcomes that no row had before there was a chain."""


@dataclass(frozen=True)
class Audit:
    """What an audit found."""

    rows: int
    head: str
    """Hash of the last row: 64 hex digits."""
    champions: Mapping[str, int]
    """Version in force by model, as the rows add up."""
    problems: tuple[str, ...]
    outcomes: Mapping[str, int] = field(default_factory=dict)
    """Rows by outcome."""
    unsigned: tuple[int, ...] = ()
    """Promotions from before there were approvals: nobody signed for these entries."""

    def as_json(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "head": self.head,
            "outcomes": dict(self.outcomes),
            "champions": dict(self.champions),
            "unsigned": list(self.unsigned),
            "problems": list(self.problems),
        }


def audit(home: Home, expected: str | None = None) -> Audit:
    """Verify chain, signatures and promotions, and compare the registry's aliases.

    ``expected`` is the head of an earlier audit. Raises LineageError when a row cannot be read
    at all.
    """
    entries = home.ledger.entries()
    models = {row.decision.model for row in entries}
    champions = {model: row for model in models if (row := last_champion(entries, model))}
    problems = [
        *_chain(entries),
        *_cut(entries, expected),
        *_replayed(home, entries),
        *_aliases(home, dict.fromkeys(sorted(models)) | champions),
    ]
    outcomes: dict[str, int] = {}
    for row in entries:
        outcomes[row.decision.outcome] = outcomes.get(row.decision.outcome, 0) + 1
    versions = {model: row.decision.version for model, row in champions.items()}
    head = (entries[-1].hash or entries[-1].computed) if entries else GENESIS
    unsigned = tuple(row.entry for row in _promoted(entries) if precedes_approvals(entries, row))
    return Audit(len(entries), head, versions, tuple(problems), outcomes, unsigned)


def _promoted(entries: Sequence[LedgerEntry]) -> list[LedgerEntry]:
    return [row for row in entries if row.decision.outcome == PROMOTED]


def _chain(entries: Sequence[LedgerEntry]) -> Iterator[str]:
    previous, begun = GENESIS, False
    for row in entries:
        if row.bundle_digest != row.decision.bundle.digest:
            yield f"entry {row.entry}: its bundle is not the one that its digest names"
        if row.chained and row.hash != row.computed:
            yield f"entry {row.entry} was changed after it was written"
        if row.chained and row.previous != previous:
            yield f"entry {row.entry} does not follow the row before it: a row is missing or new"
        if not row.chained and (begun or row.decision.outcome in CHAINED):
            yield f"entry {row.entry} was put in without its hash, or has lost it"
        begun = begun or row.chained
        previous = row.hash or row.computed


def _cut(entries: Sequence[LedgerEntry], expected: str | None) -> Iterator[str]:
    known = {GENESIS, *(row.hash or row.computed for row in entries)}
    if expected is not None and expected not in known:
        yield f"no row has the hash {expected[:SHORT]}: rows were cut off or changed since then"


def _replayed(home: Home, entries: Sequence[LedgerEntry]) -> Iterator[str]:
    """Every answer, promotion, rollback and step of a release again, in order."""
    approvers = read_approvers(home)
    yield from find_invalid(entries, approvers, utc_now())
    yield from (impossible := list(find_impossible(entries)))
    champions: dict[str, int] = {}
    for row in entries:
        if row.decision.outcome not in CHAMPIONS:
            continue
        expected = champions.get(row.decision.model, 0)
        if row.decision.outcome == PROMOTED and row.decision.replaces not in (expected, None):
            replaced = row.decision.replaces
            yield f"entry {row.entry} replaces entry {replaced}, the champion was {expected}"
        try:
            verify_approvals(entries, row, approvers)
        except LineageError as error:
            if not any(found.startswith(f"entry {row.entry} ") for found in impossible):
                yield f"entry {row.entry}: {error.problem}"
        champions[row.decision.model] = row.entry


def _aliases(home: Home, champions: Mapping[str, LedgerEntry | None]) -> Iterator[str]:
    """Whether the registry says what the ledger says, where it can be looked into."""
    for model, row in champions.items():
        seen = registry.glance(home, model)
        if seen is None:
            continue
        named = seen.aliases.get(CHAMPION)
        tags = seen.versions.get(named, {}) if named else {}
        if row is None:
            found = f"the alias {CHAMPION} of {model} names version {named}, which no row promotes"
            yield from [found] if named else []
        elif tags.get("bundle_digest") != row.decision.bundle.digest:
            shown = f"version {named}" if named else "no version"
            yield (
                f"the alias {CHAMPION} of {model} names {shown}, not version"
                f" {row.decision.version}: run `mlops reconcile`"
            )
