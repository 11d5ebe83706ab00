"""Was a candidate turned down before, by people or by its users, and has anything changed since?

A retraining that starts by itself may come to the very bundle that was rejected or rolled back:
nothing is different, so nobody is asked again. Other data makes another bundle; other rows or
suites to measure it by, another gate or another policy make another question, and it is asked.
"""

import logging
from collections.abc import Sequence
from datetime import datetime

from mlops_assets.approval_requests import Request
from mlops_assets.approval_standing import standing
from mlops_assets.approvers import read_approvers
from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home
from mlops_assets.ledger import PROMOTED, REJECTED, REQUESTED, ROLLED_BACK, LedgerEntry
from mlops_assets.promotion.spec import PromotionSpec
from mlops_assets.refs import DecisionRef, RegisteredModelRef
from mlops_assets.verdicts import Gate, load_gate

logger = logging.getLogger(__name__)


def find_turned_down(
    home: Home, registered: RegisteredModelRef, gate: Gate, policy: PromotionSpec, now: datetime
) -> LedgerEntry | None:
    """The rejection or the rollback of this very bundle, where it was asked about last on the same
    data and settings; None where it may be asked about."""
    entries = [row for row in home.ledger.entries() if row.decision.model == registered.name]
    digest = registered.bundle.digest
    asked = [
        row
        for row in entries
        if row.decision.outcome == REQUESTED and row.decision.bundle.digest == digest
    ]
    if not asked:
        return None
    last = Request.of(asked[-1])
    if not _on_same_ground(home, last, registered, gate, policy):
        return None
    state = standing(entries, last, read_approvers(home), now).state
    return _end(entries, last, state)


def _on_same_ground(
    home: Home, last: Request, registered: RegisteredModelRef, gate: Gate, policy: PromotionSpec
) -> bool:
    """Whether data and settings are those of the last time. A gate that cannot be read any more
    tells nothing: people are asked then."""
    asked = last.entry.decision
    if asked.bundle.versions != registered.bundle.versions:
        return False
    if asked.evidence.get("policy") != policy.model_dump(mode="json"):
        return False
    try:
        return load_gate(home.store, last.gate).spec == gate.spec
    except LineageError:
        return False


def _end(entries: Sequence[LedgerEntry], last: Request, state: str) -> LedgerEntry | None:
    if state not in (REJECTED, PROMOTED):
        return None
    answer = next(row for row in reversed(entries) if _answers(row, last, state))
    if state == REJECTED:
        return answer
    undone = (row for row in entries if row.decision.outcome == ROLLED_BACK)
    return next((row for row in undone if row.decision.replaces == answer.entry), None)


def _answers(row: LedgerEntry, request: Request, outcome: str) -> bool:
    decided = row.decision
    same = decided.bundle.digest == request.entry.decision.bundle.digest
    return same and decided.outcome == outcome and row.entry > request.entry.entry


def not_asked_again(found: LedgerEntry, registered: RegisteredModelRef) -> DecisionRef:
    """What it hands on of a bundle that was turned down."""
    decided = found.decision
    logger.warning(
        "nobody is asked about version %d again: it was %s at %s (%s), and neither data nor"
        " settings have changed since",
        registered.version,
        decided.outcome.replace("_", " "),
        found.at,
        decided.reason,
    )
    bundle = registered.bundle.digest
    return DecisionRef(found.entry, decided.outcome, registered.version, bundle, "")
