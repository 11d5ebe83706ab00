"""What `mlops prune` deletes, and what it never does."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from mlops_assets.artifacts import Artifact, LineageError
from mlops_assets.cli import app
from mlops_assets.home import Home
from mlops_assets.ledger import (
    APPROVED,
    FAILED,
    INCONCLUSIVE,
    PASSED,
    PROMOTED,
    REJECTED,
    REQUESTED,
)
from mlops_assets.promotion import registry
from mlops_assets.promotion.pruning import prune
from mlops_assets.promotion.spec import RetentionSpec
from mlops_assets.ref_json import dump_ref
from mlops_assets.refs import RegisteredModelRef
from mlops_assets.serving.engines.served_model import served_recipe
from mlops_assets_tests.retention_rows import NOTHING_SPARED, lies, parts, write_row
from mlops_assets_tests.submissions import NAME, build, client, make_submission, register


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


def test_what_was_found_of_kept_rows_stays_with_them(home: Home) -> None:
    kept = make_submission(home)
    others = build(home.store, "dataset_splits", "others", {"test.jsonl": "{1}"})
    findings = [
        build(home.store, "leakage_report", "x", {"l.json": rows.digest}, splits=rows.digest)
        for rows in (kept.splits.artifact, others)
    ]
    write_row(home, kept, PROMOTED)
    prune(home, NOTHING_SPARED, delete=True)
    assert [lies(home, found) for found in findings] == [True, False]


def test_the_served_model_of_a_release_in_force_stays(home: Home) -> None:
    released, refused = make_submission(home, "a"), make_submission(home, "b")
    served = [
        home.store.build(served_recipe(each.evaluated.bundle), lambda _: {})
        for each in (released, refused)
    ]
    write_row(home, released, PROMOTED)
    write_row(home, refused, FAILED)
    prune(home, NOTHING_SPARED, delete=True)
    assert [lies(home, artifact) for artifact in served] == [True, False]


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
