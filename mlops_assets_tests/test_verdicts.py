"""A gate's result is read again from its artifact, and believed only if it adds up."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from mlops_assets.artifacts import Artifact, ArtifactStore, LineageError, Recipe
from mlops_assets.refs import GateRef, ReleaseBundle
from mlops_assets.verdicts import FAIL, GATE, INCONCLUSIVE, PASS, Criterion, overall, read_gate
from mlops_assets_tests.conftest import VERSIONS

PIECE = Artifact("base_model", "k" * 64, "d" * 64)
BUNDLE = ReleaseBundle(PIECE, PIECE, "t" * 64, "p" * 64, {}, VERSIONS)
REPORT = Artifact("eval_report", "e" * 64, "f" * 64)


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ((), INCONCLUSIVE),
        ((PASS, PASS), PASS),
        ((PASS, INCONCLUSIVE), INCONCLUSIVE),
        ((INCONCLUSIVE, FAIL, PASS), FAIL),
        (("MAYBE",), INCONCLUSIVE),
    ],
)
def test_only_a_whole_gate_of_passes_is_a_pass(verdicts: tuple[str, ...], expected: str) -> None:
    assert overall(Criterion(str(i), verdict, "") for i, verdict in enumerate(verdicts)) == expected


def gate(store: ArtifactStore, **changes: object) -> GateRef:
    """A stored gate of one pass, with ``changes`` in its file."""
    content = {
        "verdict": PASS,
        "candidate": BUNDLE.digest,
        "report": REPORT.digest,
        "champion": None,
        "criteria": [asdict(Criterion("floor/x", PASS, "0.9 against 0.8", {"measured": 0.9}))],
        "spec": {"alpha": 0.05},
    }

    def produce(directory: Path) -> dict[str, object]:
        (directory / GATE).write_text(json.dumps(content | changes))
        return {}

    artifact = store.build(Recipe("gate_verdict", {}, {"changes": str(changes)}, "1"), produce)
    return GateRef(artifact, BUNDLE, REPORT, None, PASS)


def test_a_gate_is_read_as_it_was_written(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    found = read_gate(store, gate(store))
    assert (found.verdict, found.spec) == (PASS, {"alpha": 0.05})
    assert found.criteria == (Criterion("floor/x", PASS, "0.9 against 0.8", {"measured": 0.9}),)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"criteria": []}, "does not add up"),
        ({"criteria": [{"name": "a", "verdict": FAIL, "detail": ""}]}, "does not add up"),
        ({"criteria": "none"}, "cannot be read"),
        ({"verdict": None}, "cannot be read"),
        ({"candidate": "c" * 64}, "is not the one"),
        ({"report": "c" * 64}, "is not the one"),
        ({"champion": "c" * 64}, "is not the one"),
    ],
)
def test_a_gate_that_is_at_odds_with_itself_is_refused(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    store = ArtifactStore(tmp_path)
    with pytest.raises(LineageError, match=said):
        read_gate(store, gate(store, **changes))


def test_a_reference_that_promises_more_than_the_artifact_is_refused(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    criterion = {"name": "a", "verdict": FAIL, "detail": ""}
    failed = gate(store, verdict=FAIL, criteria=[criterion])
    with pytest.raises(LineageError, match="is not the one"):
        read_gate(store, failed)
    assert read_gate(store, replace(failed, verdict=FAIL)).verdict == FAIL


def test_a_changed_byte_is_refused(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    ref = gate(store)
    path = store.path(ref.artifact) / GATE
    path.write_text(path.read_text().replace("0.9", "0.8", 1))
    with pytest.raises(LineageError, match="was changed"):
        read_gate(store, ref)
