"""Nothing that a client has in full is missing in the parts, whoever is killed when."""

import itertools
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import pytest

from mlops_assets.artifacts import ArtifactStore, find_fault
from mlops_assets.home import Home
from mlops_assets.monitoring.log.prediction_log import PredictionLogSpec, collect
from mlops_assets.monitoring.log.window import newest, read
from mlops_assets.monitoring_refs import PredictionLogRef
from mlops_assets_tests.engine_server import engine_process
from mlops_assets_tests.served_homes import promote
from mlops_assets_tests.serving_client import Crowd
from mlops_assets_tests.serving_process import V1, hammering, hosted, serving
from mlops_assets_tests.sudden_death import killed_after
from mlops_assets_tests.test_usage_ledger import record
from mlops_assets_tests.waiting import wait_until

SEED = random.SystemRandom().randrange(10**6)
"""Of the moments at which the gateway dies; a failure shows it."""
LIVES = 2
WRITES = ("write_bytes", "write_text", "rename")


def rows(store: ArtifactStore, ref: PredictionLogRef) -> list[tuple[str, str]]:
    """Id and output of each request that was answered, in the order of the log."""
    columns = ["id", "output", "answered"]
    tables = [read(store, part, columns).to_pylist() for part in newest(store, ref, 10**6)]
    return [(row["id"], row["output"]) for table in tables for row in table if row["answered"]]


@dataclass
class Compaction:
    """Compacts a log again and again while it is written to."""

    store: ArtifactStore
    log: Path
    looks: list[list[tuple[str, str]]] = field(default_factory=list)
    """What each time was found."""
    alone: threading.Lock = field(default_factory=threading.Lock)

    def look(self) -> PredictionLogRef:
        spec = PredictionLogSpec(directory=str(self.log), max_records=10**6)
        with self.alone:
            ref = collect(self.store, spec, self.log)
            self.looks.append(rows(self.store, ref))
        return ref

    @contextmanager
    def going_on(self) -> Iterator[None]:
        ended, failed = threading.Event(), list[BaseException]()

        def work() -> None:
            try:
                while not ended.wait(0.2):
                    self.look()
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
        assert not failed, failed


def nearly_full_segment(log: Path) -> None:
    """So that the gateway begins a new one under load."""
    log.mkdir(parents=True, mode=0o700)
    line = orjson.dumps(record(0, id="long-ago", output="x" * 1000)) + b"\n"
    lines = [line.replace(b"long-ago", b"long-ago-%d" % number) for number in range(600)]
    (log / "00000001.jsonl").write_bytes(b"".join(lines))


def more_answers(crowd: Crowd, count: int) -> None:
    enough = len(crowd.answers) + count
    wait_until(lambda: len(crowd.answers) >= enough, "more answers")


@pytest.mark.slow
def test_what_clients_have_is_in_the_parts_once_whenever_the_gateway_is_killed(home: Home) -> None:
    """Killed under load, compacted while it writes, and once with half a line at its end."""
    promote(home, 1, "a")
    log, dice = home.root / "serving/requests", random.Random(SEED)
    nearly_full_segment(log)
    compaction = Compaction(home.store, log)
    with engine_process(V1) as engine:
        settings = hosted(engine) | {"log_segment_mib": 1}
        with (
            serving(home, gateway=settings) as gateway,
            compaction.going_on(),
            hammering(gateway, 32) as crowd,
        ):
            for life in range(LIVES):
                more_answers(crowd, dice.randrange(1, 400))
                gateway.kill()
                if life == 0:
                    tear(log)
                    skipped = compaction.look().artifact.summary["skipped"]
                    assert skipped["torn line"] == 1
                gateway.start()
            more_answers(crowd, 50)
    ref = compaction.look()
    found = Counter(compaction.looks[-1])
    had = [(one.id, one.text) for one in crowd.answers if one.acknowledged]
    assert len(had) > 50
    assert [one for one in had if found[one] != 1] == [], SEED
    assert len({id for id, _ in found}) == len(found) == ref.records
    assert set(ref.artifact.summary["skipped"]) == {"torn line"}
    assert len(list(log.glob("*.jsonl"))) > 1
    for earlier, later in zip(compaction.looks, compaction.looks[1:], strict=False):
        assert later[: len(earlier)] == earlier, "what was read once is read again"


def tear(log: Path) -> None:
    """What a writer leaves that was killed in the midst of a line."""
    last = max(log.glob("*.jsonl"))
    with last.open("ab") as stream:
        stream.write(orjson.dumps(record(1, id="torn"))[:100])


def test_killed_at_any_moment_the_compaction_leaves_nothing_half_written(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    log = tmp_path / "log"
    log.mkdir()
    for number in range(2):
        lines = [orjson.dumps(record(10 * number + row)) + b"\n" for row in range(10)]
        (log / f"{number + 1:08d}.jsonl").write_bytes(b"".join(lines))
    counted = [(pq.ParquetWriter, "write_table"), *((Path, name) for name in WRITES)]
    for writes in itertools.count(1):
        compaction = Compaction(ArtifactStore(tmp_path / str(writes)), log)
        if not killed_after(writes, compaction.look, counted):
            break
        whole = [path for path in compaction.store.root.glob("[!.]*/[!.]*") if path.is_dir()]
        assert [find_fault(path) for path in whole] == [None] * len(whole)
        compaction.look()
        assert compaction.looks == [[(f"request-{n}", "On its way.") for n in range(20)]]
    assert writes > 2 * len(counted)
