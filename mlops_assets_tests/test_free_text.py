"""Answers in free text, without labels, pass through every stage."""

import random
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from mlops_assets.artifacts import ArtifactStore, Recipe, digest_json
from mlops_assets.dataset.splits import SplitSpec, split
from mlops_assets.evaluation.gate import judge
from mlops_assets.evaluation.gate_evidence import make_evidence, read_evidence
from mlops_assets.evaluation.gate_spec import GateSpec
from mlops_assets.evaluation.records import RECORDS, read_records
from mlops_assets.evaluation.report import evaluate, read_report
from mlops_assets.evaluation.spec import EvaluationSpec
from mlops_assets.monitoring.drift.reference import make_reference, reference_sample
from mlops_assets.monitoring.drift.spec import ReferenceSpec
from mlops_assets.promotion.model_card import render_card
from mlops_assets.promotion.submission import Submission
from mlops_assets.refs import (
    AdapterRef,
    BaseModelRef,
    EvalReportRef,
    Row,
    SplitsRef,
    ValidatedRef,
    write_jsonl,
)
from mlops_assets.training.base_model import provide
from mlops_assets.training.finetune import finetune
from mlops_assets.training.spec import BaseModelSpec, FinetuneSpec
from mlops_assets.verdicts import INCONCLUSIVE, PASS, overall, read_gate
from mlops_assets_tests.small_training import no_tracker
from mlops_assets_tests.submissions import judge as judge_by_hand

ANSWERS = {
    "refund": "You get your money back within Five days.",
    "parcel": "Parcels are sent every morning, Monday to Friday.",
    "password": "Use the link \u201eForgotten\u201c on the login page.",
    "invoice": "Invoices are under Account > Documents.",
}
FILLERS = ("please", "hello", "today", "again", "my", "the", "about", "help", "need", "quickly")
BASE = {"vocabulary": 400, "hidden_size": 32, "mlp_size": 64, "layers": 1, "heads": 1}
TUNE = {"rank": 8, "alpha": 8, "epochs": 10, "pack_tokens": 256, "learning_rate": 1e-2}
MEASURE = {"max_new_tokens": 40, "latency_requests": 2, "ragas_rows": 10, "suites": ""}


def _row(number: int) -> Row:
    dice = random.Random(number)
    topic = dice.choice(list(ANSWERS))
    words = [*dice.sample(FILLERS, 4), topic]
    dice.shuffle(words)
    asked = {"role": "user", "content": f"{' '.join(words)} {number}"}
    answer = {"role": "assistant", "content": ANSWERS[topic]}
    return Row(f"r{number}", "", f"g{number}", (asked, answer), {"topic": topic})


class Lineage(BaseModel, arbitrary_types_allowed=True):
    """What the stages made of the rows."""

    store: ArtifactStore
    splits: SplitsRef
    base: BaseModelRef
    adapter: AdapterRef
    evaluated: EvalReportRef

    @property
    def report(self) -> dict[str, Any]:
        return read_report(self.store, self.evaluated.artifact)


@pytest.fixture(scope="module")
def lineage(tmp_path_factory: pytest.TempPathFactory) -> Lineage:
    store = ArtifactStore(tmp_path_factory.mktemp("text"))
    rows = [_row(number) for number in range(300)]

    def produce(directory: Path) -> dict[str, str]:
        write_jsonl(directory / "rows.jsonl", rows)
        return {"rows_sha256": digest_json([row.id for row in rows])}

    artifact = store.build(Recipe("validated_dataset", {}, {}, "1"), produce)
    validated = ValidatedRef(artifact, "d" * 32, 300, 300, {}, {})
    splits = split(store, validated, SplitSpec())
    base = provide(store, splits, BaseModelSpec(**BASE))
    tuned = finetune(store, splits, base, FinetuneSpec(**TUNE), no_tracker, "dagster")
    spec = EvaluationSpec(**MEASURE)
    evaluated = evaluate(store, splits, base, tuned, None, spec, lambda *_: None)
    return Lineage(store=store, splits=splits, base=base, adapter=tuned, evaluated=evaluated)


