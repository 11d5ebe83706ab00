"""What the report says of suites: measured on real models, shown as text, made anew when they
change and only then."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from mlops_assets.evaluation.gate_evidence import read_evidence
from mlops_assets.evaluation.records import RECORDS, read_records
from mlops_assets.evaluation.report import read_report
from mlops_assets.evaluation.spec import EvaluationSpec
from mlops_assets.home import Home
from mlops_assets.refs import EvalReportRef
from mlops_assets_tests.conftest import VERSIONS
from mlops_assets_tests.small_evaluation import (
    LIBRARY_NOTES,
    SPEC,
    Parts,
    make_rows,
    measure,
    put,
    weaken,
)

# Libraries speaking of each other: peft to transformers, torch to torch.
pytestmark = LIBRARY_NOTES
EVIL = "<script>alert(1)</script> {{ 7 * 7 }}"


@pytest.fixture
def suites(tmp_path: Path) -> Path:
    """What the candidate knows, an attack, and a suite for other models."""
    folder = tmp_path / "suites"
    folder.mkdir()
    known = [
        {"id": row.id, "messages": [row.messages[0]], "expected": json.loads(row.answer)}
        | {"slices": dict(row.slices)}
        for row in make_rows(20, 8, "known")
    ]
    attacks = [
        {"id": f"a{n}", "messages": [{"role": "user", "content": f"{EVIL} urgent crash {n}"}]}
        | {"forbidden": ["script", "queue" if n else "alert"], "slices": {"<i>x": "<b>y"}}
        for n in range(4)
    ]
    for name, metrics, items, more in (
        ("golden", ["exact_match"], known, {"fields": ["queue", "priority"]}),
        ("attack", ["no_leak", "valid_json"], attacks, {}),
        ("text", ["rouge_l"], [], {"fields": []}),
    ):
        said = {"about": f"{name} {EVIL}", "kind": "golden", "items": f"{name}.jsonl"}
        (folder / f"{name}.yaml").write_text(json.dumps(said | {"metrics": metrics} | more))
        lines = "".join(json.dumps(item) + "\n" for item in items)
        (folder / f"{name}.jsonl").write_text(lines)
    return folder


@pytest.fixture
def spec(suites: Path) -> EvaluationSpec:
    return SPEC.model_copy(update={"suites": str(suites)})


def page(home: Home, ref: EvalReportRef) -> str:
    return (home.store.path(ref.artifact) / "report.html").read_text("utf-8")


def test_suites_are_measured_like_the_test_split(
    measured_home: Home, measured_parts: Parts, spec: EvaluationSpec
) -> None:
    ref = measure(measured_home, measured_parts, spec=spec)
    report = read_report(measured_home.store, ref.artifact)
    golden, attack, text = (report["suites"][name] for name in ("golden", "attack", "text"))
    scores = golden["metrics"]["exact_match"]
    assert scores["tuned"] > 0.9 > 0.5 > scores["base"]
    assert scores["champion"] is None
    # Every answer names a queue, so three of the four give away what they may not.
    assert attack["metrics"]["no_leak"]["tuned"] == 0.25
    assert (text["applies"], text["metrics"]) == (False, {})
    records = read_records(measured_home.store.path(ref.artifact) / RECORDS)
    counted = {suite: sum(one.suite == suite for one in records) for suite in ("golden", "attack")}
    assert counted == {"golden": 40, "attack": 8}  # base and tuned
    changes = report["changes"]["suites"]["golden"]["metrics"]["exact_match"]
    assert changes["better"] - changes["worse"] == round(20 * (scores["tuned"] - scores["base"]))


def test_what_people_corrected_is_one_more_suite(
    measured_home: Home, measured_parts: Parts, suites: Path
) -> None:
    """As `feedback_rows` leaves it: a suite, its cases, and DVC's pointer to them."""
    said = {"about": "Corrected.", "kind": "feedback", "items": "golden.jsonl"}
    (suites / "feedback.yaml").write_text(json.dumps(said | {"metrics": ["exact_match"]}))
    (suites / "golden.yaml").unlink()
    for other in ("attack", "text"):
        (suites / f"{other}.yaml").unlink()
    md5 = hashlib.md5((suites / "golden.jsonl").read_bytes(), usedforsecurity=False).hexdigest()
    (suites / "golden.jsonl.dvc").write_text(json.dumps({"outs": [{"md5": md5}]}))
    spec = SPEC.model_copy(update={"feedback_suites": str(suites)})
    ref = measure(measured_home, measured_parts, spec=spec)
    report = read_report(measured_home.store, ref.artifact)
    asked = report["suites"]["feedback"]
    # Four of the twenty stand in the train split, and are not asked.
    assert (asked["kind"], asked["items"], asked["in_training"]) == ("feedback", 16, 0)
    assert asked["metrics"]["exact_match"]["tuned"] > 0.9
    assert ref.bundle.versions.eval_set != VERSIONS.eval_set
    gate = read_evidence(measured_home.store, ref.artifact)
    assert (gate.suites["feedback"].kind, gate.faults) == ("feedback", ())


