"""Roll a release back by hand: one signed row, whether a gateway runs or not.

It undoes the champion, on its way or released, and restores the bundle that was in force before.
A running gateway reads the row within a second; its engine of the restored bundle is warm.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mlops_assets import rollback_statement
from mlops_assets.approval_requests import utc_now
from mlops_assets.approvers import read_approvers
from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home
from mlops_assets.ledger import LedgerEntry
from mlops_assets.release_check import find_void
from mlops_assets.release_state import ReleaseState, read_release
from mlops_assets.serving.rollout import release_steps
from mlops_assets.statements import SignedStatement, signed

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


@dataclass(frozen=True)
class RolledBack:
    """What a rollback did."""

    entry: LedgerEntry
    undone: int
    """The version that was taken back."""

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        decided = self.entry.decision
        return {
            "model": decided.model,
            "undone": self.undone,
            "version": decided.version,
            "bundle": decided.bundle.digest,
            "ledger_entry": self.entry.entry,
        }


def roll_back(
    home: Home,
    name: str,
    reason: str,
    key: "Ed25519PrivateKey",
    *,
    model: str | None = None,
    now: datetime | None = None,
) -> RolledBack:
    """Undo the champion of ``model`` in the name of ``name``, signed with ``key``.

    Raises LineageError that says why it is refused; nothing is then written.
    """
    now, entries = now or utc_now(), home.ledger.entries()
    release = read_release(entries, model := model or _only_model(entries))
    undone, restored = _parts(release, model)
    statement = rollback_statement.statement(release, name, reason, now)
    if void := find_void(home, restored):
        raise _refusal(undone, f"version {restored.decision.version} is void, {void}")
    answer = signed(statement, key)
    if why := rollback_statement.why_refused(answer, read_approvers(home), now):
        raise _refusal(undone, f"{why}.")
    row = _append(home, release, answer, now)
    return RolledBack(row, undone.decision.version)


def _append(
    home: Home, release: ReleaseState, answer: SignedStatement, now: datetime
) -> LedgerEntry:
    decision = release_steps.roll_back(release, answer.statement.reason, answer.as_json())
    row = home.ledger.append(decision, now)
    if row.decision.evidence.get("signature") != answer.signature:
        raise LineageError(
            f"Version {row.decision.version} was restored already, at {row.at}"
            f" (ledger entry {row.entry}): {row.decision.reason}.",
            "`mlops status` shows what is served now; roll back again to go further back.",
        )
    return row


def _only_model(entries: list[LedgerEntry]) -> str:
    models = sorted({row.decision.model for row in entries})
    if len(models) > 1:
        raise LineageError(
            f"This home has releases of {', '.join(models)}.",
            "Name the model that is meant (--model).",
        )
    return models[0] if models else ""


def _parts(release: ReleaseState, model: str) -> tuple[LedgerEntry, LedgerEntry]:
    """The row that is undone, and the promotion that is restored."""
    if release.champion is None:
        raise LineageError(
            f"Nothing was promoted{f' of {model}' if model else ''} yet.",
            "There is nothing to roll back; `mlops status` shows what waits for approval.",
        )
    if release.restores is None:
        version = release.champion.decision.version
        raise LineageError(
            f"There is nothing to roll version {version} of {model} back to: no other release was"
            " in force before it.",
            "Promote another version, or stop the gateway.",
        )
    return release.champion, release.restores


def _refusal(undone: LedgerEntry, why: str) -> LineageError:
    what = f"version {undone.decision.version} of {undone.decision.model}"
    return LineageError(
        f"The rollback of {what} is refused: {why}",
        "docs/release.md says what it takes.",
    )
