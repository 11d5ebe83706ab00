"""The suites that we ship: whom they are for, what they hold, and that nobody learnt from it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mlops_assets.dataset import suite_items, synthetic, versioning
from mlops_assets.evaluation import suite_scores
from mlops_assets.evaluation.records import Answer
from mlops_assets.evaluation.suites import Suite, read_suites
from mlops_assets.profiles import PROJECT

FIELDS = ("queue", "priority", "product")


def read(folder: Path, fields: tuple[str, ...] = FIELDS, tools: bool = False) -> list[Suite]:
    return read_suites(str(folder), fields, tools)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The suites as git holds them, with the generated items made anew."""
    folder = tmp_path_factory.mktemp("shipped") / "evals"
    shutil.copytree(PROJECT / "data" / "evals", folder)
    lines = (folder / "attacks.jsonl").read_text().splitlines()
    suite_items.write_suites(folder, 20260801, [json.loads(line) for line in lines])
    return folder


def test_the_shipped_suites_apply_to_the_models_that_they_are_made_for(shipped: Path) -> None:
    tickets = {suite.name: suite for suite in read(shipped)}
    chat = {suite.name: suite for suite in read(shipped, (), tools=True)}
    other = read(shipped, ("intent",))
    assert {name for name, suite in tickets.items() if suite.unfit} == {"refusals", "tool_calls"}
    assert {name for name, suite in chat.items() if not suite.unfit} == {"refusals", "tool_calls"}
    assert all(suite.unfit and not suite.items for suite in other)
    assert all(suite.items for suite in tickets.values() if not suite.unfit)
    assert sum(len(suite.items) for suite in tickets.values()) <= 300
    assert {suite.spec.kind for suite in tickets.values()} == {
        "golden", "slices", "regression", "safety", "tools"
    }  # fmt: skip


def test_every_shipped_reference_is_a_perfect_answer(shipped: Path) -> None:
    for suite in (*read(shipped), *read(shipped, (), tools=True)):
        answers = [Answer(item.reference) for item in suite.items]
        for record in suite_scores.score_suite(suite, {"tuned": answers}):
            scored = {name: score for name, score in record.scores.items() if score is not None}
            if record.reference:
                assert scored == dict.fromkeys(suite.spec.metrics, 1.0), record


def test_attacks_that_succeed_cost_points(shipped: Path) -> None:
    """Repeating the request, attack included, is the worst that an answer can do."""
    suites = {suite.name: suite for suite in read(shipped)}
    for name in ("injection", "personal_data"):
        metrics = {"metrics": ["no_leak", "json_schema"]}
        suite = replace(suites[name], spec=suites[name].spec.model_copy(update=metrics))
        echoed = [Answer(item.messages[-1].content) for item in suite.items]
        told = suite_scores.summarise_suites(
            [suite], suite_scores.score_suite(suite, {"tuned": echoed}), {}
        )
        assert told[name]["metrics"]["no_leak"]["tuned"] < 0.5
        assert told[name]["metrics"]["json_schema"]["tuned"] == 0.0


def test_dvc_pins_the_items_of_every_suite(shipped: Path) -> None:
    """Generated ones by the stage that makes them, those that people wrote by a pointer in git."""
    for name in [suite.name for suite in read(shipped)]:
        pinned = versioning.pin(PROJECT / "data" / "evals" / f"{name}.jsonl")
        assert pinned is not None
        assert versioning.dvc_hash(shipped / f"{name}.jsonl") == pinned.version


def test_no_generated_text_stands_in_the_training_data(shipped: Path) -> None:
    trained = {
        suite_items.normalised(turn["content"])
        for line in synthetic.tickets_lines(*suite_items.TICKETS)
        if line.startswith('{"id"') and line.endswith("}")
        for turn in json.loads(line).get("messages") or ()
    }
    suites = {suite.name: suite for suite in read(shipped)}
    asked = [
        suite_items.normalised(item.messages[-1].content)
        for name in ("golden", "styles", "over_refusal")
        for item in suites[name].items
    ]
    assert len(set(asked)) == len(asked)
    assert not trained & set(asked)


def test_the_styles_tell_the_same_cases(shipped: Path) -> None:
    [styles] = [suite for suite in read(shipped) if suite.name == "styles"]
    cases: dict[str, set[str]] = {}
    for item in styles.items:
        cases.setdefault(item.id[: len("case-00")], set()).add(item.reference)
    assert len(cases) == suite_items.CASES
    assert all(len(answers) == 1 for answers in cases.values())
