"""What `mlops prune` deletes, and what it never does."""

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from mlops_assets.artifacts import Artifact, LineageError
from mlops_assets.cli import app
from mlops_assets.home import Home, run_lock
from mlops_assets.ledger import (
    APPROVED,
    FAILED,
    INCONCLUSIVE,
    PASSED,
    PROMOTED,
    REJECTED,
    REQUESTED,
    Decision,
)
from mlops_assets.promotion import pruning, registry
from mlops_assets.promotion.pruning import prune
from mlops_assets.promotion.retention import RetentionSpec, trash
from mlops_assets.promotion.submission import Submission
from mlops_assets.ref_json import dump_ref
from mlops_assets.refs import RegisteredModelRef
from mlops_assets_tests.submissions import NAME, build, client, make_submission, register

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


@pytest.mark.parametrize("outcome", [PROMOTED, REQUESTED, APPROVED, PASSED, "unheard of"])
def test_what_a_decision_in_force_names_stays_and_verifies(home: Home, outcome: str) -> None:
    named, other = make_submission(home, "a"), make_submission(home, "b")
    write_row(home, named, outcome)
    prune(home, NOTHING_SPARED, delete=True)
    for artifact in parts(named).values():
        home.store.path(artifact)
    assert not lies(home, other.evaluated.bundle.adapter)
    assert not lies(home, other.evaluated.artifact)


@pytest.mark.parametrize("outcome", [FAILED, INCONCLUSIVE, REJECTED])
def test_of_a_refused_candidate_the_evidence_stays_and_the_weights_may_go(
    home: Home, outcome: str
) -> None:
    refused = make_submission(home, "a")
    write_row(home, refused, outcome)
    prune(home, NOTHING_SPARED, delete=True)
    left = {role for role, artifact in parts(refused).items() if lies(home, artifact)}
    assert left == {"report", "gate"}


def test_what_the_latest_refs_name_stays_with_its_inputs(home: Home) -> None:
    submission = make_submission(home)
    home.write_ref("lora_adapter", "run", dump_ref(submission.adapter))
    prune(home, NOTHING_SPARED, delete=True)
    left = {role for role, artifact in parts(submission).items() if lies(home, artifact)}
    assert left == {"adapter", "base", "splits", "prompt"}


def test_data_is_found_by_its_address_and_by_the_hash_of_its_rows(home: Home) -> None:
    address = f"hf://datasets/owner/data@{'a' * 40}/x.jsonl"
    source = build(home.store, "source", "s", {"x.jsonl": "{}\n"}, address=address)
    rows = build(
        home.store, "validated_dataset", "v", {"rows.jsonl": "a row", "quarantine.jsonl": ""}
    )
    listed = json.loads((home.store.path(rows) / "manifest.json").read_text())["files"]
    sha256 = next(entry["sha256"] for entry in listed if entry["path"] == "rows.jsonl")
    settings = json.dumps({"raw_dataset": {"path": address}})
    empty = build(
        home.store, "validated_dataset", "w", {"rows.jsonl": "others", "quarantine.jsonl": ""}
    )
    build(home.store, "dataset_splits", "x", {"t": "t"}, {"settings": settings}, rows=sha256)
    newest = RetentionSpec(keep_newest=1, keep_days=0)
    for place, age in ((rows, 300), (empty, 200), (source, 300)):
        touch(home, place, age)
    build(home.store, "source", "t", {"y.jsonl": "{}\n"}, address="elsewhere")
    build(home.store, "validated_dataset", "y", {"rows.jsonl": "newest"})
    prune(home, newest, delete=True)
    assert lies(home, source)
    assert lies(home, rows)
    assert not lies(home, empty)


def touch(home: Home, artifact: Artifact, days: float) -> None:
    """Let an artifact be so many days old."""
    manifest = home.store.root / artifact.kind / artifact.key / "manifest.json"
    then = time.time() - days * 86_400
    os.utime(manifest, (then, then))


