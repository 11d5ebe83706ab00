"""The gate: may a person be asked to promote this candidate? PASS, FAIL or INCONCLUSIVE.

It decides on the report's artifact and on the recorded checks alone, never on memory, so the
same evidence gives the same result, which is an artifact: ``gate.json`` for the stages that
follow, ``summary.md`` for a pull request, ``junit.xml`` for a CI service. A candidate passes when
every criterion passes; a criterion without the numbers it needs is inconclusive.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlops_assets.artifacts import SHORT, ArtifactStore, LineageError, Recipe, digest_json
from mlops_assets.checks import (
    NO_LEAKAGE,
    TEMPLATE_FIDELITY,
    CheckResult,
    adapter_on_base,
    find_check,
)
from mlops_assets.code_digest import code_digest
from mlops_assets.evaluation.gate_comparison import judge_against_champion, judge_parts
from mlops_assets.evaluation.gate_evidence import Evidence, read_evidence
from mlops_assets.evaluation.gate_floors import (
    judge_ceilings,
    judge_checks,
    judge_completeness,
    judge_floors,
)
from mlops_assets.evaluation.gate_judge import judge_silence
from mlops_assets.evaluation.gate_spec import GateSpec
from mlops_assets.evaluation.gate_summary import write_junit, write_summary
from mlops_assets.evaluation.report import read_report
from mlops_assets.ledger import FAILED, INCONCLUSIVE, PASSED, Decision, Ledger, LedgerEntry
from mlops_assets.refs import EvalReportRef, GateRef
from mlops_assets.verdicts import FAIL, GATE, PASS, Criterion, Gate, overall

LIBRARIES = ("numpy", "scipy", "junitparser")
OUTCOMES = {PASS: PASSED, FAIL: FAILED}
Checks = Mapping[str, CheckResult | None]


def judge(
    evidence: Evidence, checks: Checks, spec: GateSpec
) -> tuple[tuple[Criterion, ...], tuple[str, ...]]:
    """Every criterion with its verdict, and notes that decide nothing."""
    parts, notes = judge_parts(evidence, spec)
    silence, voiceless = judge_silence(evidence)
    criteria = (
        *judge_completeness(evidence, spec),
        *judge_against_champion(evidence, spec),
        *judge_floors(evidence, spec),
        *parts,
        *silence,
        *judge_ceilings(evidence, spec),
        *judge_checks(checks),
    )
    skipped = [f"Suite {name} was not run: {why}" for name, why in evidence.not_applied.items()]
    return criteria, (*notes, *voiceless, *skipped)


def decide_gate(
    store: ArtifactStore, checks: Path, evaluated: EvalReportRef, spec: GateSpec
) -> GateRef:
    """The gate's result on a report; ``checks`` is the directory of recorded checks.

    Raises LineageError when the report is missing, was changed, or is of another candidate or
    champion than its reference says.
    """
    results = _find_checks(store, checks, evaluated)
    known = {name: asdict(result) if result else None for name, result in results.items()}
    recipe = Recipe(
        "gate_verdict",
        {
            "report": evaluated.artifact.digest,
            "candidate": evaluated.bundle.digest,
            "champion": evaluated.champion or "",
            "checks": digest_json(known),
        },
        spec.model_dump(mode="json"),
        code_digest(__name__),
        LIBRARIES,
    )

    def produce(directory: Path) -> dict[str, Any]:
        evidence = read_evidence(store, evaluated.artifact)
        criteria, notes = judge(evidence, results, spec)
        gate = Gate(
            overall(criteria),
            evaluated.bundle.digest,
            evaluated.artifact.digest,
            evaluated.champion,
            criteria,
            spec.model_dump(mode="json"),
            notes,
        )
        text = json.dumps(asdict(gate), allow_nan=False, ensure_ascii=False, indent=1)
        (directory / GATE).write_text(text, "utf-8")
        write_summary(directory, gate, evidence.test.items)
        write_junit(directory, gate)
        return {"verdict": gate.verdict}

    artifact = store.build(recipe, produce)
    verdict = str(artifact.summary["verdict"])
    return GateRef(artifact, evaluated.bundle, evaluated.artifact, evaluated.champion, verdict)


def record_verdict(ledger: Ledger, model: str, ref: GateRef, gate: Gate) -> LedgerEntry | None:
    """The verdict's row on the ledger; the same verdict on the same evidence is one row.

    That the champion still passes changes nothing for anybody, and gets no row.
    """
    if gate.verdict == PASS and gate.champion == gate.candidate:
        return None
    undone = [item.name for item in gate.criteria if item.verdict != PASS]
    return ledger.append(
        Decision(
            key=digest_json({"model": model, "gate": ref.artifact.digest}),
            outcome=OUTCOMES.get(gate.verdict, INCONCLUSIVE),
            reason=headline(gate),
            model=model,
            version=0,
            bundle=ref.bundle,
            evidence={
                "gate": {"key": ref.artifact.key, "digest": ref.artifact.digest},
                "report": {"key": ref.report.key, "digest": ref.report.digest},
                "champion": gate.champion,
                "criteria": len(gate.criteria),
                "not_passed": undone,
            },
        )
    )


def headline(gate: Gate) -> str:
    """The verdict in one sentence, with what decided it."""
    undone = [item for item in gate.criteria if item.verdict != PASS]
    if not undone:
        return f"{gate.verdict}: all {len(gate.criteria)} criteria pass"
    first = next((item for item in undone if item.verdict == FAIL), undone[0])
    more = f"; {len(undone) - 1} more in the summary" if len(undone) > 1 else ""
    return f"{gate.verdict}: {first.name}: {first.detail}{more}"


def _find_checks(store: ArtifactStore, checks: Path, evaluated: EvalReportRef) -> Checks:
    report = read_report(store, evaluated.artifact)
    said = (evaluated.bundle.digest, evaluated.champion)
    if said != (report.get("candidate"), report.get("champion")):
        raise LineageError(
            f"The report {evaluated.artifact.key[:SHORT]} is of another candidate or champion than"
            " its reference says.",
            "Materialise `eval_report` again.",
        )
    provenance = report.get("provenance") or {}
    looked_at = {
        NO_LEAKAGE: str(provenance.get("splits")),
        TEMPLATE_FIDELITY: adapter_on_base(evaluated.bundle.base, evaluated.bundle.adapter),
    }
    return {name: find_check(checks, name, digest) for name, digest in looked_at.items()}
