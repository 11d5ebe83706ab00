"""Ask people for their approval of a candidate that passed the gate: a row on the ledger.

Nothing waits in a process. The same question again finds the row that asks it; one that nobody
answered in time is asked anew. What people decide on stands in the row: the criteria with their
verdicts, the digests of report and gate, the champion compared with, the policy, the author.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from mlops_assets.approval_requests import (
    EXPIRED,
    OPEN,
    SUPERSEDED,
    Request,
    Standing,
    find_request,
)
from mlops_assets.approval_standing import standing
from mlops_assets.approvers import read_approvers
from mlops_assets.artifacts import Artifact, LineageError, digest_json
from mlops_assets.home import Home
from mlops_assets.ledger import (
    CHAMPIONS,
    MEET_THE_NEW_CHAMPION,
    PROMOTED,
    REQUESTED,
    ROLLED_BACK,
    Decision,
    LedgerEntry,
)
from mlops_assets.promotion.spec import PromotionSpec
from mlops_assets.refs import DecisionRef, GateRef, RegisteredModelRef
from mlops_assets.release_check import find_void
from mlops_assets.statements import stamp
from mlops_assets.verdicts import PASS, Criterion, read_gate

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Question:
    """What people are asked about."""

    registered: RegisteredModelRef
    gate: Artifact
    report: Artifact
    criteria: Sequence[Criterion]
    """All that were judged, each of them passed."""
    champion: LedgerEntry | None
    """The champion that the gate compared with, and that the candidate would replace."""
    policy: PromotionSpec
    undone: LedgerEntry | None = None
    """The rollback of this very bundle, of which people are told."""

    @property
    def id(self) -> str:
        """The same for the same question, whenever and by whomever it is asked."""
        return digest_json(
            {
                "model": self.registered.name,
                "version": self.registered.version,
                "bundle": self.registered.bundle.digest,
                "gate": self.gate.digest,
                "champion": self.champion.entry if self.champion else 0,
                "policy": self.policy.model_dump(mode="json"),
            }
        )


def open_request(
    home: Home,
    registered: RegisteredModelRef,
    judged: GateRef,
    policy: PromotionSpec,
    author: str,
    run: str,
    now: datetime,
) -> Standing:
    """The request for a registered candidate, on the gate's result read again from its artifact.

    Raises LineageError unless the gate passed this very bundle against the champion of now.
    """
    gate = read_gate(home.store, judged)
    version = f"version {registered.version} of {registered.name}"
    if gate.verdict != PASS:
        raise LineageError(
            f"There is nothing to approve: the gate's verdict on {version} is {gate.verdict}.",
            "Its summary says which criterion; a candidate that passes is requested by itself.",
        )
    if gate.candidate != registered.bundle.digest:
        raise LineageError(
            f"The gate judged another bundle than {version}.",
            "Materialise `registered_model` again.",
        )
    champion = home.ledger.champion(registered.name)
    compared = _own(home, registered.name, gate.champion)
    if compared != (champion.decision.bundle.digest if champion else None):
        raise LineageError(
            f"The champion changed since the gate compared {version} with it.",
            MEET_THE_NEW_CHAMPION,
        )
    undone = find_undone(home, registered, judged)
    question = Question(
        registered, judged.artifact, judged.report, gate.criteria, champion, policy, undone
    )
    found = ask(home, question, author, run, now)
    if found.state == OPEN:
        logger.info("%s waits for approval until %s", version, stamp(found.request.terms.expires))
    elif found.state != PROMOTED:
        logger.warning("%s is not asked about again: %s", version, found.reason)
    return found


def _own(home: Home, model: str, compared: str | None) -> str | None:
    """The champion compared with, None when it only ever was another model's."""
    own = {row.decision.bundle.digest for row in home.ledger.promotions(model)}
    others = {row.decision.bundle.digest for row in home.ledger.promotions()}
    return None if compared in others - own else compared


def ask(home: Home, question: Question, author: str, run: str, now: datetime) -> Standing:
    """The request that asks this question, found or appended, and where it stands.

    ``author`` is who made the change (an e-mail or a name, empty if unknown), ``run`` the Dagster
    run that asks.
    """
    approvers = read_approvers(home)
    entries = home.ledger.entries()
    earlier = [row for row in entries if row.decision.evidence.get("question") == question.id]
    if earlier:
        found = standing(entries, Request.of(earlier[-1]), approvers, now)
        if found.state not in (EXPIRED, SUPERSEDED):
            return found
    request = _decision(question, len(earlier), author, run, now)
    row = home.ledger.append(request, now)
    return standing(home.ledger.entries(), Request.of(row), approvers, now)


