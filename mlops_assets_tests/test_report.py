"""The report: what it says, what it shows, and what makes it anew."""

import json
import math
import re
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.artifacts import LineageError
from mlops_assets.evaluation import latency, page, scoring
from mlops_assets.evaluation.examples import show_answer
from mlops_assets.evaluation.generation import Subject
from mlops_assets.evaluation.latency import time_side_by_side
from mlops_assets.evaluation.records import read_records
from mlops_assets.evaluation.report import read_report
from mlops_assets.evaluation.spec import EvaluationSpec
from mlops_assets.home import Home
from mlops_assets.refs import Row
from mlops_assets_tests.conftest import VERSIONS
from mlops_assets_tests.small_evaluation import (
    LIBRARY_NOTES,
    SPEC,
    Parts,
    answer,
    copy_files,
    make_rows,
    make_splits,
    measure,
    numbers,
    put,
    weaken,
)

# Libraries speaking of each other: peft to transformers, torch to torch.
pytestmark = LIBRARY_NOTES


@pytest.fixture
def home(measured_home: Home) -> Home:
    return measured_home


@pytest.fixture
def parts(measured_parts: Parts) -> Parts:
    return measured_parts


def test_the_report_says_everything_others_read(home, parts) -> None:
    ref = measure(home, parts)
    report = read_report(home.store, ref.artifact)
    assert report["items"] == 60
    assert report["exact_match"]["tuned"] > 0.9 > 0.5 > report["exact_match"]["base"]
    assert report["exact_match"]["champion"] is None
    assert report["valid_json"]["base"] > 0.9
    assert report["exact_match"]["tfidf"] > 0.9 > report["exact_match"]["majority"]
    assert report["candidate"] == ref.bundle.digest
    assert (report["champion"], ref.champion) == (None, None)
    assert report["versions"] == asdict(VERSIONS) == asdict(ref.bundle.versions)
    assert report["ragas"]["rows"] == 40
    assert set(report["ragas"]["metrics"]) >= {"exact_match", "rouge_score"}
    assert report["latency"]["tuned"]["requests"] == 3
    assert all(math.isfinite(number) for number in numbers(report))
    records = read_records(home.store.path(ref.artifact) / report["records"])
    ours = [one for one in records if one.system == "tuned"]
    assert [one.item for one in ours] == [f"test-{i}" for i in range(60)]
    right = sum(one.scores["exact_match"] or 0 for one in ours)
    assert right == pytest.approx(60 * report["exact_match"]["tuned"])
    assert {one.system for one in records} == {"base", "tuned", "majority", "tfidf"}
    assert {one.suite for one in records} == {"test"}
    assert report["suites"] == {}


def test_the_page_needs_nothing_beside_itself(home, parts) -> None:
    ref = measure(home, parts)
    html = (home.store.path(ref.artifact) / "report.html").read_text("utf-8")
    assert not re.search(r"(src|href)\s*=|url\(|@import|<script", html)
    for part in ("Exact match", "channel", "TF-IDF", ref.bundle.digest, "Latency", "<svg"):
        assert part in html


def test_what_customers_write_is_shown_as_text(home, parts) -> None:
    rows = make_rows(20, 3, "test")
    evil = "<script>alert(1)</script> {{ 7 * 7 }}"
    rows = [
        replace(
            row,
            messages=({"role": "user", "content": evil}, row.messages[1]),
            slices={"<b>": "<i>x"},
        )
        for row in rows
    ]
    splits = make_splits(home.store, rows, make_rows(20, 1, "train"))
    ref = measure(home, parts | {"dataset_splits": splits})
    html = (home.store.path(ref.artifact) / "report.html").read_text("utf-8")
    assert "<script" not in html
    assert "<i>x" not in html
    assert "&lt;script&gt;" in html
    assert "{{ 7 * 7 }}" in html


