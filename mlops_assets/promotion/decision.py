"""From a registered candidate to a row in the decision ledger.

The gate's result is read again from its verified artifact. Deciding again is harmless: the row's
key is made of the bundle, the gate and the champion compared with, so the same question finds
the answer that was given. A candidate that already is the champion gets no second row.
"""

import logging
from typing import Any

from mlops_assets.artifacts import ArtifactStore, LineageError, digest_json
from mlops_assets.ledger import KEPT, NO_VERDICT, PROMOTED, Decision, Ledger, LedgerEntry
from mlops_assets.refs import DecisionRef, GateRef, RegisteredModelRef
from mlops_assets.verdicts import FAIL, PASS, Gate, read_gate

logger = logging.getLogger(__name__)


def decide(
    store: ArtifactStore, ledger: Ledger, registered: RegisteredModelRef, judged: GateRef, run: str
) -> DecisionRef:
    """Promote the candidate that passed the gate, and write the decision down.

    ``run`` is the Dagster run that asks. Raises LineageError when the gate's artifact was changed,
    is of another bundle, or when another process promoted something meanwhile.
    """
    gate = read_gate(store, judged)
    if registered.bundle.digest != gate.candidate:
        raise LineageError(
            f"Version {registered.version} of {registered.name} is not the bundle that the"
            " gate judged.",
            "Materialise `registered_model` again.",
        )
    champion = ledger.champion(registered.name)
    if champion and champion.decision.bundle.digest == registered.bundle.digest:
        return _ref(champion, registered, PROMOTED, f"already the champion since {champion.at}")
    key = _key(registered, judged, champion)
    if earlier := ledger.find(key):
        return _again(earlier, registered)
    outcome, reason = _outcome(ledger, registered, gate, champion)
    entry = ledger.append(
        Decision(
            key=key,
            outcome=outcome,
            reason=reason,
            model=registered.name,
            version=registered.version,
            bundle=registered.bundle,
            evidence=_written(judged, gate) | {"decided_in_run": run},
            replaces=(champion.entry if champion else 0) if outcome == PROMOTED else None,
        )
    )
    logger.info("%s: %s", entry.decision.outcome, entry.decision.reason)
    return _ref(entry, registered, entry.decision.outcome, entry.decision.reason)


def _again(earlier: LedgerEntry, registered: RegisteredModelRef) -> DecisionRef:
    """The answer that was given before. What was promoted and then replaced stays replaced:
    somebody, or better evidence, took it back."""
    if earlier.decision.outcome == PROMOTED:
        reason = f"was promoted at {earlier.at} and replaced since; no new evidence"
        return _ref(earlier, registered, KEPT, reason)
    return _ref(earlier, registered, earlier.decision.outcome, earlier.decision.reason)


def _outcome(
    ledger: Ledger, registered: RegisteredModelRef, gate: Gate, champion: LedgerEntry | None
) -> tuple[str, str]:
    against = champion.decision.bundle.digest if champion else None
    if _own(ledger, registered.name, gate.champion) != against:
        return NO_VERDICT, "the champion changed after the gate: evaluate again"
    undone = ", ".join(item.name for item in gate.criteria if item.verdict != PASS)
    if gate.verdict != PASS:
        return KEPT if gate.verdict == FAIL else NO_VERDICT, f"gate {gate.verdict}: {undone}"
    kind = "better than the champion" if champion else "first champion"
    return PROMOTED, f"{kind}: all {len(gate.criteria)} criteria of the gate pass"


def _own(ledger: Ledger, model: str, compared: str | None) -> str | None:
    """The champion compared with, None when it only ever was another model's."""
    others = {
        row.decision.bundle.digest for row in ledger.promotions() if row.decision.model != model
    }
    own = {row.decision.bundle.digest for row in ledger.promotions(model)}
    return None if compared in others - own else compared


def _key(registered: RegisteredModelRef, judged: GateRef, champion: LedgerEntry | None) -> str:
    return digest_json(
        {
            "model": registered.name,
            "bundle": registered.bundle.digest,
            "gate": judged.artifact.digest,
            "champion": champion.decision.bundle.digest if champion else None,
        }
    )


def _written(judged: GateRef, gate: Gate) -> dict[str, Any]:
    """The evidence as the ledger keeps it: enough to check the decision without the store."""
    return {
        "gate": {"key": judged.artifact.key, "digest": judged.artifact.digest},
        "report": {"key": judged.report.key, "digest": judged.report.digest},
        "champion": gate.champion,
        "criteria": [
            {"name": item.name, "verdict": item.verdict, "detail": item.detail}
            for item in gate.criteria
        ],
    }


def _ref(
    entry: LedgerEntry, registered: RegisteredModelRef, outcome: str, reason: str
) -> DecisionRef:
    return DecisionRef(entry.entry, outcome, reason, registered.version, registered.bundle.digest)
