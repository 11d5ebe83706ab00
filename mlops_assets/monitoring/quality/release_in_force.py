"""The release whose answers are judged, and what its evaluation report measured."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mlops_assets.artifacts import Artifact, ArtifactStore
from mlops_assets.ledger import PASSED, REQUESTED, LedgerEntry
from mlops_assets.release_state import read_release

KIND, REPORT = "eval_report", "report.json"
MEASURED = "tuned"
"""What a report calls the release that it measured."""


@dataclass(frozen=True)
class InForce:
    """What users are served; empty before the first promotion."""

    release: str = ""
    """Digest of the bundle."""
    before: str = ""
    """That of the one before it."""
    report: Artifact | None = None
    """The report that the release was approved by, where the store still has it."""


@dataclass(frozen=True)
class TestScores:
    """How the release answered its test split."""

    __test__ = False  # no test of ours, whatever pytest reads into the name

    items: int = 0
    shares: Mapping[str, float] = field(default_factory=dict)
    """``exact_match``, and ``accuracy/FIELD`` of each field."""
    fields: tuple[str, ...] = ()
    """Of the answers; none where they are free text."""


def find_in_force(store: ArtifactStore, entries: Sequence[LedgerEntry], model: str) -> InForce:
    """What the rows of the ledger say of ``model``."""
    state = read_release(entries, model)
    if state.stable is None:
        return InForce()
    release = state.stable.decision.bundle.digest
    before = state.previous.decision.bundle.digest if state.previous else ""
    return InForce(release, before, _report(store, entries, release))


def read_scores(store: ArtifactStore, report: Artifact | None) -> TestScores:
    """What the report measured. Raises LineageError where its files were changed."""
    if report is None:
        return TestScores()
    content = json.loads((store.path(report) / REPORT).read_bytes())
    fields = {
        f"accuracy/{name}": scores["accuracy"][MEASURED]
        for name, scores in content["fields"].items()
    }
    shares = {"exact_match": content["exact_match"][MEASURED], **fields}
    return TestScores(content["items"], shares, tuple(content["fields"]))


def _report(store: ArtifactStore, entries: Sequence[LedgerEntry], release: str) -> Artifact | None:
    """The last report that a gate or a request names for this bundle."""
    for row in reversed(entries):
        decided = row.decision
        named = decided.evidence.get("report")
        if decided.outcome in (PASSED, REQUESTED) and decided.bundle.digest == release and named:
            found = store.find(KIND, named["key"])
            return found if found and found.digest == named["digest"] else None
    return None
