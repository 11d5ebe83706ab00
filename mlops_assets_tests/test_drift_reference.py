"""What production is compared with: which rows, and of which release's training."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.artifacts import Recipe
from mlops_assets.home import Home
from mlops_assets.ledger import PROMOTED, Decision
from mlops_assets.monitoring.drift import reference
from mlops_assets.refs import ReleaseBundle, Row, SplitsRef
from mlops_assets_tests.production_records import make_splits, reference_of
from mlops_assets_tests.release_stories import Story
from mlops_assets_tests.releases import MODEL, make_bundle

LABELS = {"queue": ("a", "b")}


def rows(count: int, name: str = "r", time: str = "") -> list[Row]:
    answer = {"role": "assistant", "content": '{"queue":"a"}'}
    return [
        Row(
            f"{name}{number}",
            time and f"{time}-{number % 28 + 1:02}T00:00:00Z",
            f"{name}{number}",
            ({"role": "user", "content": f"{name} parcel {number}"}, answer),
            {"channel": "web"},
        )
        for number in range(count)
    ]


def ids(home: Home, train: list[Row], **spec: int) -> list[str]:
    made = reference_of(home.store, train, LABELS, **spec)
    sample = reference.reference_sample(home.store.path(made.artifact), len(train))
    return [str(each) for each in sample["id"].to_pylist()]


def test_the_newest_rows_are_compared(home: Home) -> None:
    old, new = rows(300, "old", "2025-12"), rows(200, "new", "2026-02")
    assert set(ids(home, [*new, *old], reference_rows=200)) == {row.id for row in new}


def test_of_rows_without_a_time_some_are_drawn(home: Home) -> None:
    drawn = [ids(home, rows(900), reference_rows=300, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == len(set(drawn[2])) == 300
    assert 50 < len(set(drawn[0]) & set(drawn[2])) < 150  # a third of a third is expected: 100


def test_words_of_the_whole_split_are_known(home: Home) -> None:
    made = reference_of(home.store, [*rows(300, "old"), *rows(200, "new", "2026-02")], LABELS)
    known = reference.read_known(home.store.path(made.artifact))
    assert {"old", "new", "parcel"} <= set(known.vocabulary)
    assert known.slices == {"channel": ["web"]}
    assert known.labels == {"queue": ["a", "b"]}


def trained_on(home: Home, splits: SplitsRef) -> ReleaseBundle:
    """A release whose adapter was made from these splits."""

    def produce(directory: Path) -> dict[str, Any]:
        (directory / "adapter_model.safetensors").write_text("weights")
        return {}

    recipe = Recipe("lora_adapter", {"splits": splits.artifact.digest}, {}, "1")
    return replace(make_bundle(home), adapter=home.store.build(recipe, produce))


def promote(home: Home, bundle: ReleaseBundle) -> None:
    decision = Decision(bundle.digest, PROMOTED, "passed", MODEL, 1, bundle, {}, 0)
    home.ledger.append(decision)


def test_the_reference_is_what_the_release_in_force_was_trained_on(home: Home) -> None:
    older = make_splits(home.store, rows(300, "old"), LABELS)
    latest = make_splits(home.store, rows(300, "new"), {})
    assert reference.release_in_force(home.ledger.entries(), MODEL) is None
    assert reference.splits_of(home.store, None, latest) is latest
    bundle = trained_on(home, older)
    promote(home, bundle)
    release = reference.release_in_force(home.ledger.entries(), MODEL)
    assert release == bundle
    assert reference.release_in_force(home.ledger.entries(), "another") is None
    assert reference.splits_of(home.store, release, latest) == replace(older, settings={})


@pytest.mark.parametrize("trained", [False, True])
def test_a_release_from_elsewhere_is_compared_with_the_latest_splits(
    home: Home, caplog: pytest.LogCaptureFixture, trained: bool
) -> None:
    latest = make_splits(home.store, rows(300), LABELS)
    gone = replace(latest, artifact=replace(latest.artifact, digest="0" * 64))
    bundle = trained_on(home, gone) if trained else make_bundle(home)
    assert reference.splits_of(home.store, bundle, latest) is latest
    assert "is not in the store" in caplog.text


def test_a_candidate_changes_the_reference_when_users_get_it(home: Home) -> None:
    told, in_force = Story(home), []
    for words in ("promote a", "released a", "promote b", "shadow b", "canary b 50", "released b"):
        told.tell(words)
        release = reference.release_in_force(home.ledger.entries(), MODEL)
        assert release is not None
        in_force.append("ab"[release == make_bundle(home, "b")])
    assert in_force == ["a", "a", "a", "a", "a", "b"]
    told.tell("back a")
    assert reference.release_in_force(home.ledger.entries(), MODEL) == make_bundle(home, "a")
