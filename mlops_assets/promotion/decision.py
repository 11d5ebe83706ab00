"""From a registered candidate to a row in the decision ledger.

Deciding again is harmless: the row's key is made of the bundle, the report's content, the
policy and the champion compared with, so the same question finds the answer that was given.
A candidate that already is the champion gets no second row.
"""

import logging
from dataclasses import asdict
from typing import Any

from mlops_assets.artifacts import ArtifactStore, LineageError, digest_json
from mlops_assets.ledger import KEPT, NO_VERDICT, PROMOTED, Decision, Ledger, LedgerEntry
from mlops_assets.promotion.evidence import Evidence, NoEvidence, read_evidence
from mlops_assets.promotion.policy import VERSION, Judgement, PromotionSpec, judge
from mlops_assets.refs import DecisionRef, EvalReportRef, RegisteredModelRef

logger = logging.getLogger(__name__)


def decide(
    store: ArtifactStore,
    ledger: Ledger,
    registered: RegisteredModelRef,
    evaluated: EvalReportRef,
    spec: PromotionSpec,
    run: str,
) -> DecisionRef:
    """Judge the candidate on its report and write the decision down.

    ``run`` is the Dagster run that asks. Raises LineageError when the report was changed, is
    of another bundle, or when another process promoted something meanwhile.
    """
    _check_inputs(registered, evaluated)
    champion = ledger.champion(registered.name)
    store.path(evaluated.artifact)  # a changed report is an error, decided upon or not
    if champion and champion.decision.bundle.digest == registered.bundle.digest:
        reason = f"already the champion since {champion.at}"
        return _ref(champion, registered, PROMOTED, reason)
    key = _key(registered, evaluated, spec, champion)
    if earlier := ledger.find(key):
        return _again(earlier, registered)
    evidence, judgement = _judge(store, ledger, registered, evaluated, spec, champion)
    entry = ledger.append(
        Decision(
            key=key,
            outcome=judgement.outcome,
            reason=judgement.reason,
            model=registered.name,
            version=registered.version,
            bundle=registered.bundle,
            evidence=_written(evidence, judgement, evaluated, spec) | {"decided_in_run": run},
            replaces=_replaced(judgement, champion),
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


def _check_inputs(registered: RegisteredModelRef, evaluated: EvalReportRef) -> None:
    if registered.bundle.digest != evaluated.bundle.digest:
        raise LineageError(
            f"Version {registered.version} of {registered.name} is not the bundle that the"
            " report measured.",
            "Materialise `registered_model` again.",
        )


def _judge(
    store: ArtifactStore,
    ledger: Ledger,
    registered: RegisteredModelRef,
    evaluated: EvalReportRef,
    spec: PromotionSpec,
    champion: LedgerEntry | None,
) -> tuple[Evidence | None, Judgement]:
    try:
        evidence = read_evidence(store, evaluated.artifact)
    except NoEvidence as error:
        return None, Judgement(NO_VERDICT, str(error))
    if evidence.candidate != registered.bundle.digest:
        return evidence, Judgement(NO_VERDICT, "the report is of another bundle")
    against = champion.decision.bundle.digest if champion else None
    compared = _own(ledger, registered.name, evidence.champion)
    if compared != against:
        reason = "the champion changed after the report: evaluate again"
        return evidence, Judgement(NO_VERDICT, reason)
    return evidence, judge(evidence, against, spec)


def _own(ledger: Ledger, model: str, compared: str | None) -> str | None:
    """The champion compared with, None when it only ever was another model's."""
    others = {
        row.decision.bundle.digest for row in ledger.promotions() if row.decision.model != model
    }
    own = {row.decision.bundle.digest for row in ledger.promotions(model)}
    return None if compared in others - own else compared


def _key(
    registered: RegisteredModelRef,
    evaluated: EvalReportRef,
    spec: PromotionSpec,
    champion: LedgerEntry | None,
) -> str:
    return digest_json(
        {
            "model": registered.name,
            "bundle": registered.bundle.digest,
            "report": evaluated.artifact.digest,
            "policy": spec.model_dump(mode="json") | {"version": VERSION},
            "champion": champion.decision.bundle.digest if champion else None,
        }
    )


def _replaced(judgement: Judgement, champion: LedgerEntry | None) -> int | None:
    if judgement.outcome != PROMOTED:
        return None
    return champion.entry if champion else 0


def _written(
    evidence: Evidence | None, judgement: Judgement, evaluated: EvalReportRef, spec: PromotionSpec
) -> dict[str, Any]:
    """The evidence as the ledger keeps it: enough to check the decision without the store."""
    written: dict[str, Any] = {
        "report": {"key": evaluated.artifact.key, "digest": evaluated.artifact.digest},
        "policy": spec.model_dump(mode="json") | {"version": VERSION},
        "numbers": judgement.numbers,
    }
    if evidence is None:
        return written
    return written | {
        "items": evidence.items,
        "trained_by": dict(evidence.trained_by),
        "exact_match": dict(evidence.exact_match),
        "champion": evidence.champion,
        "floors": [asdict(floor) for floor in evidence.floors],
    }


def _ref(
    entry: LedgerEntry, registered: RegisteredModelRef, outcome: str, reason: str
) -> DecisionRef:
    return DecisionRef(entry.entry, outcome, reason, registered.version, registered.bundle.digest)
