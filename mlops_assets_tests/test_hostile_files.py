"""Hostile files: every line keeps its number and gets its reason; some files are refused."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.artifacts import LineageError
from mlops_assets.dataset import lines, sources
from mlops_assets.dataset.sources import Candidate
from mlops_assets.dataset.spec import RawDatasetSpec
from mlops_assets_tests.test_readers import (
    ANSWER,
    CALLING,
    CHAT,
    QUESTION,
    RESULT,
    SYSTEM,
    WORSE,
    read,
    save_csv,
    save_dataset,
    save_parquet,
    written,
)

SOUND = json.dumps({"messages": CHAT})


def form_of(row: Candidate) -> str:
    """``object`` for a conversation, else why it is none."""
    return row.form if row.form != "object" or row.messages else "missing_field"


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
    b'\xef\xbb\xbfprompt,completion\na,"1"\n"open,2\nb,3\n\nc\nd,4,5\n"e\nf",6\n\xff,7\ng\0,8\n'
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


def mixed_directory(path: Path) -> None:
    path.mkdir()
    save_csv(path / "a.csv")
    save_parquet(path / "b.parquet")


def half_named_directory(path: Path) -> None:
    path.mkdir()
    for name in ("more", "test"):
        written(path, f"{name}.jsonl", {"messages": CHAT})


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
    ("data.csv", holds(b"a,a\n1,2\n"), "a column stands there twice"),
    ("data.csv", holds("prompt,r\u00e9ponse\n".encode("latin-1")), "not UTF-8 text.*iconv"),
    ("data.csv", holds(b'a,"b\n1,2\n'), "quoted field of the line is never closed"),
    ("data.parquet", cut_parquet, "is damaged"),
    ("data.parquet", holds(b"PAR1"), "is damaged"),
    ("data.jsonl", symlink, "is a symbolic link"),
    ("folder", linked_directory, "more is a symbolic link"),
    ("folder", escaping_dataset, "names '../secret.arrow'"),
    ("folder", Path.mkdir, "is a directory with no data file"),
    ("folder", mixed_directory, "more than one kind"),
    ("folder", half_named_directory, "split 'more.jsonl' of .* is neither"),
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
        RawDatasetSpec(path="x", mapping={"question": "prompt"})


def test_dots_in_a_path_are_resolved(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    written(tmp_path, "data.jsonl", {"messages": CHAT})
    raw = sources.locate(RawDatasetSpec(path=str(tmp_path / "below" / ".." / "data.jsonl")))
    assert raw.path == str(tmp_path / "data.jsonl")
