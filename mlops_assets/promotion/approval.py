"""Approve or reject: the one way from a request to a champion.

`mlops approve`, the Dagster job `approve` and the signed link end here, and so does the
automatic approval that a profile may allow. An answer is one row of the ledger with its
signature. When enough approvals stand, everything is verified again (bytes, signatures,
champion), the promotion is appended, and the registry's aliases follow.

Every write is one row or one alias, and each can be found again: whatever kills the process
between two of them, ``settle`` completes what was begun.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mlops_assets.approval_requests import (
    OPEN,
    OUTDATED,
    Request,
    Standing,
    latest_request,
    utc_now,
)
from mlops_assets.approval_standing import ACTIONS, pending, standing, why_refused
from mlops_assets.approvers import read_approvers
from mlops_assets.artifacts import LineageError, digest_json
from mlops_assets.home import Home
from mlops_assets.ledger import PROMOTED, Decision, LedgerEntry, Overtaken
from mlops_assets.promotion import registry
from mlops_assets.release_check import verify_release
from mlops_assets.statements import APPROVE, REJECT, SignedStatement, find_unreadable, signed

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What became of an answer."""

    entry: LedgerEntry
    """Its row on the ledger."""
    standing: Standing
    """The request, after it."""
    promoted: LedgerEntry | None = None
    """The promotion, if this answer completed it."""
    aliases: Mapping[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        decided = self.entry.decision
        return {
            "model": decided.model,
            "version": decided.version,
            "bundle": decided.bundle.digest,
            "outcome": decided.outcome,
            "ledger_entry": self.entry.entry,
            "request": self.standing.request.id,
            "missing_approvals": self.standing.missing,
            "promoted": self.promoted.entry if self.promoted else None,
            "aliases": dict(self.aliases),
        }


def approve(
    home: Home,
    version: int,
    name: str,
    reason: str,
    key: "Ed25519PrivateKey",
    *,
    model: str | None = None,
    request: str | None = None,
    via: str = "",
    now: datetime | None = None,
) -> Answer:
    """Approve the version that waits, in the name of ``name`` and signed with ``key``.

    ``request`` is the id that the approver has seen, where one was shown; ``via`` the grant of
    the link by which they came, whose page's key then signs. Raises LineageError that says why
    the approval is refused; nothing is then written.
    """
    return _answer(home, APPROVE, version, (name, reason), key, model, request, via, now)


def reject(
    home: Home,
    version: int,
    name: str,
    reason: str,
    key: "Ed25519PrivateKey",
    *,
    model: str | None = None,
    request: str | None = None,
    via: str = "",
    now: datetime | None = None,
) -> Answer:
    """Refuse the version that waits: the request is closed. Otherwise as ``approve``."""
    return _answer(home, REJECT, version, (name, reason), key, model, request, via, now)


def _answer(
    home: Home,
    action: str,
    version: int,
    words: tuple[str, str],
    key: "Ed25519PrivateKey",
    model: str | None,
    request: str | None,
    via: str,
    now: datetime | None,
) -> Answer:
    now = now or utc_now()
    found = latest_request(home.ledger.entries(), version, model)
    if request not in (None, found.id):
        raise _refusal(found, action, words[0], "another request has taken the place of this one")
    if reason := find_unreadable(words[1]):
        raise _refusal(found, action, words[0], reason)
    statement = found.statement(action, *words, now, via)
    return record(home, signed(statement, key), now)


def record(home: Home, answer: SignedStatement, now: datetime | None = None) -> Answer:
    """Take a signed answer, wherever it was signed; promote when it was the last one missing.

    Raises LineageError that says why it is refused, or what of the release changed.
    """
    now, said = now or utc_now(), answer.statement
    request = latest_request(home.ledger.entries(), said.version, said.model)
    if begun := settle(home, said.model, now):  # what a crash interrupted comes first
        follow(home, begun.decision)
    entries, approvers = home.ledger.entries(), read_approvers(home)
    found = standing(entries, request, approvers, now)
    if reason := why_refused(entries, found, answer, approvers, now):
        raise _refusal(request, said.action, said.name, reason)
    if said.action == APPROVE:
        verify_release(home, request.entry)
    row = home.ledger.append(_row(request, answer), now)
    logger.info("version %d %s by %s", said.version, row.decision.outcome, said.name)
    settle(home, said.model, now)
    after = standing(home.ledger.entries(), request, approvers, now)
    if after.state == OUTDATED:
        raise _refusal(request, said.action, said.name, after.reason)
    if after.state == OPEN and not after.missing:  # it changed while this approval was taken
        verify_release(home, request.entry)
    promoted = home.ledger.find(_promotion_key(request)) if after.state == PROMOTED else None
    aliases = follow(home, promoted.decision) if promoted else {}
    return Answer(row, after, promoted, aliases)


def settle(home: Home, model: str, now: datetime | None = None) -> LedgerEntry | None:
    """Promote the request of ``model`` that has all its approvals; None where there is none.

    Signatures, list of approvers, champion and bytes are read and verified anew. A release that
    changed since is passed over with a warning: it must not stand in the way of others, nor of
    its own rejection. Raises LineageError when another process promoted something first.
    """
    now, entries = now or utc_now(), home.ledger.entries()
    for found in pending(entries, read_approvers(home), now):
        request = found.request
        if request.entry.decision.model != model or found.missing:
            continue
        try:
            verify_release(home, request.entry)
        except LineageError as void:
            logger.warning("not promoted: %s", void.problem)
            continue
        try:
            promoted = home.ledger.append(_promotion(found), now, after=entries[-1])
        except Overtaken:  # by a rejection, perhaps
            return settle(home, model, now)
        logger.info("version %d promoted: %s", promoted.decision.version, promoted.decision.reason)
        return promoted
    return None


def follow(home: Home, decided: Decision) -> Mapping[str, int]:
    """The aliases after a promotion. Raises LineageError while the registry cannot be reached."""
    try:
        return registry.reconcile(home, decided.model)
    except LineageError as error:
        raise LineageError(
            f"Version {decided.version} of {decided.model} is promoted on the ledger, but the"
            f" registry's aliases do not say so yet: {error.problem}",
            "Nothing is lost: run `mlops reconcile` when it is back.",
        ) from error


def reconcile(home: Home, now: datetime | None = None) -> dict[str, Mapping[str, int]]:
    """Complete what a crash left half-done, for every model; returns the aliases by model."""
    models = sorted({row.decision.model for row in home.ledger.entries()})
    aliases: dict[str, Mapping[str, int]] = {}
    for model in models:
        settle(home, model, now)
        champion = home.ledger.champion(model)
        # Before the first promotion there may be a challenger already.
        aliases[model] = (
            follow(home, champion.decision) if champion else registry.reconcile(home, model, now)
        )
    return aliases


def _row(request: Request, answer: SignedStatement) -> Decision:
    said, asked = answer.statement, request.entry.decision
    return Decision(
        key=answer.digest,
        outcome=ACTIONS[said.action],
        reason=said.reason,
        model=asked.model,
        version=asked.version,
        bundle=asked.bundle,
        evidence=answer.as_json(),
    )


def _promotion(found: Standing) -> Decision:
    request, asked = found.request, found.request.entry.decision
    names = ", ".join(approval.name for approval in found.approvals)
    return Decision(
        key=_promotion_key(request),
        outcome=PROMOTED,
        reason=f"approved by {names}: {asked.reason}",
        model=asked.model,
        version=asked.version,
        bundle=asked.bundle,
        evidence={
            "request": request.id,
            "approvals": [approval.digest for approval in found.approvals],
        },
        replaces=request.terms.replaces,
    )


def _promotion_key(request: Request) -> str:
    return digest_json({"promoted": request.id})


def _refusal(request: Request, action: str, name: str, reason: str) -> LineageError:
    asked = request.entry.decision
    what = "approval" if action == APPROVE else "rejection"
    return LineageError(
        f"The {what} of {asked.model} version {asked.version} by {name} is refused: {reason}.",
        "`mlops status` shows what waits; docs/approval.md says what counts.",
    )