@pytest.mark.slow
def test_answers_are_learnt_and_come_back_letter_by_letter(lineage: Lineage) -> None:
    scores = lineage.report["exact_match"]
    assert scores["tuned"] > scores["base"] + 0.3
    assert scores["tuned"] > 0.6
    folder = lineage.store.path(lineage.evaluated.artifact)
    records = read_records(folder / RECORDS)
    answered = {record.output for record in records if record.system == "tuned"}
    assert answered & set(ANSWERS.values())


@pytest.mark.slow
def test_the_base_model_has_no_tokens_of_answers(lineage: Lineage) -> None:
    """Its tokenizer learnt from prompts and answers alike, and gives every letter back."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(lineage.store.path(lineage.base.artifact))
    for text in (*ANSWERS.values(), "Gr\u00fc\u00dfe, \U0001f642 MiXed  Case"):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.decode(ids) == text
    assert len(tokenizer.encode(ANSWERS["parcel"])) < 25
    # The special tokens and what the answers' own letters made: no whole answer among them.
    assert not set(tokenizer.get_vocab()) & set(ANSWERS.values())


@pytest.mark.slow
def test_what_does_not_apply_is_absent_not_zero(lineage: Lineage) -> None:
    report = lineage.report
    assert report["answers"] == "text"
    assert "valid_json" not in report
    assert report["fields"] == {}
    assert report["exact_match"]["majority"] is None
    assert report["exact_match"]["tfidf"] is None
    closeness = report["ragas"]["metrics"]["non_llm_string_similarity"]
    assert closeness["tuned"] > closeness["base"]
    assert not (lineage.store.root / "baselines").exists()


@pytest.mark.slow
def test_the_page_shows_what_there_is(lineage: Lineage) -> None:
    page = (lineage.store.path(lineage.evaluated.artifact) / "report.html").read_text("utf-8")
    assert "JSON" not in page
    assert "TF-IDF" not in page
    assert "What is confused" not in page
    assert "By field" not in page
    assert "string similarity" in page


@pytest.mark.slow
def test_the_gate_asks_for_what_applies(lineage: Lineage) -> None:
    evidence = read_evidence(lineage.store, lineage.evaluated.artifact)
    found, _ = judge(evidence, {}, GateSpec(minimum_items=20))
    assert overall(found) == PASS, found
    names = {item.name for item in found}
    assert {"first/base", "floor/exact_match"} <= names
    assert not names & {"first/majority", "floor/majority", "floor/valid_json"}


@pytest.mark.slow
def test_only_free_text_may_lack_a_majority(lineage: Lineage) -> None:
    """A report of labelled answers that lost its baseline gives no verdict."""
    records = read_records(lineage.store.path(lineage.evaluated.artifact) / RECORDS)
    evidence = make_evidence(lineage.report | {"answers": "json"}, records)
    found, _ = judge(evidence, {}, GateSpec(minimum_items=20))
    undecided = {item.name for item in found if item.verdict == INCONCLUSIVE}
    assert undecided == {"first/majority", "floor/majority", "floor/valid_json"}


@pytest.mark.slow
def test_the_model_card_speaks_of_text(lineage: Lineage) -> None:
    judged = judge_by_hand(lineage.store, lineage.evaluated)
    parts = (lineage.splits, lineage.base, lineage.adapter, lineage.evaluated, judged)
    gate = read_gate(lineage.store, judged)
    card = render_card(Submission("faq", *parts), lineage.report, gate)
    assert "JSON" not in card
    assert "answer with a short text" in card
    assert "| exact match |" in card


@pytest.mark.slow
def test_drift_compares_the_length_of_the_answers(lineage: Lineage) -> None:
    reference = make_reference(lineage.store, lineage.splits, None, ReferenceSpec())
    sample = reference_sample(lineage.store.path(reference.artifact), 50)
    assert not [name for name in sample.column_names if name.startswith("predicted_")]
    assert min(sample["answer_words"].to_pylist()) > 4
