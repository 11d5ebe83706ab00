"""Production's log as monitoring reads it: compacted to Parquet, a part for each segment."""

import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.artifacts import ArtifactStore, LineageError, Recipe
from mlops_assets.monitoring.log import parts, prediction_log, segments
from mlops_assets.monitoring.log.window import PARTS, newest, read
from mlops_assets.monitoring_refs import PredictionLogRef
from mlops_assets.request_record import SHADOW
from mlops_assets.retired_segments import LOG_PART
from mlops_assets_tests.production_records import LOG, line, make_log, record


def collect(tmp_path: Path, *contents: bytes, **spec: Any) -> tuple[PredictionLogRef, list[str]]:
    """The log of these segments, and the ids of its newest answers."""
    (tmp_path / "log").mkdir(exist_ok=True, parents=True)
    for number, content in enumerate(contents):
        (tmp_path / "log" / f"{number}.jsonl").write_bytes(content)
    store = ArtifactStore(tmp_path / "store")
    ref = prediction_log.collect(store, LOG.model_copy(update=spec), tmp_path)
    return ref, [row["id"] for row in rows(store, ref) if row["answered"]]


def rows(store: ArtifactStore, ref: PredictionLogRef, most: int | None = None) -> list[Any]:
    return [row for part in newest(store, ref, most) for row in read(store, part).to_pylist()]


def lines(*numbers: int, **changes: Any) -> bytes:
    return "".join(f"{line(number, **changes)}\n" for number in numbers).encode()


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'{"id": "p9", "messa', "torn line"),
        (b'{"id": "p9", "messa\n', "torn line"),
        (b'{"id": "p9", "messages": [{"role": "user"\n', "torn line"),
        (b'{"id": "p9"}}\n', "not JSON"),
        (b"Killed\n", "not JSON"),
        (b"\xff\xfe\n", "not UTF-8"),
        (b'{"id": "p9"}\n', "not a record"),
        (b"[1, 2]\n", "not a record"),
        (b"[" * 100_000 + b"\n", "not JSON"),
        (lines(1), "duplicate id"),
        (lines(9, timestamp="yesterday"), "no time"),
        (lines(9, timestamp="0001-01-01T00:00:00+14:00"), "no time"),
        (line(9).replace("{", '{"tokens_in": 18446744073709551615, ', 1).encode(), "not a record"),
        (line(9).replace("{", '{"cost": 1e999, ', 1).encode() + b"\n", "not JSON"),
    ],
)
def test_a_line_that_cannot_be_used_is_counted(tmp_path: Path, bad: bytes, reason: str) -> None:
    ref, ids = collect(tmp_path, lines(1) + b"\n" + lines(2), bad)
    assert ids == ["p1", "p2"]
    assert (ref.records, ref.unreadable) == (2, 1)
    assert ref.artifact.summary["skipped"] == {reason: 1}


def test_a_line_without_end_is_not_held_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "LONGEST_LINE", 1000)
    long = b'{"id":"' + b"x" * 5000
    for number, content in enumerate((long + b"\n" + lines(1), lines(1) + long)):
        ref, ids = collect(tmp_path / str(number), content)
        assert ids == ["p1"]
        assert ref.artifact.summary["skipped"] == {"line too long": 1}


def test_what_failed_is_kept_and_is_no_answer(tmp_path: Path) -> None:
    asked = b"".join(
        [
            lines(1),
            json.dumps(json.loads(line(2)) | {"status": 503, "error": "overloaded"}).encode(),
            b"\n",
            json.dumps(json.loads(line(3)) | {"status": 200, "arm": SHADOW}).encode(),
            b"\n",
            lines(4, messages=[{"role": "system", "content": "x"}]),
            lines(5, messages=[{"role": "user"}]),
        ]
    )
    ref, ids = collect(tmp_path, asked)
    assert (ids, ref.records, ref.unreadable) == (["p1"], 1, 0)
    kept = rows(ArtifactStore(tmp_path / "store"), ref)
    assert [row["id"] for row in kept] == [f"p{number}" for number in range(1, 6)]
    assert (kept[1]["status"], kept[1]["error"]) == (503, "overloaded")


