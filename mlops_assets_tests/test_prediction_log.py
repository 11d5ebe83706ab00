"""Production's records as monitoring reads them from the log."""

from pathlib import Path
from typing import Any

import pytest

from mlops_assets.artifacts import ArtifactStore, LineageError
from mlops_assets.monitoring.log import prediction_log
from mlops_assets.refs import (
    PredictionLogRef,
)
from mlops_assets_tests.production_records import LOG, line, make_log, record


def collect(tmp_path: Path, *segments: bytes, **spec: Any) -> tuple[PredictionLogRef, list[str]]:
    store = ArtifactStore(tmp_path / "store")
    (tmp_path / "log").mkdir()
    for number, content in enumerate(segments):
        (tmp_path / "log" / f"{number}.jsonl").write_bytes(content)
    ref = prediction_log.collect(store, LOG.model_copy(update=spec), tmp_path)
    records = prediction_log.read_records(store.path(ref.artifact) / prediction_log.RECORDS)
    return ref, [item.id for item in records]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'{"id": "p9", "messa', "torn line"),
        (b'{"id": "p9", "messa\n', "not JSON"),
        (b"\xff\xfe\n", "not UTF-8"),
        (b'{"id": "p9"}\n', "not a record"),
        (b"[1, 2]\n", "not a record"),
        (b"[" * 100_000 + b"\n", "not JSON"),
        (line(1).encode() + b"\n", "duplicate id"),
        (line(9, messages=()).encode() + b"\n", "no user message"),
        (line(9, messages=[{"role": "user"}]).encode() + b"\n", "no user message"),
    ],
)
def test_a_line_that_cannot_be_used_is_counted(tmp_path: Path, bad: bytes, reason: str) -> None:
    good = f"{line(1)}\n\n{line(2)}\n".encode()
    ref, ids = collect(tmp_path, good, bad)
    assert ids == ["p1", "p2"]
    assert (ref.records, ref.unreadable) == (2, 1)
    assert ref.artifact.summary["skipped"] == {reason: 1}


def test_the_newest_records_are_kept(tmp_path: Path) -> None:
    segments = [f"{line(n)}\n".encode() for n in range(5)]
    assert collect(tmp_path, *segments, max_records=2)[1] == ["p3", "p4"]


def test_what_is_appended_later_is_another_log(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    first = make_log(store, tmp_path, [record(1)])
    assert make_log(store, tmp_path, [record(1)]).artifact.reused
    segment = prediction_log.find_segments(tmp_path / "log", tmp_path)
    with (tmp_path / "log" / "segment.jsonl").open("a") as stream:
        stream.write(line(2))
    # What was hashed is what is read, whatever a writer appended in between.
    assert len(list(prediction_log._lines(segment[0]))) == 1
    second = prediction_log.collect(store, LOG, tmp_path)
    assert (first.records, second.records) == (1, 2)
    assert first.artifact.digest != second.artifact.digest


@pytest.mark.parametrize("exists", [True, False])
def test_an_empty_log_is_healthy(tmp_path: Path, exists: bool) -> None:
    if exists:
        (tmp_path / "log").mkdir()
    ref = prediction_log.collect(ArtifactStore(tmp_path), LOG, tmp_path)
    assert (ref.records, ref.unreadable) == (0, 0)


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
    assert prediction_log.resolve("$LOGS/log", Path("/project")) == tmp_path / "elsewhere/log"
