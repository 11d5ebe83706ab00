"""What the gate makes of the language model that judged a sample of the answers.

A judge that agrees with people too little has no vote: that is said, and decides nothing. A judge
that was asked and did not give every verdict (it timed out, or wrote something else) leaves the
gate inconclusive: silence is no approval.
"""

from collections.abc import Mapping
from typing import Any

from mlops_assets.evaluation.gate_evidence import JUDGE, OURS, Evidence, Suite
from mlops_assets.verdicts import INCONCLUSIVE, Criterion


def judge_silence(evidence: Evidence) -> tuple[list[Criterion], list[str]]:
    """The criterion of a judge without a verdict, the note of one without a vote, or neither."""
    section = _section(evidence)
    reason = str(section.get("reason"))
    if not section.get("configured") or section.get("vote") is True:
        return [], []
    if section.get("complete") is True:
        return [], [f"The judge has no vote. {reason}"]
    return [Criterion(JUDGE, INCONCLUSIVE, f"the judge gave no verdict: {reason}")], []


def judged_answers(evidence: Evidence) -> Suite | None:
    """The answers with the judge's scores as a suite of their own, if it has a vote.

    It is empty, hence without a verdict, where the records do not hold what the report promises.
    """
    import numpy as np

    section = _section(evidence)
    if section.get("vote") is not True:
        return None
    found: dict[str, list[Any]] = {}
    for suite in evidence.suites.values():
        systems = suite.scores.get(JUDGE, {})
        judged = [np.isfinite(given) for given in systems.values()]
        if judged:
            asked = np.logical_or.reduce(judged)
            for system, given in systems.items():
                found.setdefault(system, []).append(given[asked])
    scores = {system: np.concatenate(parts) for system, parts in found.items()}
    items = len(scores.get(OURS, ()))
    if items != section.get("rows"):
        return Suite(JUDGE, JUDGE, 0, JUDGE)
    return Suite(JUDGE, JUDGE, items, JUDGE, {JUDGE: scores})


def _section(evidence: Evidence) -> Mapping[str, Any]:
    section = evidence.report.get(JUDGE)
    return section if isinstance(section, Mapping) else {}