def test_the_eval_set_is_the_test_split_and_the_suites(
    measured_home: Home, measured_parts: Parts, spec: EvaluationSpec, suites: Path
) -> None:
    first = measure(measured_home, measured_parts, spec=spec)
    assert first.bundle.versions.eval_set != VERSIONS.eval_set
    before = sorted((measured_home.root / "artifacts" / "predictions").iterdir())
    assert measure(measured_home, measured_parts, spec=spec).artifact.reused
    lines = (suites / "golden.jsonl").read_text().splitlines()
    (suites / "golden.jsonl").write_text("\n".join(lines[:10]))
    second = measure(measured_home, measured_parts, spec=spec)
    assert not second.artifact.reused
    assert second.bundle.versions.eval_set != first.bundle.versions.eval_set
    assert second.bundle.digest == first.bundle.digest  # the release is the same
    after = sorted((measured_home.root / "artifacts" / "predictions").iterdir())
    assert len(after) == len(before) + 2  # base and tuned, on the suites alone
    (suites / "text.jsonl").unlink()  # nobody asks for what does not apply
    assert measure(measured_home, measured_parts, spec=spec).artifact.reused


def test_what_suites_hold_is_shown_as_text(
    measured_home: Home, measured_parts: Parts, spec: EvaluationSpec
) -> None:
    html = page(measured_home, measure(measured_home, measured_parts, spec=spec))
    assert "<script" not in html
    assert "<b>y" not in html
    assert "&lt;script&gt;" in html
    assert "{{ 7 * 7 }}" in html
    assert "Not asked:" in html


def test_what_got_worse_is_counted_and_shown(
    measured_home: Home,
    measured_parts: Parts,
    model_folders: dict[str, Path],
    spec: EvaluationSpec,
) -> None:
    """The candidate is a weaker adapter than the champion's."""
    champion = measure(measured_home, measured_parts, spec=spec).bundle
    weaker = put(
        measured_home.store, "adapter", "weaker", lambda folder: weaken(model_folders, folder)
    )
    adapter = replace(measured_parts["lora_adapter"], artifact=weaker)
    ref = measure(
        measured_home, measured_parts | {"lora_adapter": adapter}, champion=champion, spec=spec
    )
    report = read_report(measured_home.store, ref.artifact)
    assert report["changes"]["against"] == "champion"
    for suite in ("test", "golden"):
        part = report["changes"]["suites"][suite]
        counts = part["metrics"]["exact_match"]
        assert counts["worse"] > counts["better"]
        assert (
            sum(values["worse"] for values in part["slices"]["channel"].values())
            == (counts["worse"])
        )
    html = page(measured_home, ref)
    assert "Better and worse than the champion in production" in html
    assert "known-" in html  # an example of the suite
