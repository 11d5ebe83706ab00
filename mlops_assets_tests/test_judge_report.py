"""The judge in a whole evaluation: report, page, records, and what is asked again."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from mlops_assets.artifacts import LineageError
from mlops_assets.evaluation.gate_evidence import read_evidence
from mlops_assets.evaluation.gate_judge import judge_silence, judged_answers
from mlops_assets.evaluation.records import RECORDS, Record, read_records
from mlops_assets.evaluation.report import evaluate, read_report
from mlops_assets.evaluation.run_log import _scores
from mlops_assets.evaluation.spec import EvaluationSpec
from mlops_assets.home import Home
from mlops_assets.profiles import PROJECT
from mlops_assets.refs import AdapterRef, BaseModelRef, EvalReportRef
from mlops_assets.verdicts import INCONCLUSIVE
from mlops_assets_tests.commands import environment_for, script
from mlops_assets_tests.conftest import VERSIONS
from mlops_assets_tests.engine_server import free_port
from mlops_assets_tests.judge_server import CALIBRATION, JudgeServer, serve_judge, write_calibration
from mlops_assets_tests.small_evaluation import (
    LIBRARY_NOTES,
    copy_files,
    make_rows,
    make_splits,
    make_tokenizer,
    put,
)
from mlops_assets_tests.waiting import wait_until

# Libraries speaking of each other: peft to transformers, torch to torch.
pytestmark = LIBRARY_NOTES

ROWS, JUDGED = 12, 5


@pytest.fixture
def server():
    with serve_judge() as found:
        yield found


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A model and an adapter that have learnt nothing, in Hugging Face's and PEFT's format."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("models")
    rows = make_rows(50, 1, "train")
    tokenizer = make_tokenizer([row.messages[0]["content"] + row.answer for row in rows])
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    tokens = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = LlamaConfig(
        vocab_size=len(tokenizer), num_attention_heads=2, bos_token_id=None, **shape, **tokens
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    lora = LoraConfig(
        r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"
    )
    get_peft_model(model, lora).save_pretrained(folder / "adapter")
    return folder


class Lab:
    """A home with a candidate that can be measured."""

    def __init__(self, root: Path, models: Path) -> None:
        self.home = Home(root / "home")
        self.home.prepare()
        self.calibration = write_calibration(root)
        self.rubric = root / "rubric.yaml"
        shipped = (PROJECT / EvaluationSpec().judge_rubric).read_text()
        fields = "[queue, priority]"  # of this module's rows
        self.rubric.write_text(shipped.replace("[queue, priority, product]", fields))
        store = self.home.store
        base = put(store, "base_model", "b", copy_files(models / "base"))
        adapter = put(store, "adapter", "a", copy_files(models / "adapter"))
        self.parts = (
            make_splits(store, make_rows(ROWS, 3, "test"), make_rows(50, 1, "train")),
            BaseModelRef(base, "tiny", 1000),
            AdapterRef(adapter, base, VERSIONS, "mlflow-run", "dagster-run"),
        )

    def measure(self, champion: Any = None, **settings: Any) -> EvalReportRef:
        chosen: dict[str, Any] = {"max_new_tokens": 8, "latency_requests": 1, "suites": ""}
        chosen |= {"judge_calibration": str(self.calibration), "judge_rubric": str(self.rubric)}
        chosen |= {"judge_rows": JUDGED}
        spec = EvaluationSpec(**(chosen | settings))
        return evaluate(self.home.store, *self.parts, champion, spec, lambda *_: None)

    def report(self, ref: EvalReportRef) -> dict[str, Any]:
        return read_report(self.home.store, ref.artifact)

    def page(self, ref: EvalReportRef) -> str:
        return (self.home.store.path(ref.artifact) / "report.html").read_text()

    def records(self, ref: EvalReportRef) -> list[Record]:
        return read_records(self.home.store.path(ref.artifact) / RECORDS)


@pytest.fixture
def lab(tmp_path, models) -> Lab:
    return Lab(tmp_path, models)


def judged_by(server: JudgeServer) -> dict[str, Any]:
    return {"judge_url": server.url, "judge_model": "the-judge"}


def test_without_a_judge_the_report_says_so(lab) -> None:
    ref = lab.measure()
    section = lab.report(ref)["judge"]
    assert (section["configured"], section["vote"], section["complete"]) == (False, False, False)
    assert "No judge is configured" in lab.page(ref)
    assert not any("judge" in record.scores for record in lab.records(ref))
    assert not any("judge" in name for name, _ in _scores(lab.report(ref)))


def test_the_judges_word_stands_in_report_page_records_and_run(lab, server) -> None:
    other = lab.measure(max_new_tokens=4).bundle
    ref = lab.measure(other, **judged_by(server))
    section = lab.report(ref)["judge"]
    assert (section["vote"], section["complete"], section["rows"]) == (True, True, JUDGED)
    assert section["scores"] == {"tuned": 0.0, "champion": 0.0}  # neither has learnt anything
    assert section["preference"]["items"] == JUDGED
    scored = [record for record in lab.records(ref) if "judge" in record.scores]
    assert [record.system for record in scored].count("tuned") == JUDGED
    assert [record.system for record in scored].count("champion") == JUDGED
    assert {record.scores["judge"] for record in scored} == {0.0}
    assert {r.scores.get("judge_preference") for r in scored if r.system == "tuned"} == {0.5}
    page = lab.page(ref)
    for text in ("Has a vote", "the-judge", "ticket routing", "kappa with people is 1.00"):
        assert text in page
    logged = dict(_scores(lab.report(ref)))
    assert logged["eval/judge/tuned"] == 0.0
    assert logged["eval/judge/kappa"] == 1.0
    assert logged["eval/judge/spent/calls"] == len(server.requests)


def test_a_rubric_for_another_task_is_refused_before_anything_is_asked(lab, server) -> None:
    with pytest.raises(LineageError, match="is for other answers"):
        lab.measure(judge_rubric=EvaluationSpec().judge_rubric, **judged_by(server))
    assert server.requests == []


def test_a_champion_that_is_the_candidate_is_not_judged_twice(lab, server) -> None:
    bundle = lab.measure().bundle
    section = lab.report(lab.measure(bundle, **judged_by(server)))["judge"]
    assert section["scores"]["champion"] is None
    assert section["preference"] is None
    assert section["vote"] is True


def test_a_failure_is_no_part_of_what_is_kept(lab, server) -> None:
    server.always = lambda handler, body: handler.send("{}", 401)
    failed = lab.measure(**judged_by(server))
    section = lab.report(failed)["judge"]
    assert (section["vote"], section["complete"]) == (False, False)
    assert "the server refuses the request (HTTP 401)" in section["reason"]
    assert "Has no vote" in lab.page(failed)

    server.always = None
    mended = lab.measure(**judged_by(server))
    assert mended.artifact.key != failed.artifact.key
    assert lab.report(mended)["judge"]["vote"] is True

    asked = len(server.requests)
    again = lab.measure(**judged_by(server))
    assert again.artifact == mended.artifact
    assert len(server.requests) == asked


def test_the_gate_hears_a_judge_with_a_vote_and_takes_silence_for_no_verdict(lab, server) -> None:
    store = lab.home.store
    other = lab.measure(max_new_tokens=4).bundle
    heard = read_evidence(store, lab.measure(other, **judged_by(server)).artifact)
    assert not heard.faults
    assert judge_silence(heard) == ([], [])
    suite = judged_answers(heard)
    assert suite.items == JUDGED
    for system in ("tuned", "champion"):
        assert list(suite.scores["judge"][system]) == [0.0] * JUDGED

    server.always = lambda handler, body: handler.complete("I cannot tell.")
    settings = judged_by(server) | {"judge_model": "another"}
    silent = read_evidence(store, lab.measure(other, **settings).artifact)
    assert judged_answers(silent) is None
    ((criterion,), _) = judge_silence(silent)
    assert criterion.verdict == INCONCLUSIVE
    assert "the answer is not one JSON object" in criterion.detail


def test_what_the_judge_writes_is_shown_as_text(lab, server) -> None:
    reason = "<script>alert(1)</script> from mail.kim@example.com"
    server.always = lambda handler, body: handler.complete(
        json.dumps({"reason": reason, "score": 1 + len(server.requests) % 3})
    )
    page = lab.page(lab.measure(judge_ragas=False, **judged_by(server)))
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>" not in page
    assert "mail.kim@example.com" not in page


def test_settings_without_effect_on_the_words_ask_nothing_again(lab, server) -> None:
    lab.measure(**judged_by(server))
    asked = len(server.requests)
    lab.measure(judge_timeout=7.0, judge_max_calls=3, judge_concurrency=1, **judged_by(server))
    assert len(server.requests) == asked
    splits, base, adapter = lab.parts
    lab.parts = (splits, base, replace(adapter, mlflow_run="another"))
    lab.measure(judge_rows=JUDGED + 1, judge_ragas=False, **judged_by(server))
    assert asked < len(server.requests) <= asked + JUDGED + 1


@pytest.mark.slow
def test_a_real_server_whose_model_cannot_judge_gets_no_vote(lab, models, tmp_path) -> None:
    """`transformers serve` with a model that writes no JSON, let alone a verdict."""
    port = free_port()
    serve = [script("transformers"), "serve", str(models / "base"), "--host", "127.0.0.1"]
    with (tmp_path / "serve.log").open("w") as log:
        process = subprocess.Popen(
            [*serve, "--port", str(port)],
            env=environment_for(tmp_path) | {"HF_HUB_OFFLINE": "1"},
            stdout=log,
            stderr=log,
        )
        try:
            wait_until(lambda: is_healthy(process, f"http://127.0.0.1:{port}/health"), "the server")
            url, model = f"http://127.0.0.1:{port}/v1", str(models / "base")
            ref = lab.measure(judge_url=url, judge_model=model, judge_answer_tokens=16)
        finally:
            process.terminate()
            process.wait(20)
    section = lab.report(ref)["judge"]
    assert (section["vote"], section["complete"], section["agreement"]) == (False, False, None)
    assert "No verdict on some answers that people have scored" in section["reason"]
    assert 8 <= section["spent"]["calls"] <= CALIBRATION
    assert section["spent"]["answer_tokens"] > 0


def is_healthy(process: subprocess.Popen[bytes], url: str) -> bool:
    assert process.poll() is None, "the server ended"
    try:
        return requests.get(url, timeout=1).ok
    except requests.RequestException:
        return False