@pytest.mark.parametrize(
    ("spec", "left"),
    [
        (RetentionSpec(keep_newest=2, keep_days=0), {0, 1}),
        (RetentionSpec(keep_newest=0, keep_days=25), {0, 1, 2}),
        (RetentionSpec(keep_newest=4, keep_days=15), {0, 1, 2, 3}),
        (RetentionSpec(keep_newest=0, keep_days=0), set()),
    ],
)
def test_the_newest_and_the_young_stay(home: Home, spec: RetentionSpec, left: set[int]) -> None:
    made = [build(home.store, "predictions", str(age), {"a": str(age)}) for age in range(6)]
    for age, artifact in enumerate(made):
        touch(home, artifact, age * 10 + 1)
    prune(home, spec, delete=True)
    assert {age for age, artifact in enumerate(made) if lies(home, artifact)} == left


def test_a_dry_run_deletes_nothing_and_says_the_same(home: Home) -> None:
    submission = make_submission(home)
    planned = prune(home, NOTHING_SPARED, delete=False)
    assert not planned.deleted
    assert all(lies(home, artifact) for artifact in parts(submission).values())
    assert prune(home, NOTHING_SPARED, delete=True).plan == planned.plan
    assert planned.plan.size > 0
    assert not list(home.store.root.glob("*/*"))


def test_nothing_is_deleted_while_a_run_is_at_work(home: Home) -> None:
    submission = make_submission(home)
    child = os.fork()
    if child == 0:  # another process, which the kernel's lock tells from ours
        run_lock.hold(home, "run-at-work")
        (home.root / "held").touch()
        time.sleep(30)
        os._exit(0)
    try:
        while not (home.root / "held").exists():
            time.sleep(0.01)
        with pytest.raises(LineageError, match="is at work"):
            prune(home, NOTHING_SPARED, delete=True)
        assert prune(home, NOTHING_SPARED, delete=False).plan.delete
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert all(lies(home, artifact) for artifact in parts(submission).values())
    prune(home, NOTHING_SPARED, delete=True)  # the kernel freed the lock


def test_what_dead_runs_left_is_deleted(home: Home) -> None:
    finished = build(home.store, "lora_adapter", "a", {"x": "x"})
    unsealed = home.store.root / "eval_report" / ".0123456789ab-cdef"
    over, given_up, going_on = (
        home.store.checkpoints / key for key in (finished.key, "b" * 64, "c" * 64)
    )
    for folder in (unsealed, over, given_up, going_on):
        folder.mkdir(parents=True)
        (folder / "state").write_text("state")
    long_ago = time.time() - 40 * 86_400
    for path in (given_up / "state", given_up):
        os.utime(path, (long_ago, long_ago))
    prune(home, RetentionSpec(), delete=True)
    assert not any(folder.exists() for folder in (unsealed, over, given_up))
    assert going_on.exists()
    assert lies(home, finished)


