"""Reading source data: every format, and what becomes of its fields."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.artifacts import LineageError
from mlops_assets.dataset import sources
from mlops_assets.dataset.sources import Candidate
from mlops_assets.dataset.spec import RawDatasetSpec
from mlops_assets.privacy import DEFAULT_POLICY, Detector

QUESTION = {"role": "user", "content": "Weather in Oslo?"}
ANSWER = {"role": "assistant", "content": "Snow."}
WORSE = {"role": "assistant", "content": "No idea."}
SYSTEM = {"role": "system", "content": "Be terse."}
CHAT = [QUESTION, ANSWER]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"at":1}'}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "-3 C"}
SOUND = json.dumps({"messages": CHAT})


def read(path: Path, **settings: Any) -> list[Candidate]:
    """Every candidate of the source, with the default settings."""
    raw = sources.locate(RawDatasetSpec(path=str(path), **settings))
    return list(sources.candidates(raw, "group", [], "label", Detector(DEFAULT_POLICY)))


def written(folder: Path, name: str, *records: Any) -> Path:
    path = folder / name
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return path


# Formats

JSON_LINES: dict[str, tuple[dict[str, Any], str, list[dict[str, Any]]]] = {
    "messages": ({"messages": CHAT}, "messages", CHAT),
    "system turn": ({"messages": [SYSTEM, *CHAT]}, "messages", [SYSTEM, *CHAT]),
    "system text beside the turns": (
        {"system": "Be terse.", "messages": CHAT},
        "messages",
        [SYSTEM, *CHAT],
    ),
    "system text and turn": (
        {"system": "Be terse.", "messages": [SYSTEM, *CHAT]},
        "messages",
        [SYSTEM, *CHAT],
    ),
    "text in parts": (
        {"messages": [QUESTION | {"content": [{"type": "text", "text": "Hi"}]}, ANSWER]},
        "messages",
        [QUESTION | {"content": "Hi"}, ANSWER],
    ),
    "tool call": (
        {"messages": [QUESTION, CALLING, RESULT, ANSWER], "tools": TOOLS},
        "messages",
        [QUESTION, CALLING | {"content": ""}, RESULT, ANSWER],
    ),
    "prompt and completion": (
        {"prompt": "Weather in Oslo?", "completion": "Snow."},
        "prompt_completion",
        CHAT,
    ),
    "with system text": (
        {"system": "Be terse.", "prompt": "Weather in Oslo?", "completion": "Snow."},
        "prompt_completion",
        [SYSTEM, *CHAT],
    ),
    "as lists": (
        {"prompt": [SYSTEM, QUESTION], "completion": [ANSWER]},
        "prompt_completion",
        [SYSTEM, *CHAT],
    ),
    "label": (
        {"prompt": "Weather in Oslo?", "label": "weather"},
        "prompt_completion",
        [QUESTION, ANSWER | {"content": '{"label":"weather"}'}],
    ),
    "preference": (
        {"prompt": "Weather in Oslo?", "chosen": "Snow.", "rejected": "No idea."},
        "preference",
        CHAT,
    ),
    "preference as lists": (
        {"prompt": [QUESTION], "chosen": [ANSWER], "rejected": [WORSE]},
        "preference",
        CHAT,
    ),
    "prompt repeated": (
        {"prompt": "Weather in Oslo?", "chosen": CHAT, "rejected": [QUESTION, WORSE]},
        "preference",
        CHAT,
    ),
    "shared beginning": (
        {"chosen": [SYSTEM, *CHAT], "rejected": [SYSTEM, QUESTION, WORSE]},
        "preference",
        [SYSTEM, *CHAT],
    ),
}


@pytest.mark.parametrize("case", JSON_LINES)
def test_json_lines(tmp_path: Path, case: str) -> None:
    record, named, expected = JSON_LINES[case]
    path = written(tmp_path, "data.jsonl", record)
    raw = sources.locate(RawDatasetSpec(path=str(path)))
    assert raw.format == named
    (row,) = read(path)
    assert row.form == "object"
    assert list(row.messages or ()) == expected
    assert row.rejected == (WORSE if named == "preference" else None)
    assert list(row.tools) == record.get("tools", [])
    assert row.id
    assert row.group
    assert row.timestamp is None
    assert read(path, format=named) == [row]
    assert read(path)[0].id == row.id, "an id made from the content is stable"


def save_csv(path: Path) -> None:
    path.write_text('id,question,answer\n7,"Weather in ""Oslo""?\nToday.",Snow.\n')


def save_tsv(path: Path) -> None:
    path.write_text('id\tquestion\tanswer\n7\t"Weather in ""Oslo""?\nToday."\tSnow.\n')


def save_parquet(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = {"id": [7], "question": ['Weather in "Oslo"?\nToday.'], "answer": ["Snow."]}
    pq.write_table(pa.table(table), path)


def save_dataset(path: Path) -> None:
    from datasets import Dataset

    record = {"id": 7, "question": 'Weather in "Oslo"?\nToday.', "answer": "Snow."}
    Dataset.from_list([record]).save_to_disk(path)


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("data.csv", save_csv),
        ("data.tsv", save_tsv),
        ("told by its content", save_tsv),
        ("data.parquet", save_parquet),
        ("dataset", save_dataset),
    ],
)
def test_tables_with_a_mapping(tmp_path: Path, name: str, save: Callable[[Path], None]) -> None:
    save(tmp_path / name)
    (row,) = read(tmp_path / name, mapping={"prompt": "question", "completion": "answer"})
    asked = {"role": "user", "content": 'Weather in "Oslo"?\nToday.'}
    assert row.messages == (asked, ANSWER)
    assert row.id == "7"


def test_tables_hold_conversations(tmp_path: Path) -> None:
    """Lists of structs, in which Arrow gives every turn the fields of all of them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    talk = [QUESTION, CALLING, RESULT, ANSWER]
    pq.write_table(pa.table({"messages": [talk, CHAT], "tools": [json.dumps(TOOLS)] * 2}),
                   tmp_path / "data.parquet")  # fmt: skip
    first, second = read(tmp_path / "data.parquet")
    assert list(first.messages or ()) == [QUESTION, CALLING | {"content": ""}, RESULT, ANSWER]
    assert list(second.messages or ()) == CHAT
    assert list(first.tools) == TOOLS


