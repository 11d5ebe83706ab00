"""Leaks between the splits: exact and near, counted, shown, and blocking."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mlops_assets.checks import NO_LEAKAGE, CheckResult, find_check
from mlops_assets.dataset import leakage
from mlops_assets.dataset.defs import defs as dataset_defs
from mlops_assets.dataset.phrases import CITIES
from mlops_assets.dataset.splits import SPLITS
from mlops_assets.home import Home
from mlops_assets.near_duplicates import Signatures, bands_for, shingles
from mlops_assets.refs import Row, write_jsonl
from mlops_assets.resources import RESOURCES

LIMITS = {"max_exact_leaked_share": 0.0, "max_near_leaked_share": 0.1}


def question(number: int) -> str:
    """Some thirty words, as good as none of them neighbours in another question."""
    words = (f"{name.split()[0]}{number * (at + 7) % 997}" for at, name in enumerate(CITIES * 3))
    return " ".join([*words][:30])


def write_splits(folder: Path, texts: dict[str, list[str]]) -> dict[str, int]:
    for name in SPLITS:
        rows = (
            Row(
                f"{name}-{at}",
                "",
                f"{name}-{at}",
                ({"role": "user", "content": text}, {"role": "assistant", "content": "{}"}),
                {},
            )
            for at, text in enumerate(texts[name])
        )
        write_jsonl(folder / f"{name}.jsonl", rows)
    return {name: len(texts[name]) for name in SPLITS}


@pytest.mark.parametrize("similarity", [0.7, 0.8, 0.9, 0.99])
def test_bands_find_a_pair_at_the_threshold(similarity: float) -> None:
    bands, values = bands_for(similarity)
    assert 1 - (1 - similarity**values) ** bands >= 0.99
    assert bands * values <= 128


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("What is the top-up limit?", "what is the TOP UP limit", True),
        ("my card is blocked", "is my card blocked", False),
        ("hello", "Hello!", True),
        ("?", "!", False),
        ("", "", True),
    ],
)
def test_word_pairs_are_what_is_compared(one: str, other: str, same: bool) -> None:
    assert (set(shingles(one)) == set(shingles(other))) is same


def test_near_pairs_are_those_that_share_most_word_pairs(tmp_path: Path) -> None:
    """40 texts, each with a copy at Jaccard 28/30 = 0.93 and one at 18/40 = 0.45."""
    texts = [question(number) for number in range(40)]
    near = [f"{text} please" for text in texts]
    far = [
        " ".join([*text.split()[:19], *question(at + 500).split()[:11]])
        for at, text in enumerate(texts)
    ]
    found = Signatures(tmp_path, [*texts, *near, *far], 0.9)
    pairs = {
        (int(first), int(second))
        for earlier, later in found.near_pairs(lambda earlier, _: earlier >= 0)
        for first, second in zip(earlier, later, strict=True)
    }
    assert pairs <= {(number, number + 40) for number in range(40)}
    assert len(pairs) >= 35  # 0.93 may be estimated below 0.9


def test_leaks_and_clusters_are_counted(tmp_path: Path) -> None:
    train = [question(number) for number in range(60)]
    texts = {
        "train": [*train, *(f"{text} thanks" for text in train[:5])],
        "validation": [question(100), f"  {question(1).upper()}", question(101)],
        "test": [question(200), f"Hello {question(7)}", question(101), *[question(201)] * 3],
    }
    sizes = write_splits(tmp_path, texts)
    found = leakage.measure(tmp_path, sizes, 0.85, tmp_path / "scratch")
    assert found["splits"] == {
        "train": {"rows": 65, "exact": 0, "near": 0, "clusters": 5, "clustered": 10},
        "validation": {"rows": 3, "exact": 1, "near": 0, "clusters": 0, "clustered": 0},
        "test": {"rows": 6, "exact": 1, "near": 1, "clusters": 1, "clustered": 3},
    }
    shown = [(item["kind"], item["split"], item["id"]) for item in found["examples"]]
    assert shown == [
        ("exact", "validation", "validation-1"),
        ("exact", "test", "test-2"),
        ("near", "test", "test-1"),
    ]
    assert [item["as"] for item in found["examples"]] == ["train-1", "validation-2", "train-7"]
    assert not (tmp_path / "scratch").exists()


@pytest.mark.parametrize(
    ("exact", "near", "says"),
    [
        (0, 10, None),
        (1, 0, "1 of 100 rows of test (1.00%) stand word for word"),
        (0, 11, "11 of 100 rows of test (11.00%) stand nearly"),
    ],
)
def test_limits_decide(exact: int, near: int, says: str | None) -> None:
    counts = {"validation": {"rows": 100, "exact": 0, "near": 0}}
    counts["test"] = {"rows": 100, "exact": exact, "near": near}
    verdict = leakage.judge({"splits": counts}, LIMITS)
    assert verdict.passed is (says is None)
    assert (says or "") in verdict.reason


def conversations(folder: Path, texts: list[str]) -> str:
    path = folder / "chats.jsonl"
    lines = (
        {
            "id": f"t-{at}",
            "customer_id": f"c-{at}",
            "messages": [
                {"role": "user", "content": text},
                {"role": "assistant", "content": f"Answer {at}."},
            ],
        }
        for at, text in enumerate(texts)
    )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("leaking", [False, True])
def test_leaks_block_what_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leaking: bool
) -> None:
    """Free-text answers: one question may have many, and stand with many customers."""
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path / "home"))
    texts = [question(number) for number in range(150)]
    path = conversations(tmp_path, [*texts, *(["Where is my order?"] * 60 if leaking else [])])

    @dg.asset(deps=["dataset_splits"])
    def training() -> None: ...

    settings: dict[str, dict[str, Any]] = {
        "raw_dataset": {"path": path},
        "validated_dataset": {"labels": {}, "slices": [], "require_timestamp": False},
    }
    result = dg.materialize(
        [*dataset_defs.assets, *dataset_defs.asset_checks, training],  # type: ignore[misc, list-item]
        resources=RESOURCES,
        run_config={"ops": {op: {"config": values} for op, values in settings.items()}},
        raise_on_error=False,
    )
    (check,) = result.get_asset_check_evaluations()
    assert check.check_name == "no_leakage"
    assert check.passed is result.success is not leaking
    digest = result.output_for_node("dataset_splits").artifact.digest
    kept = find_check(Home.from_environment().checks, NO_LEAKAGE, digest)
    assert kept == CheckResult(not leaking, str(check.description))
    done = {event.step_key for event in result.get_step_success_events()}
    assert ("training" in done) is not leaking
    ref = result.output_for_node("validated_dataset")
    assert ref.quarantined == {}
    assert ref.artifact.summary["contradicted"] == (60 if leaking else 0)
    if leaking:
        assert "stand word for word in an earlier split" in str(check.description)
        examples = [record.data for record in check.metadata["examples"].records]  # type: ignore[union-attr]
        assert {item["text"] for item in examples} == {"Where is my order?"}
        assert len(examples) == leakage.EXAMPLES