def test_a_crash_in_the_middle_leaves_nothing_that_looks_whole(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [build(home.store, "predictions", str(seed), {"a": "a", "b": "b"}) for seed in range(3)]
    whole: Callable[..., None] = shutil.rmtree

    def die_halfway(path: Path) -> None:
        (path / "manifest.json").unlink(missing_ok=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(pruning.shutil, "rmtree", die_halfway)
    with pytest.raises(KeyboardInterrupt):
        prune(home, NOTHING_SPARED, delete=True)
    left = [artifact for artifact in made if lies(home, artifact)]
    assert len(left) == 2
    for artifact in left:
        home.store.path(artifact)
    assert len(list(trash(home).iterdir())) == 1
    monkeypatch.setattr(pruning.shutil, "rmtree", whole)
    assert "trash" in {item.what for item in prune(home, NOTHING_SPARED, delete=True).plan.delete}
    assert not list(trash(home).iterdir())


def test_versions_leave_the_registry_and_a_rollback_stays_possible(tracked_home: Home) -> None:
    home = tracked_home
    champions = [make_submission(home, seed) for seed in ("a", "b")]
    others = [make_submission(home, seed) for seed in ("c", "d")]
    for number, submission in enumerate([*champions, *others], 1):
        assert register(home, submission) == number
    for number, submission in enumerate(champions, 1):
        write_row(home, submission, PROMOTED, number)
    registry.reconcile(home, NAME)
    newest = others[-1].evaluated
    ref = RegisteredModelRef(NAME, 4, newest.bundle, newest.artifact)
    home.write_ref("registered_model", "run", dump_ref(ref))
    pruned = prune(home, NOTHING_SPARED, delete=True)
    assert "support-tickets version 3" in {item.name for item in pruned.plan.delete}
    connection = client(home)
    left = {int(found.version) for found in connection.search_model_versions(f"name = '{NAME}'")}
    assert left == {1, 2, 4}
    assert len(list(home.mlflow_artifacts.glob("*/artifacts/bundle-*"))) == 3
    # Back to the champion before: its bytes verify, and the alias finds its version.
    for artifact in parts(champions[0]).values():
        home.store.path(artifact)
    entry = home.ledger.champion(NAME)
    assert entry is not None
    first = champions[0].evaluated.bundle
    rollback = replace(entry.decision, key="back", bundle=first, version=1, replaces=entry.entry)
    home.ledger.append(rollback)
    assert registry.reconcile(home, NAME)["champion"] == 1
    assert connection.get_model_version_by_alias(NAME, "champion").version == 1
    assert prune(home, NOTHING_SPARED, delete=False).plan.delete == ()


def test_another_projects_versions_are_left_alone(tracked_home: Home) -> None:
    connection = client(tracked_home)
    connection.create_registered_model("theirs")
    connection.create_model_version("theirs", source="file:///elsewhere/model")
    kept = prune(tracked_home, NOTHING_SPARED, delete=True).plan.keep
    assert [(item.name, item.reason) for item in kept] == [
        ("theirs version 1", "not one of this project's")
    ]


def test_a_ledger_that_cannot_be_read_stops_it(home: Home) -> None:
    submission = make_submission(home)
    (home.root / "ledger.db").write_text("no database at all, only text that stands in its place")
    with pytest.raises(LineageError, match="cannot be used"):
        prune(home, NOTHING_SPARED, delete=True)
    assert all(lies(home, artifact) for artifact in parts(submission).values())


def test_the_command_shows_what_goes_and_why_the_rest_stays(home: Home) -> None:
    kept, gone = make_submission(home, "a"), make_submission(home, "b")
    write_row(home, kept, PROMOTED, 1)
    words = ["prune", "--keep-newest", "0", "--keep-days", "0"]
    shown = CliRunner().invoke(app, words).output
    assert f"lora_adapter {gone.adapter.artifact.key[:12]}" in shown
    assert "nothing in force names it" in shown
    assert "ledger entry 1 (promoted)" in shown
    assert "Nothing was deleted: --delete does it." in shown
    found = json.loads(CliRunner().invoke(app, [*words, "--delete", "--json"]).output)
    assert found["deleted"] is True
    assert found["bytes"] == sum(item["size"] for item in found["delete"]) > 0
    assert {item["what"] for item in found["delete"]} == {"artifact"}
    assert all(item["reason"] for item in found["keep"])
    assert not lies(home, gone.adapter.artifact)


def test_no_home_no_prune(tmp_path: Path) -> None:
    with pytest.raises(LineageError, match="There is nothing in"):
        prune(Home(tmp_path / "absent"), NOTHING_SPARED, delete=True)


@pytest.mark.parametrize("setting", [{"keep_newest": -1}, {"keep_days": -1}, {"keep": 1}])
def test_settings_are_bounded(setting: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RetentionSpec(**setting)
