"""What people see of a drift report: the page, its picture, and what changed in words."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mlops_assets.monitoring.drift import drift_page, evidently_page
from mlops_assets.monitoring.drift.changes import class_changes, describe, word_changes
from mlops_assets.monitoring.drift.features import CATEGORICAL, NUMERIC, RATE, Column
from mlops_assets.monitoring.drift.findings import (
    BUSINESS,
    CONCEPT,
    DATA,
    PREDICTION,
    Finding,
    as_json,
    decide,
)
from mlops_assets.monitoring.drift.sketches import sketch
from mlops_assets.monitoring.drift.spec import DriftSpec

CALM = [
    Finding("words", DATA, "numeric", 0.04, 0.1, 0.5, 5_000, 900, "median 19, was 19"),
    Finding("predicted_queue", PREDICTION, "categorical", 0.03, 0.1, 0.6, 5_000, 900),
    Finding(
        "vote/rating", BUSINESS, "rate", 0.0, 0.1, 1.0, 0, 0, left_out="0 votes, 50 are needed"
    ),
]
DRIFTED = [
    Finding("words", DATA, "numeric", 0.5, 0.1, 1e-9, 5_000, 900, "median 35, was 19"),
    CALM[1],
    Finding("exact_match", CONCEPT, "rate", 0.3, 0.1, 1e-6, 600, 90, "0.62, was 0.91"),
]
FEW = [
    Finding("words", DATA, "numeric", 0.2, 0.1, 0.3, 5_000, 9, left_out="9 records, 100 are needed")
]
TEXTS = {"request_embedding": {"production": ["<b>my</b> camera"], "reference": ["a laptop"]}}


def report_of(findings: Sequence[Finding], **changes: Any) -> dict[str, Any]:
    verdict = decide(findings, 0.01)
    return {
        "verdict": verdict.verdict,
        "reason": verdict.reason,
        "layers": {name: asdict(layer) for name, layer in verdict.layers.items()},
        "columns": {each.name: as_json(each, verdict) for each in findings},
        "spec": DriftSpec().model_dump(mode="json"),
        "records": 900,
        "users": {"named": 20, "unnamed_requests": 1_000},
        "reference_rows": 5_000,
        "release": "",
        "versions": {"dataset_hash": "abc"},
        "sample": {"reference": 1_000, "production": 900},
        "changes": {"classes": {}, "words": [], "texts": {}} | changes,
    }


@pytest.mark.parametrize(
    ("findings", "expected"),
    [(CALM, "No drift"), (DRIFTED, "Drift"), (FEW, "No verdict"), ([], "No verdict")],
)
def test_the_page_says_the_verdict_of_each_layer(findings: list[Finding], expected: str) -> None:
    report = report_of(findings)
    page = drift_page.render(report, "distributions.html")
    assert f"<title>Drift report: {expected.lower()}</title>" in page
    shown = re.findall(r'id="(\w+)">\s*<h2>[^<]+<span class="badge[^>]*>([^<]+)<', page)
    assert {name: verdict.lower().replace(" ", "_") for name, verdict in shown} == {
        name: layer["verdict"] for name, layer in report["layers"].items()
    }
    for finding in findings:
        assert f">{finding.name}<small>" in page


def test_a_page_needs_no_network_and_takes_no_markup_from_texts() -> None:
    page = drift_page.render(report_of(DRIFTED, texts=TEXTS), "")
    assert "&lt;b&gt;my&lt;/b&gt; camera" in page
    for reaches_out in ("<script", "<link", "src=", "@import", "url("):
        assert reaches_out not in page
    links = set(re.findall(r'href="([^"#]+)"', page))
    assert links == {
        f"http://127.0.0.1:3000/assets/{name}"
        for name in ("drift_report", "prediction_log", "drift_reference", "answer_quality")
    }


def test_a_finding_that_takes_no_part_says_why() -> None:
    alone = drift_page.render(report_of(CALM), "")
    assert "0 votes, 50 are needed." in alone  # the reason of the layer
    failed = Finding("failed", BUSINESS, "rate", 0.0, 0.1, 0.5, 900, 900)
    assert "Left out: 0 votes, 50 are needed" in drift_page.render(report_of([*CALM, failed]), "")
    (row,) = drift_page.left_out_rows(report_of(CALM))
    assert (row["column"], row["reason"]) == ("vote/rating", "0 votes, 50 are needed")
    assert "vote/rating" not in [row["column"] for row in drift_page.column_rows(report_of(CALM))]


def test_a_command_in_a_reason_looks_like_one() -> None:
    undrawn = Finding("labelled", CONCEPT, "rate", 0, 0.1, 1, 0, 0, left_out="draw: `mlops <b>`")
    page = drift_page.render(report_of([*CALM, undrawn]), "")
    assert "Draw: <code>mlops &lt;b&gt;</code>." in page


@pytest.mark.parametrize("findings", [CALM, DRIFTED, FEW, []])
def test_the_picture_of_every_kind_of_report(tmp_path: Path, findings: list[Finding]) -> None:
    drift_page.write_plot(tmp_path / "effects.png", report_of(findings))
    assert (tmp_path / "effects.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_says_as_how_many_the_requests_of_few_users_count() -> None:
    few = replace(CALM[0], effective_n=20), replace(CALM[1], effective_n=900)
    page = drift_page.render(report_of(few), "")
    assert "900 answered requests of production (20 users; 1,000 requests name none)" in page
    assert page.count("users repeat themselves: 900 count as 20<") == 1
    assert "None of 2 columns drifted; 900 requests of few users count as 20 in words." in page
    rows = [row["rows"] for row in drift_page.column_rows(report_of(few))]
    assert rows == ["5,000/900 (count as 20)", "5,000/900"]


def test_what_changed_as_text() -> None:
    words = [{"word": "hinge", "before": 0.0, "now": 0.2, "new": True}]
    text = drift_page.changes_text(report_of(DRIFTED, words=words))
    assert text.splitlines() == [
        "- **words**: median 35, was 19",
        "- **exact_match**: 0.62, was 0.91",
        "- new words: hinge",
    ]
    assert drift_page.changes_text(report_of(CALM)) == "None of 2 columns drifted."


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, drift_page.DASH),
        (0.0, "0.000"),
        (1e-9, "< 0.0001"),
        (0.0042, "0.0042"),
        (1.0, "1.000"),
    ],
)
def test_numbers(value: float | None, expected: str) -> None:
    assert drift_page.shown(value) == expected


@pytest.mark.parametrize(
    ("kind", "before", "now", "expected"),
    [
        (NUMERIC, [1, 2, 3], [5, 6, 7], "median 6, was 2; 90th percentile 7, was 3"),
        (NUMERIC, [1.0], [], ""),
        (RATE, ["yes", *["no"] * 9], ["yes", "no"], "50.0%, was 10.0%"),
        (CATEGORICAL, list("aaabbb"), list("aaab"), "a 75%, was 50%; b 25%, was 50%"),
        (CATEGORICAL, list("ab"), list("aabb"), ""),
    ],
)
def test_a_column_in_a_phrase(kind: str, before: Any, now: Any, expected: str) -> None:
    column = Column("x", DATA, kind)
    sides = [sketch([column], {"x": values})["x"] for values in (before, now)]
    assert describe(column, *sides) == expected


def test_classes_that_changed_most_come_first_and_redacted() -> None:
    column = Column("slice_from", DATA, CATEGORICAL)
    before, now = Counter({"jo@example.com": 9, "web": 1}), Counter({"web": 8, "app": 2})
    found = class_changes([column], {"slice_from": before}, {"slice_from": now}, ["slice_from"])
    assert [change["value"] for change in found["slice_from"]] == ["[email]", "web", "app"]
    assert class_changes([column], {"slice_from": before}, {"slice_from": now}, []) == {}


def test_new_words_stand_in_several_texts_and_name_nobody() -> None:
    before = ["my laptop is slow", "the laptop screen"] * 10
    now = [
        *["the hinge of my tablet, mail jo@example.com or order A1234"] * 8,
        *["my laptop is slow"] * 11,
        "ask petronella",
    ]
    vocabulary = dict.fromkeys(["my", "laptop", "is", "slow", "the", "screen", "of", "or"], 1)
    found = word_changes(before, now, vocabulary)
    new = [change["word"] for change in found if change["new"]]
    assert new == ["hinge", "mail", "order", "tablet"]
    assert [change["word"] for change in found if not change["new"]] == ["of", "or"]
    assert found[0] == {"word": "hinge", "before": 0.0, "now": 0.4, "new": True}


def sample(seed: int, rows: int) -> pa.Table:
    import numpy as np

    rng = np.random.default_rng(seed)
    values = {"words": rng.poisson(20, rows).astype(float), "queue": rng.choice(list("abc"), rows)}
    return pa.table(values | {"refusals": ["no"] * rows})


COLUMNS = [
    Column("words", DATA, NUMERIC),
    Column("queue", PREDICTION, CATEGORICAL),
    Column("refusals", PREDICTION, RATE),
]


def test_evidentlys_page_of_a_sample(tmp_path: Path) -> None:
    page, spec = tmp_path / "page.html", DriftSpec().model_dump()
    assert evidently_page.write_evidently(
        page, COLUMNS, sample(1, 400), sample(2, 300), spec, "a.html"
    )
    text = page.read_text()
    assert "400 rows of the training data and 300 requests of production, drawn by seed 7" in text
    assert {"chi-square" in text, "K-S p_value" in text} == {True}
    assert "default-src 'none'" in text
    assert {tag in text for tag in ("<script src=", "<link ", '<img src="http')} == {False}
    assert "refusals" not in text  # the same everywhere: nothing to draw


def test_too_few_rows_are_not_drawn(tmp_path: Path) -> None:
    page, spec = tmp_path / "page.html", DriftSpec().model_dump()
    assert not evidently_page.write_evidently(page, COLUMNS, sample(1, 400), sample(2, 9), spec, "")
    assert not page.exists()
