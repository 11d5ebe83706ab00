"""What a release got wrong becomes a question to every later one."""

import json
from pathlib import Path

import pytest

from mlops_assets.artifacts import Artifact, LineageError, Recipe
from mlops_assets.evaluation.records import Answer, make_records, write_records
from mlops_assets.evaluation.regressions import find_regressions, write_regressions
from mlops_assets.evaluation.suites import read_suites
from mlops_assets.home import Home
from mlops_assets.ref_json import dump_ref
from mlops_assets.refs import EvalReportRef, ReleaseBundle, Row, SplitsRef, write_jsonl
from mlops_assets_tests.commands import run_command
from mlops_assets_tests.conftest import VERSIONS

LABELS = {"queue": ("billing", "sales")}
RIGHT, WRONG = '{"queue":"billing"}', '{"queue":"sales"}'
ANSWERS = {  # of four rows
    "tuned": [RIGHT, RIGHT, RIGHT, WRONG],
    "champion": [RIGHT, WRONG, "write to maria@example.com", WRONG],
}


def row(number: int) -> Row:
    asked = {"role": "user", "content": f"Invoice {number}, please"}
    answered = {"role": "assistant", "content": RIGHT}
    return Row(f"t-{number}", "", f"c{number}", (asked, answered), {"channel": "chat"})


@pytest.fixture
def suites(tmp_path: Path) -> Path:
    folder = tmp_path / "evals"
    folder.mkdir()
    said = {"about": "Past failures.", "kind": "regression", "items": "past.jsonl"}
    (folder / "past.yaml").write_text(json.dumps(said | {"metrics": ["exact_match"]}))
    return folder


@pytest.fixture
def measured(home: Home) -> Home:
    """A home with a report on four rows."""
    rows = [row(number) for number in range(4)]
    splits = put(home, "splits", lambda folder: write_jsonl(folder / "test.jsonl", rows))
    answers = {name: [Answer(text) for text in texts] for name, texts in ANSWERS.items()}
    scores = {
        name: [{"exact_match": float(text == RIGHT)} for text in texts]
        for name, texts in ANSWERS.items()
    }

    def write(folder: Path) -> None:
        write_records(folder / "records.parquet", make_records("test", rows, answers, scores))
        report = {"candidate": "c" * 64, "champion": "d" * 64}
        report |= {"provenance": {"splits": splits.digest}}
        (folder / "report.json").write_text(json.dumps(report))

    report = put(home, "eval_report", write)
    bundle = ReleaseBundle(splits, splits, "t" * 64, "p" * 64, {}, VERSIONS)
    refs = {
        "dataset_splits": SplitsRef(splits, VERSIONS, {"test": 4}, LABELS),
        "eval_report": EvalReportRef(report, bundle, None),
    }
    for name, ref in refs.items():
        home.write_ref(name, "run", dump_ref(ref))
    return home


def put(home: Home, kind: str, write) -> Artifact:
    return home.store.build(Recipe(kind, {}, {}, "1"), lambda folder: {"made": bool(write(folder))})


@pytest.mark.parametrize(
    ("system", "fixed", "asked"),
    [
        ("tuned", False, ["Invoice 3, please"]),
        ("champion", False, [f"Invoice {n}, please" for n in (1, 2, 3)]),
        ("champion", True, [f"Invoice {n}, please" for n in (1, 2)]),
        ("tuned", True, []),
    ],
)
def test_failures_become_cases(
    measured: Home, suites: Path, system: str, fixed: bool, asked: list[str]
) -> None:
    found = find_regressions(measured, str(suites), "past", system, fixed, 20)
    assert [item.messages[-1].content for item in found.new] == asked
    assert not found.file.exists()  # looking writes nothing


def test_cases_are_a_suite_and_are_added_once(measured: Home, suites: Path) -> None:
    first = find_regressions(measured, str(suites), "past", "champion", True, 1)
    write_regressions(first)
    again = find_regressions(measured, str(suites), "past", "champion", True, 20)
    assert (len(first.new), len(again.new), again.known) == (1, 1, 1)
    first.file.write_text(first.file.read_text().rstrip())  # as some editors leave it
    write_regressions(again)
    assert find_regressions(measured, str(suites), "past", "champion", True, 20).new == ()
    [suite] = read_suites(str(suites), ("queue",), tools=False)
    assert suite.items == (*first.new, *again.new)
    assert [item.reference for item in suite.items] == [RIGHT, RIGHT]
    assert suite.items[0].slices == {"channel": "chat"}
    assert suite.items[0].note == f"champion {'d' * 12} answered {WRONG}"
    assert "maria" not in suite.items[1].note  # what a model gave away is not kept


def test_what_cannot_be_told_is_an_error(measured: Home, suites: Path, tmp_path: Path) -> None:
    with pytest.raises(LineageError, match=r"knows no answers of 'nobody'.*tuned, champion"):
        find_regressions(measured, str(suites), "past", "nobody", False, 20)
    with pytest.raises(LineageError, match=r"absent\.yaml cannot be read"):
        find_regressions(measured, str(suites), "absent", "tuned", False, 20)
    other = put(measured, "other", lambda folder: (folder / "test.jsonl").write_text(""))
    ref = SplitsRef(other, VERSIONS, {"test": 0}, LABELS)
    measured.write_ref("dataset_splits", "later", dump_ref(ref))
    with pytest.raises(LineageError, match=r"measured other splits.*evaluate"):
        find_regressions(measured, str(suites), "past", "tuned", False, 20)


def test_without_a_report_there_is_nothing_to_learn_from(home: Home, suites: Path) -> None:
    with pytest.raises(LineageError, match=r"no report .* yet"):
        find_regressions(home, str(suites), "past", "tuned", False, 20)


@pytest.mark.slow
def test_the_command(measured: Home, suites: Path, tmp_path: Path) -> None:
    profile = tmp_path / "profile.yaml"
    profile.write_text(f"ops: {{eval_report: {{config: {{suites: {suites}}}}}}}\n")
    command = ("mlops", "regressions", "--suite", "past")
    shown = run_command(*command, home=measured.root, MLOPS_PROFILE=str(profile))
    assert shown.code == 0, shown.output
    assert "Invoice 3, please" in shown.output
    assert "Nothing is written yet" in shown.output
    assert not (suites / "past.jsonl").exists()
    added = run_command(*command, "--write", home=measured.root, MLOPS_PROFILE=str(profile))
    assert added.code == 0, added.output
    assert len((suites / "past.jsonl").read_text().splitlines()) == 1
    failed = run_command(*command, "--of", "nobody", home=measured.root)
    assert failed.code == 1
    assert "Traceback" not in failed.output