def test_a_row_says_what_its_line_said(tmp_path: Path) -> None:
    told = json.loads(line(1, slices={"channel": "e-mail", "product": "Küche"})) | {
        "timestamp": "2026-07-01T02:00:00.25+02:00",
        "experiment": {"tone": "warm"},
        "cost": 0.1 + 0.2,
        "first_byte_ms": None,
        "tokens_in": 2**40,
    }
    ref, _ = collect(tmp_path, json.dumps(told).encode())
    (row,) = rows(ArtifactStore(tmp_path / "store"), ref)
    assert row["timestamp"].isoformat() == "2026-07-01T00:00:00.250000+00:00"
    assert json.loads(row["messages"]) == told["messages"]
    assert dict(row["slices"]) == told["slices"]
    assert dict(row["experiment"]) == {"tone": "warm"}
    for name in ("id", "output", "cost", "first_byte_ms", "tokens_in"):
        assert row[name] == told[name], name


def test_the_newest_answers_are_read(tmp_path: Path) -> None:
    """Failures between them cost no place, and nothing older is touched."""
    failed = json.dumps(json.loads(line(9)) | {"status": 500}).encode() + b"\n"
    ref, _ = collect(tmp_path, lines(1, 2, 3), failed, lines(4) + failed.replace(b"p9", b"p8"))
    store = ArtifactStore(tmp_path / "store")
    for most, expected in {
        0: [],
        1: ["p4", "p8"],
        2: ["p3", "p9", "p4", "p8"],
        4: ["p1", "p2", "p3", "p9", "p4", "p8"],
        99: ["p1", "p2", "p3", "p9", "p4", "p8"],
    }.items():
        assert [row["id"] for row in rows(store, ref, most)] == expected
    assert collect(tmp_path, max_records=2)[0].records == 2
    assert collect(tmp_path, max_records=2)[1] == ["p3", "p4"]


def test_an_id_is_read_once_wherever_it_stands_again(tmp_path: Path) -> None:
    copied = lines(1, 2)
    ref, ids = collect(tmp_path, copied, copied, lines(2, 3, 1, 4, 3), lines(5))
    assert ids == ["p1", "p2", "p3", "p4", "p5"]
    assert ref.artifact.summary["skipped"] == {"duplicate id": 5}
    assert (ref.records, ref.unreadable) == (5, 5)


def test_a_segment_of_many_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges are cut out of row groups of any size."""
    monkeypatch.setattr(parts, "BATCH_ROWS", 7)
    ref, ids = collect(tmp_path, lines(*range(50)))
    assert ids == [f"p{number}" for number in range(50)]
    store = ArtifactStore(tmp_path / "store")
    for most in (1, 6, 7, 8, 49):
        found = [row["id"] for row in rows(store, ref, most)]
        assert found == ids[-most:]


@pytest.mark.parametrize("seed", range(5))
def test_windows_are_those_of_a_plain_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Whatever fails, comes twice, or lies across segments and row groups."""
    monkeypatch.setattr(parts, "BATCH_ROWS", 4)
    dice = random.Random(seed)
    asked = [(dice.randrange(40), dice.choice((200, 200, 500))) for _ in range(30)]
    cuts = sorted(dice.sample(range(30), 3))
    written = [json.dumps(json.loads(line(n)) | {"status": status}) for n, status in asked]
    pieces = [written[start:stop] for start, stop in pairwise([0, *cuts, 30])]
    ref, _ = collect(tmp_path, *("\n".join([*piece, ""]).encode() for piece in pieces))
    first = dict(reversed(asked))
    plain = [(f"p{number}", first[number]) for number in dict.fromkeys(n for n, _ in asked)]
    answers = [at for at, (_, status) in enumerate(plain) if status == 200]
    assert ref.records == len(answers)
    for most in range(1, len(answers) + 1):
        found = [
            (row["id"], row["status"]) for row in rows(ArtifactStore(tmp_path / "store"), ref, most)
        ]
        assert found == plain[answers[-most] :]


