"""ragas' LLM metrics, asked through the judge's server."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import requests

from mlops_assets.evaluation.judge import Judgement, judge_answers
from mlops_assets.evaluation.judge_http import NoVerdictError, vector
from mlops_assets.evaluation.judge_sample import Judged
from mlops_assets.evaluation.ragas_llm import NO_CONTEXTS, NO_EMBEDDINGS
from mlops_assets.evaluation.spec import EvaluationSpec
from mlops_assets_tests.judge_server import (
    CALIBRATION,
    Handler,
    JudgeServer,
    embedding,
    honest,
    serve_judge,
    write_calibration,
)
from mlops_assets_tests.small_encoder import make_encoder

PARIS = '{"queue":"billing"}'
CONTEXTS = ("Paris is the capital. It is large", "Berlin is in Germany")
VERDICT = {"statement": "a", "reason": "", "verdict": 1}


@pytest.fixture
def server():
    with serve_judge() as found:
        yield found


def score(server: JudgeServer, items: list[Judged], folder: Path, **settings: Any) -> Judgement:
    chosen = {"judge_url": server.url, "judge_model": "m", "judge_concurrency": 8}
    chosen |= {"judge_calibration": str(write_calibration(folder))} | settings
    fields = ("queue", "priority", "product")
    return judge_answers(
        items, fields, EvaluationSpec(**chosen), folder / "judge.db", first_wait=0.001
    )


def retrieved(number: int, *, reference: str = "{}", **outputs: str) -> Judged:
    messages = [
        {"role": "user", "content": f"What is the capital, question {number}?"},
        *({"role": "tool", "content": text} for text in CONTEXTS),
    ]
    return Judged("test", f"i-{number}", messages, reference, outputs)


def plain(number: int, **outputs: str) -> Judged:
    messages = [{"role": "user", "content": f"Question {number}?"}]
    return Judged("test", f"i-{number}", messages, PARIS, outputs)


def test_every_metric_has_the_value_that_its_formula_gives(server, tmp_path) -> None:
    item = retrieved(
        0,
        reference="Paris is the capital. Rome is old",
        tuned="It is large. It is red. Berlin is in Germany",
    )
    found = score(server, [item], tmp_path, judge_embedding_model="e")
    one, two = embedding(item.request), embedding(item.outputs["tuned"])
    cosine = (
        sum(a * b for a, b in zip(one, two, strict=True))
        / (sum(a * a for a in one) * sum(b * b for b in two)) ** 0.5
    )
    expected = {
        "faithfulness": 2 / 3,  # two of three statements stand in a context
        "answer_relevancy": cosine,
        "context_precision": 1.0,  # the useful context comes first
        "context_recall": 1 / 2,  # one of the reference's two sentences
        "rubric_score": 0.0,  # another text than the reference
    }
    scores = found.scores["test", "i-0", "tuned"]
    assert {name: scores[name] for name in expected} == pytest.approx(expected)
    ragas = found.section["ragas"]
    assert {name: part["scores"]["tuned"] for name, part in ragas.items()} == pytest.approx(
        expected
    )
    assert {part["rows"] for part in ragas.values()} == {1}


def test_metrics_of_contexts_run_only_where_there_are_some(server, tmp_path) -> None:
    found = score(server, [plain(0, tuned=PARIS), plain(1, tuned="{}")], tmp_path)
    ragas = found.section["ragas"]
    for name in ("faithfulness", "context_precision", "context_recall"):
        assert ragas[name] == {"rows": 0, "scores": {}, "reason": NO_CONTEXTS}
    assert ragas["rubric_score"] == {"rows": 2, "scores": {"tuned": 0.5}, "reason": ""}
    assert found.section["vote"] is True


def test_relevancy_without_embeddings_is_absent_and_says_why(server, tmp_path) -> None:
    found = score(server, [plain(0, tuned=PARIS)], tmp_path)
    relevancy = found.section["ragas"]["answer_relevancy"]
    assert relevancy == {"rows": 0, "scores": {}, "reason": NO_EMBEDDINGS}
    assert "answer_relevancy" not in found.scores["test", "i-0", "tuned"]


def test_a_local_encoder_takes_the_place_of_the_servers(server, tmp_path) -> None:
    encoder = make_encoder(tmp_path / "encoder", ("Question", "0", "?", "Q"))
    found = score(server, [plain(0, tuned="Question 0?")], tmp_path, judge_encoder=str(encoder))
    relevancy = found.scores["test", "i-0", "tuned"]["answer_relevancy"]
    assert relevancy == pytest.approx(1.0)  # the question made from it is the request itself


@pytest.mark.parametrize(
    ("metric", "asked", "answer", "reason"),
    [
        ("rubric_score", "RubricScore", {"feedback": "", "score": 9}, "the score is out of range"),
        ("rubric_score", "RubricScore", {"feedback": "", "score": 3, "x": 1}, "has other keys"),
        ("answer_relevancy", "AnswerRelevance", {"question": " ", "noncommittal": 0}, "is empty"),
        ("answer_relevancy", "AnswerRelevance", {"question": "Q", "noncommittal": 2}, "0 nor 1"),
        ("context_precision", "ContextPrecision", {"reason": "", "verdict": 7}, "0 nor 1"),
        ("context_recall", "ContextRecall", {"classifications": []}, "came to no number"),
        ("faithfulness", "StatementGenerator", {"statements": []}, "came to no number"),
        ("faithfulness", "NLIStatement", {"statements": [VERDICT]}, "some statements have no"),
    ],
)
def test_what_ragas_would_let_pass_is_no_value(
    server, tmp_path, metric, asked, answer, reason
) -> None:
    def reply(handler: Handler, body: dict[str, Any]) -> None:
        form = body.get("response_format", {}).get("json_schema", {})
        if form.get("name") == f"{asked}Output":
            handler.complete(json.dumps(answer))
        else:
            honest(handler, body)

    server.always = reply
    item = retrieved(0, reference="Paris is the capital", tuned="It is large. It is red")
    found = score(server, [item], tmp_path, judge_embedding_model="e")
    part = found.section["ragas"][metric]
    assert part["scores"] == {"tuned": None}
    assert reason in part["reason"]
    assert found.scores["test", "i-0", "tuned"][metric] is None
    # A metric's trouble costs the judge no vote.
    assert found.section["vote"] is True


def test_an_empty_answer_has_no_value_and_is_not_left_out_of_the_mean(server, tmp_path) -> None:
    found = score(server, [plain(0, tuned=PARIS), plain(1, tuned="")], tmp_path)
    part = found.section["ragas"]["rubric_score"]
    assert part["scores"] == {"tuned": None}
    assert part["reason"] == "ragas takes no empty response"


def test_nothing_goes_anywhere_else(server, tmp_path, monkeypatch) -> None:
    """Neither ragas' telemetry nor OpenAI's servers hear of it."""

    def refuse(*args: object, **_: object) -> None:
        raise AssertionError(f"ragas sends to {args}")

    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    monkeypatch.setenv("RAGAS_DO_NOT_TRACK", "false")
    monkeypatch.setattr(requests, "post", refuse)
    hosts: set[object] = set()
    monkeypatch.setattr("socket.socket.connect", watched(hosts, socket.socket.connect))
    score(server, [plain(0, tuned=PARIS)], tmp_path)
    assert hosts <= {"127.0.0.1"}
    assert all(not set(found) & {"Authorization"} for found in server.headers)


def watched(hosts: set[object], connect: Any) -> Any:
    def wrapper(self: Any, address: Any) -> Any:
        hosts.add(address[0])
        return connect(self, address)

    return wrapper


def test_switched_off_nothing_is_asked_for_it(server, tmp_path) -> None:
    found = score(server, [plain(0, tuned=PARIS)], tmp_path, judge_ragas=False)
    assert found.section["ragas"] == {}
    assert len(server.requests) == CALIBRATION + 1


@pytest.mark.parametrize("numbers", [[0.0, 0.0], [1e999], [10**400], ["x"], 3, []])
def test_what_is_no_vector_has_no_verdict(numbers: object) -> None:
    with pytest.raises(NoVerdictError, match="embedding"):
        vector({"data": [{"embedding": numbers}]})