def _decision(question: Question, attempt: int, author: str, run: str, now: datetime) -> Decision:
    registered, champion = question.registered, question.champion
    count = len(question.criteria)
    passed = "the one criterion" if count == 1 else f"all {count} criteria"
    evidence: dict[str, Any] = {
        "question": question.id,
        "expires": stamp(now + timedelta(hours=question.policy.request_hours)),
        "replaces": champion.entry if champion else 0,
        "champion": champion.decision.bundle.digest if champion else None,
        "author": author,
        "policy": question.policy.model_dump(mode="json"),
        "gate": _name(question.gate),
        "report": _name(question.report),
        "criteria": [_criterion(criterion) for criterion in question.criteria],
        "requested_in_run": run,
    }
    return Decision(
        key=digest_json({"question": question.id, "attempt": attempt}),
        outcome=REQUESTED,
        reason=f"passed {passed} of the gate{_since(question.undone)}",
        model=registered.name,
        version=registered.version,
        bundle=registered.bundle,
        evidence=evidence,
    )


def _since(undone: LedgerEntry | None) -> str:
    if undone is None:
        return ""
    return f", and was rolled back since (ledger entry {undone.entry}: {undone.decision.reason})"


def _name(artifact: Artifact) -> dict[str, str]:
    return {"kind": artifact.kind, "key": artifact.key, "digest": artifact.digest}


def _criterion(criterion: Criterion) -> dict[str, str]:
    return {"name": criterion.name, "verdict": criterion.verdict, "detail": criterion.detail}


def reference(found: Standing) -> DecisionRef:
    """What the asset hands on of a request."""
    row = found.request.entry
    expires = stamp(found.request.terms.expires)
    bundle = row.decision.bundle.digest
    return DecisionRef(row.entry, found.state, row.decision.version, bundle, expires)


def as_champion(home: Home, registered: RegisteredModelRef) -> LedgerEntry | None:
    """The champion, where it is this very bundle and its approval still holds.

    Where the approval is void (an approver was taken off the list) people are asked anew.
    """
    champion = home.ledger.champion(registered.name)
    if champion is None or champion.decision.bundle.digest != registered.bundle.digest:
        return None
    if void := find_void(home, champion):
        logger.warning("the approval of version %d is void: %s", registered.version, void)
        return None
    return champion


def find_undone(home: Home, registered: RegisteredModelRef, judged: GateRef) -> LedgerEntry | None:
    """The rollback of this very bundle, where the gate has said nothing new of it since.

    On the evidence that let it pass before no machine approves it again; people are asked, and
    told of the rollback.
    """
    entries = [row for row in home.ledger.entries() if row.decision.model == registered.name]
    digest = registered.bundle.digest
    ours = [row for row in entries if row.decision.bundle.digest == digest]
    named = [row.entry for row in ours if row.decision.outcome in CHAMPIONS]
    promoted = [row for row in ours if row.decision.outcome == PROMOTED]
    if not promoted:
        return None
    request = find_request(entries, str(promoted[-1].decision.evidence.get("request")))
    if request is None or request.gate.digest != judged.artifact.digest:
        return None
    return next(
        (
            row
            for row in entries
            if row.decision.outcome == ROLLED_BACK and row.decision.replaces == named[-1]
        ),
        None,
    )


def rolled_back(undone: LedgerEntry, registered: RegisteredModelRef) -> DecisionRef:
    """What it hands on of a bundle that was rolled back."""
    logger.warning(
        "no machine approves version %d again: it was rolled back at %s (%s)",
        registered.version,
        undone.at,
        undone.decision.reason,
    )
    bundle = registered.bundle.digest
    return DecisionRef(undone.entry, ROLLED_BACK, registered.version, bundle, "")


def nothing_to_ask(champion: LedgerEntry, registered: RegisteredModelRef) -> DecisionRef:
    """What it hands on of a bundle that is the champion already."""
    logger.info("version %d is the champion since %s", registered.version, champion.at)
    bundle = registered.bundle.digest
    return DecisionRef(champion.entry, PROMOTED, registered.version, bundle, "")


def not_requested(registered: RegisteredModelRef, verdict: str) -> DecisionRef:
    """What it hands on where a profile lets a run go on although the gate did not pass."""
    logger.warning("nobody is asked: the gate's verdict is %s", verdict)
    state, bundle = verdict.lower(), registered.bundle.digest
    return DecisionRef(0, state, registered.version, bundle, "")
