"""Cases from people's corrections, as one more suite of the evaluation."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.artifacts import LineageError
from mlops_assets.evaluation.feedback_suites import read_feedback_suites
from mlops_assets.evaluation.spec import EvaluationSpec
from mlops_assets.evaluation.suite_format import SuiteSpec
from mlops_assets.evaluation.suites import Suite, eval_set_version, suite_of
from mlops_assets.refs import Row, write_jsonl

SPEC = {
    "about": "What people corrected.",
    "kind": "feedback",
    "items": "regressions.jsonl",
    "metrics": ["exact_match"],
    "fields": ["queue"],
}


def case(number: int) -> dict[str, Any]:
    asked = [{"role": "user", "content": f"Where is lamp {number}?"}]
    return {"id": f"feedback-{number}", "messages": asked, "expected": {"queue": "shipping"}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "feedback"
    folder.mkdir()
    (folder / "feedback.yaml").write_text(json.dumps(SPEC))
    text = "".join(json.dumps(case(number)) + "\n" for number in range(12))
    (folder / "regressions.jsonl").write_text(text)
    pin(folder, hashlib.md5(text.encode(), usedforsecurity=False).hexdigest())
    return folder


def pin(folder: Path, md5: str) -> None:
    pointer = {"outs": [{"md5": md5, "path": "regressions.jsonl"}]}
    (folder / "regressions.jsonl.dvc").write_text(json.dumps(pointer))


def read(folder: Path | str, train: Path, *others: Suite, least: int = 10) -> list[Suite]:
    spec = EvaluationSpec(feedback_suites=str(folder), minimum_feedback_cases=least)
    return read_feedback_suites(spec, ("queue",), False, train, others)


@pytest.fixture
def train(tmp_path: Path) -> Path:
    """A train split that holds two of the cases, one of them in other letters."""
    texts = ("WHERE is  lamp 3?", "Where is lamp 7?", "Where am I?")
    rows = [
        Row(text, "", "", ({"role": "user", "content": text}, {"role": "assistant"}), {})
        for text in texts
    ]
    write_jsonl(tmp_path / "train.jsonl", rows)
    return tmp_path / "train.jsonl"


def test_without_feedback_there_is_no_suite(tmp_path: Path, train: Path) -> None:
    assert read("", train) == read(tmp_path / "nothing", train) == []


def test_a_case_that_was_trained_on_is_never_asked(folder: Path, train: Path) -> None:
    (suite,) = read(folder, train)
    asked = {item.messages[-1].content for item in suite.items}
    assert asked == {f"Where is lamp {number}?" for number in range(12) if number not in (3, 7)}
    assert (suite.name, suite.spec.kind, suite.unfit) == ("feedback", "feedback", "")
    assert eval_set_version("t", [suite]) != "t"


def test_too_few_cases_are_not_asked_and_hold_no_gate_up(folder: Path, train: Path) -> None:
    (suite,) = read(folder, train, least=11)
    assert suite.items == ()
    assert suite.unfit == "10 cases are too few: it is asked from 11 on"
    assert eval_set_version("t", [suite]) == "t"


def test_what_is_asked_is_what_dvc_has_pinned(folder: Path, train: Path) -> None:
    pin(folder, "0" * 32)
    with pytest.raises(LineageError, match="not the version that DVC has pinned"):
        read(folder, train)
    (folder / "regressions.jsonl.dvc").unlink()
    with pytest.raises(LineageError, match="which version of regressions"):
        read(folder, train)


def test_two_suites_have_two_names(folder: Path, train: Path) -> None:
    other = suite_of("feedback", SuiteSpec(**SPEC), ())
    with pytest.raises(LineageError, match="the name of another suite"):
        read(folder, train, other)


def test_it_lies_in_the_home_by_name(train: Path, home: Any, folder: Path) -> None:
    folder.rename(home.root / "feedback")
    assert len(read("${MLOPS_HOME}/feedback", train)) == 1