@pytest.mark.parametrize("labels", [3, 40])
def test_the_page_of_a_task_with_few_and_with_many_labels(labels: int) -> None:
    names = [f"intent {number}" for number in range(labels)]
    rows = [
        Row(
            str(i),
            "",
            "g",
            (
                {"role": "user", "content": "?"},
                {"role": "assistant", "content": answer(intent=names[i % labels])},
            ),
            {},
        )
        for i in range(4 * labels)
    ]
    expected = scoring.references(rows, ("intent",))
    wrong = [answer(intent=names[(i // 2) % labels]) for i in range(len(rows) - 1)] + ["junk"]
    tuned = scoring.compare(rows, ("intent",), wrong)
    report = {"fields": {"intent": {"accuracy": {"tuned": 0.1}}}}
    confusion = page._confusion(report, expected, tuned)
    assert (confusion["matrix"] is not None) is (labels == 3)
    if labels == 3:
        assert sum(sum(counts) for _, counts in confusion["matrix"]) == len(rows)
        assert confusion["columns"][-1] is None
    else:
        assert len(confusion["top"]) == page.MOST_CONFUSIONS


@pytest.mark.parametrize(
    ("output", "fields"),
    [
        ('{"queue":"billing","priority":"low"}', [True, False]),
        ('{"queue":"billing"}', [True, False]),
        ('{"queue":"billing","priority":"high","mood":"bad"}', [True, True, False]),
        ("{", []),
        ("", []),
    ],
)
def test_an_example_marks_what_is_wrong(output: str, fields: list[bool]) -> None:
    shown = show_answer(answer(queue="billing", priority="high"), output)
    assert [right for _, _, right in shown.fields] == fields


def test_the_same_work_is_never_done_twice(home, parts) -> None:
    published = []

    def publish(folder: Path, report) -> None:
        published.append(report["exact_match"]["tuned"])

    shutil.rmtree(home.root / "artifacts" / "eval_report")
    first = measure(home, parts, publish=publish)
    started = time.thread_time()
    again = measure(home, parts, publish=publish)
    assert time.thread_time() - started < 1
    assert again == first
    assert again.artifact.reused
    assert len(published) == 1
    shutil.rmtree(home.root / "artifacts" / "eval_report")
    assert measure(home, parts, publish=publish) == first  # the same bytes, made anew


def test_a_champion_that_is_the_candidate_costs_no_answers(home, parts) -> None:
    first = measure(home, parts)
    before = sorted((home.root / "artifacts" / "predictions").iterdir())
    second = measure(home, parts, champion=first.bundle)
    report = read_report(home.store, second.artifact)
    assert sorted((home.root / "artifacts" / "predictions").iterdir()) == before
    assert not (home.root / "artifacts" / "latency").exists()
    assert second.champion == report["champion"] == first.bundle.digest
    assert report["exact_match"]["champion"] == report["exact_match"]["tuned"]
    assert report["differences"]["champion"]["difference"] == 0
    assert "the same release" in (home.store.path(second.artifact) / "report.html").read_text()


def test_another_champion_is_measured_on_the_same_rows(home, parts, model_folders) -> None:
    weaker = put(home.store, "adapter", "weaker", lambda folder: weaken(model_folders, folder))
    adapter = replace(parts["lora_adapter"], artifact=weaker)
    champion = measure(home, parts | {"lora_adapter": adapter}).bundle
    report = read_report(home.store, measure(home, parts, champion=champion).artifact)
    assert report["exact_match"]["champion"] < report["exact_match"]["tuned"]
    assert report["differences"]["champion"]["interval"][0] > 0
    timed = read_pair(home)
    assert {name: report["latency"][name] for name in timed} == timed
    assert timed["tuned"]["requests"] == timed["champion"]["requests"] == 3
    again = measure(home, parts, champion=champion).artifact  # timed once
    assert read_report(home.store, again)["latency"] == report["latency"]


def read_pair(home) -> dict[str, dict[str, float]]:
    """The timings of candidate and champion, which were taken in one go."""
    (folder,) = (home.root / "artifacts" / "latency").iterdir()
    return json.loads((folder / "latency.json").read_text())


@pytest.mark.parametrize(
    ("p95", "kept"),
    [
        ([20.0, 10.0, 11.0, 10.0], (10.0, 11.0)),  # slower when it was first, and not when last
        ([20.0, 10.0, 11.0, 21.0], (21.0, 11.0)),  # slower both times: the lesser ratio
        ([None, None, None, None], (None, None)),
    ],
)
def test_only_what_is_slower_first_and_last_is_slower(home, parts, monkeypatch, p95, kept) -> None:
    asked, timings = [], iter(p95)

    def time_requests(_store, subject, _rows, _spec) -> dict[str, Any]:
        asked.append(subject.name)
        return {"p95_ms": next(timings)}

    monkeypatch.setattr(latency, "time_requests", time_requests)
    bundle = measure(home, parts).bundle
    pair = [Subject(name, bundle.base, None, 6) for name in ("tuned", "champion")]
    split = home.store.path(parts["dataset_splits"].artifact) / "test.jsonl"
    found = time_side_by_side(home.store, pair, split, [], EvaluationSpec()).summary
    assert asked == ["tuned", "champion", "champion", "tuned"]
    assert tuple(found[name]["p95_ms"] for name in ("tuned", "champion")) == kept


def test_a_champion_whose_bytes_changed_is_refused_by_name(home, parts, model_folders) -> None:
    other = put(home.store, "adapter", "old", lambda folder: weaken(model_folders, folder))
    champion = replace(measure(home, parts).bundle, adapter=other)
    (home.store.path(other) / "adapter_model.safetensors").write_bytes(b"changed")
    with pytest.raises(LineageError, match=r"adapter .* was changed"):
        measure(home, parts, champion=champion)


def test_an_adapter_of_another_base_is_refused(home, parts) -> None:
    stranger = put(home.store, "base_model", "x", lambda folder: (folder / "x").write_text("x"))
    adapter = replace(parts["lora_adapter"], base=stranger)
    with pytest.raises(LineageError, match="another base"):
        measure(home, parts | {"lora_adapter": adapter})


def test_a_model_that_fails_is_no_score(home, parts, model_folders) -> None:
    def spoil(folder: Path) -> None:
        from safetensors.numpy import load_file, save_file

        copy_files(model_folders["adapter"])(folder)
        weights = load_file(folder / "adapter_model.safetensors")
        spoilt = {name: array + float("nan") for name, array in weights.items()}
        save_file(spoilt, folder / "adapter_model.safetensors")

    adapter = replace(parts["lora_adapter"], artifact=put(home.store, "adapter", "nan", spoil))
    with pytest.raises(LineageError, match="cannot be loaded"):
        measure(home, parts | {"lora_adapter": adapter})
    assert len(list((home.root / "artifacts" / "eval_report").iterdir())) == 1


def test_what_changes_the_bundle(home, parts) -> None:
    one = measure(home, parts).bundle
    shorter = measure(home, parts, spec=SPEC.model_copy(update={"max_new_tokens": 12})).bundle
    quicker = measure(home, parts, spec=SPEC.model_copy(update={"ragas_rows": 20}))
    assert one.digest != shorter.digest
    assert one == quicker.bundle
