"""Reading source data: every format, every hostile file, and the counts that add up."""

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.artifacts import LineageError
from mlops_assets.dataset import lines, sources
from mlops_assets.dataset.sources import Candidate
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
    raw = sources.locate(sources.RawDatasetSpec(path=str(path), **settings))
    return list(sources.candidates(raw, "group", [], "label", Detector(DEFAULT_POLICY)))


def written(folder: Path, name: str, *records: Any) -> Path:
    path = folder / name
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return path


def form_of(row: Candidate) -> str:
    """``object`` for a conversation, else why it is none."""
    return row.form if row.form != "object" or row.messages else "missing_field"


# Formats

JSON_LINES: dict[str, tuple[dict[str, Any], str, list[dict[str, Any]]]] = {
    "messages": ({"messages": CHAT}, "messages", CHAT),
    "system turn": ({"messages": [SYSTEM, *CHAT]}, "messages", [SYSTEM, *CHAT]),
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
    raw = sources.locate(sources.RawDatasetSpec(path=str(path)))
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


def test_splits_of_a_dataset_dictionary_are_pinned(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    def part(text: str) -> Dataset:
        return Dataset.from_list([{"prompt": text, "completion": "a"}])

    folder = tmp_path / "both"
    DatasetDict(train_sft=part("x"), validation=part("y"), test=part("z")).save_to_disk(folder)
    assert [row.split for row in read(folder)] == ["train", "train", "test"]
    assert [row.file.partition("/")[0] for row in read(folder)] == [
        "train_sft",
        "validation",
        "test",
    ]
    DatasetDict(train=part("x")).save_to_disk(tmp_path / "one")
    assert [row.split for row in read(tmp_path / "one")] == [None]
    DatasetDict(alpha=part("x")).save_to_disk(tmp_path / "odd")
    with pytest.raises(LineageError, match=r"split 'alpha' of .* is neither"):
        read(tmp_path / "odd")


def test_ids_and_groups_are_made_only_where_the_file_has_none(tmp_path: Path) -> None:
    own = {"id": "1", "group": "ann", "messages": CHAT}
    rows = read(written(tmp_path, "data.jsonl", own, {"messages": CHAT}))
    assert [(row.id, row.group) for row in rows] == [("1", "ann"), (None, None)]
    made = read(written(tmp_path, "data.jsonl", {"messages": CHAT}, {"messages": [SYSTEM, *CHAT]}))
    assert len({row.id for row in made}) == len({row.group for row in made}) == 2


# Lines that are no conversation

BAD_LINES: list[tuple[bytes, str]] = [
    (b"", "blank_line"),
    (b" \t\r", "blank_line"),
    (b"not json", "broken_json"),
    (b"[1, 2]", "broken_json"),
    (b'"text"', "broken_json"),
    (b'{"messages": 01}', "broken_json"),
    (b'{"messages": 1, "messages": 2}', "duplicate_key"),
    (b'{"a": {"b": 1, "\\u0062": 2}}', "duplicate_key"),
    (b'{"a": "\\u003a", "a": 1}', "duplicate_key"),
    (b'{"a": NaN}', "not_a_number"),
    (b'{"a": [-Infinity]}', "not_a_number"),
    (b'{"a": 1e999}', "not_a_number"),
    (b'{"a": "\\ud83d"}', "lone_surrogate"),
    (b'{"\\udc00": 1}', "lone_surrogate"),
    (b'{"a": "\xed\xa0\x80"}', "not_utf8"),
    ("caf\u00e9".encode("latin-1"), "not_utf8"),
    (b'{"a": "\0"}', "nul_byte"),
    (b'{"a": "\\u0000"}', "nul_byte"),
    (b'{"a":' * 100_000, "too_deep"),
    (b'{"a":' + b"[" * 300 + b"]" * 300 + b"}", "too_deep"),
    (b'{"a": "' + b"x" * lines.LONGEST_LINE + b'"}', "oversize_line"),
    (b"{}", "missing_field"),
    (b'{"messages": "hello"}', "missing_field"),
    (b'{"messages": [{"role": "user"}]}', "missing_field"),
    (json.dumps({"messages": [QUESTION, RESULT, ANSWER]}).encode(), "bad_tools"),
    (json.dumps({"messages": [QUESTION, CALLING | {"tool_calls": [1]}]}).encode(), "bad_tools"),
    (json.dumps({"messages": CHAT, "tools": [{"name": "weather"}]}).encode(), "bad_tools"),
    (json.dumps({"messages": CHAT, "rejected": CHAT}).encode(), "bad_preference"),
]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
def test_every_bad_line_keeps_its_number_and_reason(tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "data.jsonl"
    between = [SOUND.encode(), *(line for bad, _ in BAD_LINES for line in (bad, SOUND.encode()))]
    path.write_bytes(b"\xef\xbb\xbf" + end.join(between) + end + b'{"mess')
    found = {row.line: form_of(row) for row in read(path)}
    expected = {2 * number: form for number, (_, form) in enumerate(BAD_LINES, 1)}
    expected |= {2 * number + 1: "object" for number in range(len(BAD_LINES) + 1)}
    assert found == expected | {len(between) + 1: "truncated_line"}


@pytest.mark.parametrize(
    "pair",
    [
        {"prompt": "p", "chosen": "a", "rejected": "a"},
        {"chosen": CHAT, "rejected": [SYSTEM, QUESTION, WORSE]},
        {"prompt": "p", "chosen": CHAT, "rejected": [QUESTION]},
    ],
    ids=["equal", "other beginning", "no answer"],
)
def test_pairs_that_are_none(tmp_path: Path, pair: dict[str, Any]) -> None:
    (row,) = read(written(tmp_path, "data.jsonl", pair))
    assert row.form == "bad_preference"


CSV_ROWS = (
    b'prompt,completion\na,"1"\n"open,2\nb,3\n\nc\nd,4,5\n"e\nf",6\n\xff,7\ng\0,8\n'
    b'"never closed,9\nh,10\ni,11\nlast'
)


def test_an_open_quote_costs_its_own_line(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_bytes(CSV_ROWS)
    assert {row.line: form_of(row) for row in read(tmp_path / "data.csv")} == {
        2: "object",
        3: "unclosed_quote",
        4: "object",
        5: "blank_line",
        6: "broken_csv",
        7: "broken_csv",
        8: "object",  # two physical lines
        10: "not_utf8",
        11: "nul_byte",
        12: "unclosed_quote",
        13: "object",
        14: "object",
        15: "truncated_line",
    }


# Sources that are refused as a whole


def symlink(path: Path) -> None:
    path.with_name("real").write_text(SOUND)
    path.symlink_to(path.with_name("real"))


def linked_directory(path: Path) -> None:
    path.mkdir()
    for name in ("train", "test"):
        (path / f"{name}.csv").write_text("text,category\na,b\n")
    (path / "more").symlink_to("/etc")


def escaping_dataset(path: Path) -> None:
    save_dataset(path)
    state = json.loads((path / "state.json").read_text())
    state["_data_files"] = [{"filename": "../secret.arrow"}]
    (path / "state.json").write_text(json.dumps(state))


def pipe(path: Path) -> None:
    os.mkfifo(path)


def cut_parquet(path: Path) -> None:
    save_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])


def holds(data: bytes) -> Callable[[Path], None]:
    def save(path: Path) -> None:
        path.write_bytes(data)

    return save


REFUSED: list[tuple[str, Callable[[Path], None], str]] = [
    ("data.jsonl", holds(b" \n\n"), "is empty"),
    ("data.jsonl", holds(SOUND.encode("utf-16")), "not UTF-8.*iconv"),
    ("data.jsonl", holds(SOUND.encode("utf-32")), "not UTF-8.*iconv -f utf-32"),
    ("data.jsonl", holds(SOUND.encode("utf-16-be")), "not UTF-8.*iconv"),
    ("data.jsonl.gz", holds(b"\x1f\x8b\x08"), "compressed.*gzip -d"),
    ("data.json", holds(f"[{SOUND}]".encode()), "JSON array.*jq"),
    ("data", holds(b"hello\nworld\n"), "none of the formats.*Name its format"),
    ("data.jsonl", holds(b'{"text": "x"}\n'), "fields are text.*completion=answer"),
    ("data.csv", holds(b"a,b\n1,2\n"), "fields are a, b"),
    ("data.csv", holds(b"a,a\n1,2\n"), "repeats a column"),
    ("data.csv", holds(b'a,"b\n1,2\n'), r"cannot be read \(unclosed_quote\)"),
    ("data.parquet", cut_parquet, "is damaged"),
    ("data.parquet", holds(b"PAR1"), "is damaged"),
    ("data.jsonl", symlink, "is a symbolic link"),
    ("folder", linked_directory, "more is a symbolic link"),
    ("folder", escaping_dataset, "names '../secret.arrow'"),
    ("folder", Path.mkdir, "is a directory"),
    ("data.jsonl", pipe, "cannot be read"),
]


@pytest.mark.parametrize(("name", "save", "says"), REFUSED)
def test_refused(tmp_path: Path, name: str, save: Callable[[Path], None], says: str) -> None:
    save(tmp_path / name)
    with pytest.raises(LineageError, match=says):
        read(tmp_path / name)


def test_a_format_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(LineageError, match="is a file, which the format `datasets` cannot be"):
        read(written(tmp_path, "data.jsonl", {"messages": CHAT}), format="datasets")
    with pytest.raises(LineageError, match="has no field 'question'"):
        read(tmp_path / "data.jsonl", mapping={"prompt": "question"})
    with pytest.raises(ValueError, match="none of our names"):
        sources.RawDatasetSpec(path="x", mapping={"question": "prompt"})


def test_dots_in_a_path_are_resolved(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    written(tmp_path, "data.jsonl", {"messages": CHAT})
    raw = sources.locate(sources.RawDatasetSpec(path=str(tmp_path / "below" / ".." / "data.jsonl")))
    assert raw.path == str(tmp_path / "data.jsonl")


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