def test_values_of_slices_are_texts(tmp_path: Path) -> None:
    path = written(
        tmp_path, "data.jsonl", {"messages": CHAT, "year": 2026, "paid": True, "tags": []}
    )
    raw = sources.locate(RawDatasetSpec(path=str(path)))
    names = ["year", "paid", "tags", "nothing"]
    (row,) = sources.candidates(raw, "group", names, "label", Detector(DEFAULT_POLICY))
    assert row.slices == {"year": "2026", "paid": "true", "tags": "unknown", "nothing": "unknown"}


def test_a_nul_in_a_cell_costs_its_row(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "data.parquet"
    pq.write_table(pa.table({"prompt": ["a\0b", "c"], "completion": ["d", "e"]}), path)
    assert [row.form for row in read(path)] == ["nul_byte", "object"]


def test_splits_of_a_dataset_dictionary_are_pinned(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    def part(text: str) -> Dataset:
        return Dataset.from_list([{"prompt": text, "completion": "a"}])

    folder = tmp_path / "both"
    DatasetDict(train_sft=part("x"), validation=part("y"), test=part("z")).save_to_disk(folder)
    rows = [(row.split, row.file.partition("/")[0]) for row in read(folder)]
    assert rows == [("train", "train_sft"), ("train", "validation"), ("test", "test")]
    DatasetDict(train=part("x")).save_to_disk(tmp_path / "one")
    assert [row.split for row in read(tmp_path / "one")] == [None]
    DatasetDict(alpha=part("x")).save_to_disk(tmp_path / "odd")
    with pytest.raises(LineageError, match=r"split 'alpha' of .* is neither"):
        read(tmp_path / "odd")


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (
            ["data/test-00000.csv", "data/train-00000.csv", "data/train-00001.csv"],
            "test train train",
        ),
        (["test/a.csv", "train/a.csv"], "test train"),
        (["train-00000.csv", "train-00001.csv"], "None None"),
        (["a.csv", "b.csv"], "None None"),
    ],
)  # fmt: skip
def test_a_directory_of_files(tmp_path: Path, names: list[str], splits: str) -> None:
    for name in names:
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        save_csv(tmp_path / "folder" / name)
    (tmp_path / "folder" / "README.md").write_text("A card.")
    rows = read(tmp_path / "folder", mapping={"prompt": "question", "completion": "answer"})
    assert [row.file for row in rows] == names
    assert [str(row.split) for row in rows] == splits.split()


def test_ids_and_groups_are_made_only_where_the_file_has_none(tmp_path: Path) -> None:
    own = {"id": "1", "group": "ann", "messages": CHAT}
    rows = read(written(tmp_path, "data.jsonl", own, {"messages": CHAT}))
    assert [(row.id, row.group) for row in rows] == [("1", "ann"), (None, None)]
    made = read(written(tmp_path, "data.jsonl", {"messages": CHAT}, {"messages": [SYSTEM, *CHAT]}))
    assert len({row.id for row in made}) == len({row.group for row in made}) == 2


def test_personal_data_is_taken_out_everywhere(tmp_path: Path) -> None:
    call = {"function": {"name": "weather", "arguments": {"to": "ann@example.com"}}}
    record = {
        "id": "ann@example.com",
        "messages": [
            SYSTEM | {"content": "For ann@example.com", "name": "ann@example.com"},
            QUESTION,
            {"role": "assistant", "tool_calls": [call]},
        ],
        "tools": [
            {"type": "function", "function": {"name": "f", "description": "ann@example.com"}}
        ],
        "rejected": "Write to ann@example.com",
    }
    (row,) = read(written(tmp_path, "data.jsonl", record))
    assert row.redactions["email"] >= 5
    shown = (row.id, row.group, row.messages, row.tools, row.rejected)
    assert "ann@example.com" not in repr(shown)
    assert Counter(repr(shown))["@"] == 0
