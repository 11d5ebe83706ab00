"""Readers take any bytes, in bounded memory, and count every line once."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_assets.artifacts import LineageError
from mlops_assets.dataset import sources
from mlops_assets.dataset.importing import import_source
from mlops_assets.dataset.spec import RawDatasetSpec
from mlops_assets.dataset.strict_json import parse_object
from mlops_assets.privacy import Detector
from mlops_assets.profiles import PROJECT

PERSONAL = "Write to ann@example.com, card 4111 1111 1111 1111, see https://a:b@c.example"
QUIETLY = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

# Bytes that come near to what the readers take.
PIECES = st.sampled_from(
    [b'{"messages": [', b'{"role": "user", "content": "hi"}', b",", b"]}", b"\n", b"\r\n", b'"',
     b'{"prompt": "a", "completion": "b"}', b"\0", b"\xff", b"\xef\xbb\xbf", b"NaN",
     b"prompt,label",
     b"a,b", b"\\ud800", b'{"a":1,"a":2}', b"[[", b" "]
)  # fmt: skip
CHAOS = st.one_of(st.binary(max_size=200), st.lists(PIECES, max_size=30).map(b"".join))
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
SAID = TEXT | st.just(PERSONAL) | TEXT.map(lambda text: json.dumps([text, PERSONAL]))


@given(CHAOS)
@QUIETLY
def test_every_line_of_any_bytes_counts_once(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(data)
    try:
        found = import_source(RawDatasetSpec(path=str(path), format="messages"))
    except LineageError:
        return
    lines = data.split(b"\n")
    assert found.accepted + found.quarantined == len(lines) - (lines[-1] == b"")


@given(CHAOS)
@QUIETLY
def test_no_physical_line_of_any_table_is_lost(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(b"prompt,label\n" + data)
    raw = sources.locate(RawDatasetSpec(path=str(path)))
    rows = list(sources.candidates(raw, "group", [], "label", Detector({})))
    lines = data.decode("utf-8", "replace").split("\n")
    assert sum(row.source.count("\n") for row in rows) == len(lines) - 1
    starts = [row.line for row in rows]
    assert starts == sorted(set(starts))


@given(st.lists(st.tuples(SAID, SAID), min_size=1, max_size=30))
@settings(QUIETLY, max_examples=4)
def test_what_was_imported_is_accepted_whole(tmp_path: Path, pairs: list[tuple[str, str]]) -> None:
    path, first, second = (tmp_path / f"{name}.jsonl" for name in ("data", "first", "second"))
    texts = [json.dumps({"prompt": asked, "completion": said}) for asked, said in pairs]
    path.write_text("\n".join(texts))
    once = import_source(RawDatasetSpec(path=str(path)), output=first, force=True)
    again = import_source(RawDatasetSpec(path=str(first)), output=second, force=True)
    assert once.accepted == again.accepted == len(pairs)
    assert first.read_bytes() == second.read_bytes()


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | TEXT
                    | st.floats(allow_nan=False, allow_infinity=False),
                    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner)),
       st.booleans())  # fmt: skip
@QUIETLY
def test_sound_json_is_read_as_python_reads_it(value: Any, ascii_only: bool) -> None:
    text = json.dumps({"value": value, "a:b": ":"}, ensure_ascii=ascii_only)
    assert parse_object(text) == (json.loads(text), "object")


@given(st.lists(st.sampled_from(["a", "b", "a:", "\\u003a", ":"]), min_size=1, max_size=5))
@QUIETLY
def test_a_repeated_key_is_found_exactly(keys: list[str]) -> None:
    text = "{" + ",".join(f'"{key}":":\\u003A"' for key in keys) + "}"
    read = [key.replace("\\u003a", ":") for key in keys]
    expected = "duplicate_key" if len(set(read)) < len(read) else "object"
    assert parse_object(text)[1] == expected


# Memory, measured in a process of its own

MEASURE = """
import json, resource, sys
from mlops_assets.artifacts import LineageError
from mlops_assets.dataset import sources
from mlops_assets.dataset.spec import RawDatasetSpec
from mlops_assets.privacy import Detector
seen, said = {}, ""
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    raw = sources.locate(RawDatasetSpec(path=sys.argv[1]))
    for row in sources.candidates(raw, "group", [], "label", Detector({})):
        seen[row.form] = seen.get(row.form, 0) + 1
except LineageError as error:
    said = str(error)
own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps({"seen": seen, "said": said, "own": own >> 10, "child": child >> 10}))
"""


def measured(path: Path) -> Any:
    """Forms, error, and mebibytes taken by reading the source."""
    ended = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)],
        capture_output=True, text=True, check=True, cwd=PROJECT,
    )  # fmt: skip
    return json.loads(ended.stdout)


def test_a_gigantic_line_costs_one_block(tmp_path: Path) -> None:
    sound = b'{"prompt": "a", "completion": "b"}\n'
    with (tmp_path / "data.jsonl").open("wb") as stream:
        stream.write(sound)
        stream.seek(300 * 2**20, 1)  # a hole, which reads as NUL bytes
        stream.write(b"\n" + sound)
    found = measured(tmp_path / "data.jsonl")
    assert found["seen"] == {"object": 2, "oversize_line": 1}
    assert found["own"] < 64


def test_of_long_lines_none_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    with path.open("w") as stream:
        for number in range(100):
            row = {"prompt": "a", "completion": "b", "id": f"{number}{'x' * 1_000_000}"}
            stream.write(f"{json.dumps(row)}\n")
    found = measured(path)
    assert found["seen"] == {"object": 100}
    assert found["own"] < 64


def dictionary(path: Path, size: int, rows: int) -> None:
    """One text of that size in the file, to which every row points."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pointers = pa.array([0] * rows, pa.int32())
    table = {
        "prompt": pa.DictionaryArray.from_arrays(pointers, pa.array(["x" * size])),
        "completion": ["a"] * rows,
    }
    pq.write_table(pa.table(table), path, compression="zstd", dictionary_pagesize_limit=2**30,
                   store_schema=False)  # fmt: skip


@pytest.mark.parametrize(
    ("size", "rows", "says"),
    [(2**19, 2**20, "more than a thousand times"), (100 * 2**20, 64, "MiB of memory")],
    ids=["half a terabyte of rows", "a row group of gigabytes"],
)
def test_a_bomb_of_parquet_is_refused(tmp_path: Path, size: int, rows: int, says: str) -> None:
    path = tmp_path / "bomb.parquet"
    dictionary(path, size, rows)
    assert path.stat().st_size < size / 10
    found = measured(path)
    assert says in found["said"]
    assert found["own"] < 64
    assert found["child"] < 1400
