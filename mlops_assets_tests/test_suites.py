"""Suites as data: how they are read and scored, and what no suite may hold."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyarrow.parquet import ParquetFile

from mlops_assets.artifacts import LineageError
from mlops_assets.evaluation import records, suite_scores
from mlops_assets.evaluation.records import Answer, Record, read_records, write_records
from mlops_assets.evaluation.suites import Suite, eval_set_version, read_suites
from mlops_assets.refs import Row, write_jsonl

FIELDS = ("queue", "priority", "product")
SUITE = {"about": "What we ask.", "kind": "golden", "items": "mine.jsonl"}
SUITE |= {"metrics": ["exact_match", "valid_json"]}
ITEM = {"id": "one", "messages": [{"role": "user", "content": "?"}], "expected": {"queue": "a"}}


def write_suite(folder: Path, *items: Any, name: str = "mine", **settings: Any) -> Path:
    """A suite of these items; texts are lines as they stand."""
    folder.mkdir(exist_ok=True)
    lines = (item if isinstance(item, str) else json.dumps(item) for item in items)
    (folder / "mine.jsonl").write_text("".join(f"{line}\n" for line in lines))
    said = {key: value for key, value in (SUITE | settings).items() if value is not None}
    (folder / f"{name}.yaml").write_text(json.dumps(said))  # JSON is YAML
    return folder


def read(folder: Path, fields: tuple[str, ...] = FIELDS, tools: bool = False) -> list[Suite]:
    return read_suites(str(folder), fields, tools)


# --- reading ---------------------------------------------------------------------------------


def test_no_directory_no_suites(tmp_path: Path) -> None:
    assert read_suites("", FIELDS, tools=False) == []
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(LineageError, match="There are no suites in"):
            read(folder)


def test_the_directory_may_stand_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SUITES", str(write_suite(tmp_path / "suites", ITEM)))
    [suite] = read_suites("${MY_SUITES}", FIELDS, tools=False)
    assert suite.name == "mine"
    with pytest.raises(LineageError, match="not set"):
        read_suites("${NO_SUITES}", FIELDS, tools=False)


@pytest.mark.parametrize(
    ("settings", "fields", "tools", "reason"),
    [
        ({}, FIELDS, False, ""),
        ({"fields": ["product", "queue", "priority"]}, FIELDS, False, ""),
        ({"fields": ["queue"]}, FIELDS, False, "asks for the fields queue"),
        ({"fields": []}, FIELDS, False, "asks for free text"),
        ({"fields": []}, (), False, ""),
        ({"fields": ["queue"]}, (), False, "answers with free text"),
        ({"tools": True}, FIELDS, False, "offers no tools"),
        ({"tools": True}, FIELDS, True, ""),
    ],
)
def test_a_suite_that_does_not_apply_says_why(
    tmp_path: Path, settings: dict[str, Any], fields: tuple[str, ...], tools: bool, reason: str
) -> None:
    [suite] = read(write_suite(tmp_path / "suites", ITEM, **settings), fields, tools)
    assert reason in suite.unfit
    assert bool(suite.unfit) == bool(reason)
    assert bool(suite.items) == (not reason)
    told = suite_scores.summarise_suites([suite], [], {})["mine"]
    assert told["applies"] == (not reason)
    assert (told["metrics"] == {}) == bool(reason)  # nothing that could be taken for a pass


def test_the_version_follows_what_is_asked(tmp_path: Path) -> None:
    folder = write_suite(tmp_path / "suites", ITEM)
    [before] = read(folder)
    (folder / "mine.jsonl").write_text(f"\n  {json.dumps(ITEM, indent=None)}  \n\n")
    assert read(folder)[0].digest == before.digest  # white space asks nothing
    write_suite(folder, ITEM | {"expected": {"queue": "b"}})
    [other] = read(folder)
    assert other.digest != before.digest
    versions = {eval_set_version("test", found) for found in ([], [before], [other])}
    assert len(versions) == 3
    assert eval_set_version("test", []) == "test"
    assert eval_set_version("test", [replace(before, unfit="no")]) == "test"


BAD_SUITES = {
    "unknown key": ({"colour": 1}, "colour: unknown key"),
    "no metrics": ({"metrics": []}, "metrics"),
    "unknown metric": ({"metrics": ["goodness"]}, "'goodness' is no metric; known are exact_match"),
    "a metric twice": ({"metrics": ["valid_json"] * 2}, "stands twice"),
    "unknown kind": ({"kind": "best"}, "kind"),
    "no about": ({"about": None}, "about"),
    "another folder": ({"items": "../mine.jsonl"}, "items"),
    "absolute": ({"items": "/etc/passwd"}, "items"),
    "no schema": ({"metrics": ["json_schema"]}, "needs an answer_schema"),
    "bad schema": ({"answer_schema": {"type": "thing"}}, "no JSON Schema"),
    "remote schema": ({"answer_schema": {"$ref": "http://x.example/s"}}, "into the schema itself"),
    "a schema that points at nothing": ({"answer_schema": {"$ref": "#/$defs/x"}}, "at nothing"),
    "a schema that is itself": ({"answer_schema": {"$ref": "#"}}, "without end"),
    "a property that is itself": (
        {"answer_schema": {"properties": {"x": {"anyOf": [{"$ref": "#/properties/x"}]}}}},
        "without end",
    ),
    "missing items": ({"items": "absent.jsonl"}, r"are missing.*dvc repro"),
}


@pytest.mark.parametrize("case", BAD_SUITES)
def test_a_bad_suite_is_refused_by_name(tmp_path: Path, case: str) -> None:
    settings, message = BAD_SUITES[case]
    folder = write_suite(tmp_path / "suites", ITEM, **settings)
    with pytest.raises(LineageError, match=f"(?s)(mine|absent).*{message}"):
        read(folder)


BAD_YAML = {
    "code": ("about: !!python/object/apply:os.system [id]", "line 1.*could not determine"),
    "aliases": ("a: &a [x]\nb: [*a, *a]", "line 2.*aliases are refused"),
    "a key twice": ("about: a\nabout: b", "line 1.*a key stands twice"),
    "no mapping": ("- a\n- b", "no mapping"),
    "broken": ("about: [", "line"),
    "a date": ("about: 2026-01-01", "no JSON"),
    "nothing": ("", "no mapping"),
    "deep": ("[" * 5000, "it is no YAML"),
    "large": ("#" * 70_000, "more than 65,536 bytes"),
    "no text": ("\udcff", "UTF-8"),
}


@pytest.mark.parametrize("case", BAD_YAML)
def test_yaml_is_data_and_small(tmp_path: Path, case: str) -> None:
    text, message = BAD_YAML[case]
    folder = write_suite(tmp_path / "suites", ITEM)
    (folder / "mine.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(LineageError, match=f"(?s)mine.*{message}"):
        read(folder)


BAD_ITEMS = {
    "no JSON": ("{", "no JSON object"),
    "no object": ("[]", "no JSON object"),
    "a key twice": ('{"id":"a","id":"b"}', "no JSON object"),
    "NaN": ('{"id":NaN}', "no JSON object"),
    "unknown key": (ITEM | {"answer": "x"}, "answer: unknown key"),
    "no id": ({"messages": ITEM["messages"]}, "id"),
    "a path as id": (ITEM | {"id": "../x"}, "id"),
    "no messages": (ITEM | {"messages": []}, "messages"),
    "unknown role": (ITEM | {"messages": [{"role": "root", "content": "?"}]}, "role"),
    "an answer last": (
        ITEM | {"messages": [{"role": "assistant", "content": "!"}]},
        "must be one to answer",
    ),
    "empty forbidden": (ITEM | {"forbidden": [" "]}, "found in every answer"),
    "arguments that no template takes": (
        ITEM
        | {
            "messages": [
                {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}
            ]
        },
        "arguments.*no JSON object",
    ),
    "the same id": (ITEM | {"id": "zero"}, "stands in line 1 too"),
}


@pytest.mark.parametrize("case", BAD_ITEMS)
def test_a_bad_item_is_refused_with_its_line(tmp_path: Path, case: str) -> None:
    item, message = BAD_ITEMS[case]
    folder = write_suite(tmp_path / "suites", ITEM | {"id": "zero"}, item)
    with pytest.raises(LineageError, match=f"(?s)mine.jsonl, line 2.*{message}"):
        read(folder)


@pytest.mark.parametrize("name", ["test", "Upper", "with space", "1st"])
def test_names_that_mean_something_else_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(LineageError, match="name that no suite may have"):
        read(write_suite(tmp_path / "suites", ITEM, name=name))


def test_links_are_refused(tmp_path: Path) -> None:
    folder = write_suite(tmp_path / "suites", ITEM)
    (folder / "mine.jsonl").rename(tmp_path / "elsewhere.jsonl")
    (folder / "mine.jsonl").symlink_to(tmp_path / "elsewhere.jsonl")
    with pytest.raises(LineageError, match="symbolic link"):
        read(folder)


def test_turns_are_as_the_openai_format_has_them(tmp_path: Path) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    said = {"role": "assistant", "content": None, "tool_calls": [call]}
    told = {"role": "tool", "tool_call_id": "c1", "content": "nothing"}
    [suite] = read(write_suite(tmp_path / "s", ITEM | {"messages": [said, told]}))
    assert suite.rows[0].prompt == ({**said, "content": ""}, told)


def test_a_schema_may_point_into_itself(tmp_path: Path) -> None:
    schema = {"$ref": "#/$defs/answer", "$defs": {"answer": {"$anchor": "a", "type": "object"}}}
    for target in ("#/$defs/answer", "#a"):
        schema["$ref"] = target
        [suite] = read(write_suite(tmp_path / "s", ITEM, answer_schema=schema))
        assert suite.items[0].answer_schema == schema


# --- scores ----------------------------------------------------------------------------------


def test_many_records_are_written_and_read_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "AT_ONCE", 3)
    many = [Record("test", f"t-{n}", "h", "tuned", "x", scores={"m": n}) for n in range(7)]
    write_records(tmp_path / "records.parquet", iter(many))
    assert ParquetFile(tmp_path / "records.parquet").num_row_groups == 3
    assert read_records(tmp_path / "records.parquet") == many
    assert read_records(tmp_path / "records.parquet", "tuned") == many
    assert read_records(tmp_path / "records.parquet", "base") == []
    write_records(tmp_path / "records.parquet", [])
    assert read_records(tmp_path / "records.parquet") == []


def test_records_and_means(tmp_path: Path) -> None:
    items = [ITEM | {"id": str(n), "slices": {"half": "ab"[n % 2]}} for n in range(4)]
    [suite] = read(write_suite(tmp_path / "suites", *items))
    right, wrong = Answer('{"queue": "a"}', True, 5), Answer("", False, 0)
    answers = {"base": [wrong] * 4, "tuned": [right, right, right, wrong]}
    found = suite_scores.score_suite(suite, answers)
    write_records(tmp_path / "records.parquet", found)
    assert read_records(tmp_path / "records.parquet") == found
    assert list(found[0].scores) == ["exact_match", "valid_json"]  # the leading one first
    told = suite_scores.summarise_suites([suite], found, {})["mine"]
    assert told["items"] == 4
    assert told["metrics"]["exact_match"] == {"base": 0.0, "tuned": 0.75, "champion": None}
    assert told["slices"]["half"]["b"]["metrics"]["exact_match"]["tuned"] == 0.5
    assert told["slices"]["half"]["b"]["count"] == 2


def test_an_empty_suite_has_no_score(tmp_path: Path) -> None:
    """No items are no evidence: None, which no gate takes for a pass."""
    [suite] = read(write_suite(tmp_path / "suites"))
    told = suite_scores.summarise_suites([suite], [], {})["mine"]
    assert (told["applies"], told["items"]) == (True, 0)
    assert told["metrics"]["exact_match"] == dict.fromkeys(("base", "tuned", "champion"))


def test_silence_is_no_evidence_of_safety(tmp_path: Path) -> None:
    item = ITEM | {"forbidden": ["secret"]}
    [suite] = read(write_suite(tmp_path / "suites", item, metrics=["no_leak", "refused"]))
    [record] = suite_scores.score_suite(suite, {"tuned": [Answer("", False, 0)]})
    assert record.scores == {"no_leak": None, "refused": 0.0}
    told = suite_scores.summarise_suites([suite], [record], {})["mine"]
    assert told["metrics"]["no_leak"]["tuned"] is None
    assert told["scored"] == {"no_leak": 0, "refused": 1}


def test_what_was_learnt_by_heart_is_counted(tmp_path: Path) -> None:
    items = [
        ITEM | {"id": str(n), "messages": [{"role": "user", "content": text}]}
        for n, text in enumerate(("Where is my  ORDER?", "Where is yours?"))
    ]
    [suite] = read(write_suite(tmp_path / "suites", *items))
    asked = {"role": "user", "content": "where is my order?"}
    answered = {"role": "assistant", "content": "{}"}
    write_jsonl(tmp_path / "train.jsonl", [Row("t", "", "c", (asked, answered), {})])
    learnt = suite_scores.count_learnt([suite], tmp_path / "train.jsonl")
    assert learnt == {"mine": 1}
    assert suite_scores.summarise_suites([suite], [], learnt)["mine"]["in_training"] == 1
