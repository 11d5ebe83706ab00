"""The request log: nothing acknowledged is missing, nothing half-written stays."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from mlops_assets.artifacts import ArtifactStore
from mlops_assets.monitoring.log.prediction_log import PredictionLogSpec, collect
from mlops_assets.request_record import SHADOW, RequestRecord
from mlops_assets.serving.records.request_log import LogFailed, SegmentLog
from mlops_assets_tests.gateway_server import read_log

MIB = 1024**2


def record(number: int, **others: object) -> RequestRecord:
    values = {
        "id": f"chatcmpl-{number:032x}",
        "timestamp": f"2026-11-22T00:00:{number % 60:02d}.000+00:00",
        "release": "ab" * 32,
        "messages": ({"role": "user", "content": f"Question {number}\nin two lines"},),
        "output": "An answer.",
        "status": 200,
        **others,
    }
    return RequestRecord(**values)  # type: ignore[arg-type]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SegmentLog]:
    log = SegmentLog(tmp_path / "requests", MIB)
    yield log
    log.close()


def test_records_come_back_in_order_over_segments(tmp_path: Path) -> None:
    log = SegmentLog(tmp_path / "requests", 1000)
    for number in range(20):
        log.append(record(number))
    log.close()
    assert [each["id"] for each in read_log(log.directory)] == [record(n).id for n in range(20)]
    assert len(list(log.directory.glob("*.jsonl"))) > 5
    assert all(path.stat().st_size <= 1000 for path in log.directory.glob("*.jsonl"))


def test_whoever_syncs_waits_for_a_sync_that_is_under_way(
    log: SegmentLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a vote would be acknowledged that another thread is about to bring to the disk."""
    begun, go_on, kept = threading.Event(), threading.Event(), []

    def slow(descriptor: int) -> None:
        begun.set()
        assert go_on.wait(10)
        kept.append(descriptor)

    monkeypatch.setattr(os, "fdatasync", slow)
    log.append(record(1))
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(log.sync)
        assert begun.wait(10)
        second = threads.submit(log.sync)
        assert not wait([second], 0.05).done
        go_on.set()
        first.result()
        second.result()
    assert len(kept) == 1


def test_what_is_no_json_is_not_in_the_log(log: SegmentLog) -> None:
    with pytest.raises(LogFailed, match="no JSON"):
        log.append({"number": 2**64})
    assert read_log(log.directory) == []


def test_a_torn_line_of_a_killed_predecessor_costs_that_line_alone(tmp_path: Path) -> None:
    first = SegmentLog(tmp_path / "requests", MIB)
    first.append(record(1))
    os.write(first._descriptor, b'{"id": "torn')  # killed in the midst of a write
    second = SegmentLog(tmp_path / "requests", MIB)
    second.append(record(2))
    second.close()
    first.close()
    lines = (tmp_path / "requests" / "00000001.jsonl").read_bytes().splitlines()
    assert lines[1] == b'{"id": "torn'
    found = collect(
        ArtifactStore(tmp_path / "store", tmp_path / "checkpoints"),
        PredictionLogSpec(directory=str(tmp_path / "requests")),
        tmp_path,
    )
    assert (found.records, found.unreadable) == (2, 1)


def test_a_disk_that_is_full_takes_the_record_back(tmp_path: Path) -> None:
    """A real limit of the kernel on the size of a file, in a process of its own."""
    program = f"""
import resource, signal, sys
from pathlib import Path
from mlops_assets.serving.records.request_log import LogFailed, SegmentLog
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
log = SegmentLog(Path({str(tmp_path)!r}), {MIB})
kept = 0
try:
    while True:
        log.append({{"text": "x" * 64}})
        kept += 1
except LogFailed as failed:
    print(kept, failed)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
log.append({{"text": "there is room again"}})
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    kept = int(ended.stdout.split()[0])
    found = read_log(tmp_path)
    assert len(found) == kept + 1
    assert found[-1] == {"text": "there is room again"}


def test_what_is_no_answer_to_a_user_is_no_prediction(log: SegmentLog, tmp_path: Path) -> None:
    log.append(record(1, user="u" * 64, tokens_in=3, experiment={"colour": "b"}))
    log.append(record(2, status=503, output=""))
    log.append(record(3, status=499))
    log.append(record(4, arm=SHADOW))
    log.append(record(5, arm="canary"))
    found = collect(
        ArtifactStore(tmp_path / "store", tmp_path / "checkpoints"),
        PredictionLogSpec(directory=str(log.directory)),
        tmp_path,
    )
    assert (found.records, found.unreadable, found.artifact.summary["rows"]) == (2, 0, 5)
