"""Splits: rows keep their side, and test texts stay out of train."""

import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.artifacts import ArtifactStore, LineageError
from mlops_assets.dataset import expectations, leakage, sources, splits, validation
from mlops_assets.dataset.spec import RawDatasetSpec
from mlops_assets.dataset.splits import SplitSpec
from mlops_assets.near_duplicates import normalised
from mlops_assets.refs import Row, SplitsRef, ValidatedRef, read_rows, write_jsonl

BANKING77 = os.environ.get("BANKING77_DIR", "")
needs_banking77 = pytest.mark.skipif(not BANKING77, reason="BANKING77_DIR is not set")


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "home" / "artifacts")


def row(number: int, group: str, text: str | None = None, split: str | None = None) -> Row:
    messages = (
        {"role": "user", "content": text or f"text {number}"},
        {"role": "assistant", "content": "{}"},
    )
    return Row(f"r-{number}", "", group, messages, {}, split)


@given(st.lists(st.text(max_size=8), min_size=1, unique=True), st.text(max_size=3))
def test_adding_rows_never_moves_one(groups: list[str], salt: str) -> None:
    spec = SplitSpec(salt=salt)
    rows = [row(number, group) for number, group in enumerate(groups)]
    before = {item.id: splits.split_of(item, spec) for item in rows[: len(rows) // 2]}
    after = {item.id: splits.split_of(item, spec) for item in rows}
    assert before.items() <= after.items()


@given(st.text(max_size=8), st.sampled_from(["train", "test"]))
def test_pinned_rows_stay_on_their_side(group: str, pinned: str) -> None:
    assigned = splits.split_of(row(1, group, split=pinned), SplitSpec())
    assert (assigned == "test") == (pinned == "test")


def test_empty_split_is_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", (row(number, "one customer") for number in range(50)))
    parts = {name: splits.Part(()) for name in splits.SPLITS}
    with pytest.raises(LineageError, match=r"split \w+ is empty \(50 rows"):
        list(splits.deal(tmp_path / "rows.jsonl", tmp_path, SplitSpec(), parts))


def write_csv(folder: Path, train: list[tuple[str, str]], test: list[tuple[str, str]]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, rows in (("train", train), ("test", test)):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([("text", "category"), *rows])
    return folder


def split_csv(
    store: ArtifactStore, folder: Path, **settings: Any
) -> tuple[ValidatedRef, SplitsRef]:
    raw = sources.observe(RawDatasetSpec(path=str(folder), format="labelled_csv"))
    limits: dict[str, Any] = {"labels": {"intent": []}, "require_timestamp": False} | settings
    ref = validation.validate(store, raw, expectations.ValidationSpec(**limits))
    return ref, splits.split(store, ref, SplitSpec())


def test_test_texts_that_stand_in_train_are_set_aside(store: ArtifactStore, tmp_path: Path) -> None:
    train = [(f"train question {n}\nsecond line", "ab"[n % 2]) for n in range(60)]
    test = [(f"test question {n}", "ab"[n % 2]) for n in range(20)]
    leaks = [("\nTRAIN question 1\nsecond line", "b"), ("train question  2 second line", "a")]
    folder = write_csv(tmp_path / "csv", train, [*test, *leaks, test[3]])
    ref, result = split_csv(store, folder, min_rows=10)
    assert ref.quarantined == {
        "also_in_train": 1,
        "also_in_train_but_for_spaces": 1,
        "duplicate_text": 1,
    }
    assert result.rows["test"] == 20
    assert result.labels == {"intent": ("a", "b")}


@needs_banking77
def test_banking77(store: ArtifactStore) -> None:
    ref, result = split_csv(store, Path(BANKING77))
    assert ref.rows_in == 13_083
    # Six ignoring case, a seventh ignoring double spaces; 4 + 1 repeats within a file.
    assert ref.quarantined == {
        "also_in_train": 6,
        "also_in_train_but_for_spaces": 1,
        "duplicate_text": 5,
    }
    assert result.rows["test"] == 3_080 - 7 - 1
    assert result.rows["train"] + result.rows["validation"] == 10_003 - 4
    leaks = leakage.report(store, result)
    # Exact Jaccard finds 24; most of them differ in a hyphen or an apostrophe.
    assert leaks["splits"]["test"]["near"] == pytest.approx(24, abs=10)
    assert leakage.judge(leaks, result.artifact.summary["limits"]).passed
    categories = json.loads((Path(BANKING77) / "categories.json").read_text())
    assert list(result.labels["intent"]) == categories
    tested = {
        normalised(item.prompt[0]["content"])
        for item in read_rows(store.path(result.artifact) / "test.jsonl")
    }
    for name in ("train", "validation"):
        for item in read_rows(store.path(result.artifact) / f"{name}.jsonl"):
            assert normalised(item.prompt[0]["content"]) not in tested
            assert item.split == "train"