def test_a_complete_segment_is_compacted_once(tmp_path: Path) -> None:
    first, _ = collect(tmp_path, lines(1), lines(2))
    second, ids = collect(tmp_path, lines(1), lines(2, 3), lines(4))
    assert ids == ["p1", "p2", "p3", "p4"]
    listed = [
        json.loads((ArtifactStore(tmp_path / "store").path(ref.artifact) / PARTS).read_bytes())
        for ref in (first, second)
    ]
    keys = [[part["key"] for part in index["parts"]] for index in listed]
    assert keys[1][0] == keys[0][0]
    assert keys[1][1] != keys[0][1]
    assert len(list((tmp_path / "store" / LOG_PART).iterdir())) == 4


def test_a_tail_that_is_torn_later_is_counted(tmp_path: Path) -> None:
    """Though it adds no row to the part."""
    assert collect(tmp_path, lines(1))[0].unreadable == 0
    ref, ids = collect(tmp_path, lines(1) + b'{"id": "p2", "mess')
    assert (ids, ref.unreadable) == (["p1"], 1)


def test_what_is_appended_later_is_another_log(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    first = make_log(store, tmp_path, [record(1)])
    assert make_log(store, tmp_path, [record(1)]).artifact.reused
    (segment,) = segments.find_segments(tmp_path / "log", tmp_path)
    with (tmp_path / "log" / "segment.jsonl").open("a") as stream:
        stream.write(line(2))
    # What was hashed is what is read, whatever a writer appended in between.
    assert len(list(segments.lines(segment))) == 1
    second = prediction_log.collect(store, LOG, tmp_path)
    assert (first.records, second.records) == (1, 2)
    assert first.artifact.digest != second.artifact.digest


def test_a_log_from_before_there_were_parts_is_named(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    old = store.build(Recipe("prediction_log", {}, {}, "1"), lambda _: {})
    with pytest.raises(LineageError, match="Run the job `monitor` once"):
        newest(store, PredictionLogRef(old, 0, 0))


def test_a_column_that_an_older_part_does_not_have_is_null(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = parts.schema()
    monkeypatch.setattr(parts, "schema", lambda: now.remove(now.get_field_index("user_named")))
    ref, _ = collect(tmp_path, lines(1, 2))
    (part,) = newest(store := ArtifactStore(tmp_path / "store"), ref)
    assert read(store, part, ["id", "user_named"]).to_pydict() == {
        "id": ["p1", "p2"],
        "user_named": [None, None],
    }


@pytest.mark.parametrize("exists", [True, False])
def test_an_empty_log_is_healthy(tmp_path: Path, exists: bool) -> None:
    if exists:
        (tmp_path / "log").mkdir()
    store = ArtifactStore(tmp_path)
    ref = prediction_log.collect(store, LOG, tmp_path)
    assert (ref.records, ref.unreadable, newest(store, ref)) == (0, 0, [])


def test_bad_directories_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    cases = {
        "data/production/unshifted": "has not been built",
        "$NO_SUCH_VARIABLE/log": "not set",
        "file": "not a directory",
    }
    for directory, problem in cases.items():
        spec = prediction_log.PredictionLogSpec(directory=directory)
        with pytest.raises(LineageError, match=problem):
            prediction_log.collect(ArtifactStore(tmp_path), spec, tmp_path)
    monkeypatch.setenv("LOGS", str(tmp_path / "elsewhere"))
    assert segments.resolve("$LOGS/log", Path("/project")) == tmp_path / "elsewhere/log"
