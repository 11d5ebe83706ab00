"""What somebody signs who rolls a release back by hand, and what is wrong with such a row.

It is the statement of an approval with another action: it names the row of the champion that it
undoes, and the version and bundle that it restores. The gateway's own rollbacks carry no
signature: they only ever restore what people had approved and users had.
"""

from collections.abc import Sequence
from datetime import datetime

from mlops_assets.approvers import Approvers
from mlops_assets.ledger import LedgerEntry
from mlops_assets.release_state import ReleaseState
from mlops_assets.statements import (
    SignedStatement,
    Statement,
    find_forgery,
    find_unreadable,
    find_untimely,
    parse,
    stamp,
)

ROLL_BACK = "rollback"
SIGNED = ("statement", "signature")
"""What the row keeps as evidence of who rolled back."""


def statement(release: ReleaseState, name: str, reason: str, at: datetime) -> Statement:
    """What somebody signs to roll this release back.

    Raises ValueError where there is nothing to restore.
    """
    undone, restored = release.champion, release.restores
    if undone is None or restored is None:
        raise ValueError("nothing was in force before")
    what = restored.decision
    signed = (ROLL_BACK, undone.computed, what.model, what.version, what.bundle.digest)
    return Statement(*signed, name, reason, stamp(at))


def why_refused(answer: SignedStatement, approvers: Approvers, taken: datetime) -> str | None:
    """Why a rollback signed like this is not taken; None if it is."""
    said = answer.statement
    return (
        find_unreadable(said.reason)
        or find_forgery(answer, approvers, taken)
        or find_untimely(said, taken)
    )


def find_flaw(entries: Sequence[LedgerEntry], row: LedgerEntry, approvers: Approvers) -> str | None:
    """What is wrong with the signature of a rollback by hand; None if nothing is, or if it is
    the gateway's own."""
    decided = row.decision
    if not set(SIGNED) & set(decided.evidence):
        return None
    answer = parse({name: decided.evidence.get(name) for name in SIGNED})
    if answer is None:
        return "its statement cannot be read"
    said = answer.statement
    undone = next((each for each in entries if each.entry == decided.replaces), None)
    meant = (ROLL_BACK, undone.computed if undone else "", decided.model, decided.version)
    if (said.action, said.request, said.model, said.version) != meant or (
        (said.bundle, said.reason) != (decided.bundle.digest, decided.reason)
    ):
        return "it says something else than was signed"
    return why_refused(answer, approvers, datetime.fromisoformat(row.at))
