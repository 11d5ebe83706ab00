"""Ledger rows on submissions, and what of them is left, for the tests of `mlops prune`."""

from mlops_assets.artifacts import Artifact
from mlops_assets.home import Home
from mlops_assets.ledger import (
    PROMOTED,
    Decision,
)
from mlops_assets.promotion.spec import RetentionSpec
from mlops_assets.promotion.submission import Submission
from mlops_assets_tests.submissions import NAME

NOTHING_SPARED = RetentionSpec(keep_newest=0, keep_days=0)


def write_row(home: Home, submission: Submission, outcome: str, version: int = 0) -> None:
    """A row of the ledger on a submission, with its evidence."""
    gate, report = submission.gate.artifact, submission.evaluated.artifact
    champion = home.ledger.champion(NAME)
    home.ledger.append(
        Decision(
            key=f"{outcome}{submission.evaluated.bundle.digest}",
            outcome=outcome,
            reason="for the test",
            model=NAME,
            version=version,
            bundle=submission.evaluated.bundle,
            evidence={"gate": name(gate), "report": name(report)},
            replaces=(champion.entry if champion else 0) if outcome == PROMOTED else None,
        )
    )


def name(artifact: Artifact) -> dict[str, str]:
    return {"kind": artifact.kind, "key": artifact.key, "digest": artifact.digest}


def parts(submission: Submission) -> dict[str, Artifact]:
    """Every artifact that a submission names, and those they were made from."""
    bundle = submission.evaluated.bundle
    assert isinstance(bundle.prompt, Artifact)
    return {
        "base": bundle.base,
        "adapter": bundle.adapter,
        "prompt": bundle.prompt,
        "splits": submission.splits.artifact,
        "report": submission.evaluated.artifact,
        "gate": submission.gate.artifact,
    }


def lies(home: Home, artifact: Artifact) -> bool:
    return home.store.find(artifact.kind, artifact.key) is not None
