"""What waits and what was decided, as rows of the tables that people are shown."""

from collections.abc import Sequence

from mlops_assets.approval_requests import Standing
from mlops_assets.ledger import LedgerEntry
from mlops_assets.statements import stamp

Row = dict[str, str | int]
RECENT = 10
PENDING = {
    "model": "string",
    "version": "int",
    "expires": "string",
    "approvals": "string",
    "evidence": "string",
}
"""Columns of ``pending_rows`` and what they hold."""
DECIDED = {
    "entry": "int",
    "at": "string",
    "outcome": "string",
    "version": "int",
    "reason": "string",
}
"""Columns of ``recent_rows``."""


def pending_rows(waiting: Sequence[Standing]) -> list[Row]:
    """One row for each request that waits for somebody."""
    return [
        {
            "model": found.request.entry.decision.model,
            "version": found.request.entry.decision.version,
            "expires": stamp(found.request.terms.expires),
            "approvals": counted(found),
            "evidence": found.request.entry.decision.reason,
        }
        for found in waiting
    ]


def recent_rows(entries: Sequence[LedgerEntry]) -> list[Row]:
    """The ledger's last rows, oldest first."""
    return [
        {
            "entry": row.entry,
            "at": row.at,
            "outcome": row.decision.outcome,
            "version": row.decision.version,
            "reason": row.decision.reason,
        }
        for row in entries[-RECENT:]
    ]


def counted(found: Standing) -> str:
    """How many approvals stand, of how many."""
    return f"{len(found.approvals)} of {found.request.required}"
