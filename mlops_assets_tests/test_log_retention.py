"""Closed segments of the request log go, and nothing that they held is lost with them."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from mlops_assets.artifacts import LineageError
from mlops_assets.cli import app
from mlops_assets.home import Home
from mlops_assets.ledger import Decision
from mlops_assets.monitoring.log.prediction_log import PredictionLogSpec, collect
from mlops_assets.monitoring.log.window import PARTS, newest, read
from mlops_assets.monitoring_refs import PredictionLogRef
from mlops_assets.promotion.pruning import Pruned, prune
from mlops_assets.retired_segments import LOG_PART, retired_segments
from mlops_assets.serving.accounting.counted_log import sum_of_log
from mlops_assets.serving.accounting.usage_ledger import UsageLedger, usage_ledger
from mlops_assets.serving.accounting.usage_report import differences
from mlops_assets.serving.records import log_retention
from mlops_assets.serving.records.log_retention import decide_segments
from mlops_assets.serving.serving_home import ServingHome
from mlops_assets.serving.traffic.experiment_state import EXPERIMENT, start_key
from mlops_assets_tests.retention_rows import NOTHING_SPARED
from mlops_assets_tests.served_homes import MODEL, promote
from mlops_assets_tests.sudden_death import killed_after
from mlops_assets_tests.test_usage_ledger import record

NOW = datetime.now(UTC)
ROWS = 5


@dataclass
class LoggedHome:
    """A home with a request log of three closed segments and an open one, 40 to 37 days old."""

    home: Home

    @property
    def log(self) -> Path:
        return ServingHome.of(self.home).requests

    @property
    def ledger(self) -> UsageLedger:
        return usage_ledger(ServingHome.of(self.home))

    def write(self) -> None:
        self.log.mkdir(parents=True)
        for number in range(4):
            day = NOW - timedelta(days=40 - number)
            lines = [
                orjson.dumps(record(10 * number + row, timestamp=day.isoformat())) + b"\n"
                for row in range(ROWS)
            ]
            path = self.log / f"{number + 1:08d}.jsonl"
            path.write_bytes(b"".join(lines) + b'{"id": "torn\n')
            os.utime(path, (day.timestamp(), day.timestamp()))

    def collect(self) -> PredictionLogRef:
        return collect(self.home.store, PredictionLogSpec(directory=str(self.log)), self.log)

    def prune(self, keep_days: float = 30, vote_days: float = 30, delete: bool = True) -> Pruned:
        def segments(now: datetime) -> Any:
            return decide_segments(self.home, keep_days, vote_days, now)

        return prune(self.home, NOTHING_SPARED, delete=delete, now=NOW, others=segments)

    def reasons(self, **days: float) -> list[str]:
        kept = self.prune(delete=False, **days).plan.keep
        return [item.reason for item in kept if item.what == log_retention.SEGMENT]

    def ids(self) -> list[str]:
        ref = self.collect()
        parts = newest(self.home.store, ref)
        return [one for part in parts for one in read(self.home.store, part)["id"].to_pylist()]

    @property
    def left(self) -> list[str]:
        return sorted(path.name[7:] for path in self.log.glob("*.json*"))


@pytest.fixture
def logged(home: Home) -> LoggedHome:
    found = LoggedHome(home)
    found.write()
    found.ledger.catch_up()
    return found


def test_what_goes_lies_in_a_part_and_still_counts(logged: LoggedHome) -> None:
    """Though no ref names the parts any more, as when the samples were looked at since."""
    before, totals, listed = logged.ids(), logged.ledger.totals(), index(logged)
    pruned = logged.prune()
    assert logged.left == ["1.retired.json", "2.retired.json", "3.retired.json", "4.jsonl"]
    freed = [item for item in pruned.plan.delete if item.what == log_retention.SEGMENT]
    assert [item.name for item in freed] == [f"requests/{n:08d}.jsonl" for n in (1, 2, 3)]
    assert len(before) == 4 * ROWS
    assert logged.ids() == before
    assert index(logged)[:3] == listed[:3]
    assert logged.collect().unreadable == 4
    assert differences(logged.ledger) == []
    assert sum_of_log(logged.log) == totals
    logged.ledger.path.unlink()
    logged.ledger.catch_up()
    assert logged.ledger.totals() == totals
    assert logged.ledger.catch_up() == {}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in logged.log.glob("*.retired.json"))


def index(logged: LoggedHome) -> list[dict[str, Any]]:
    folder = logged.home.store.path(logged.collect().artifact)
    parts: list[dict[str, Any]] = json.loads((folder / PARTS).read_bytes())["parts"]
    return parts


def start_experiment(logged: LoggedHome) -> None:
    """A row of the ledger, as old as the second segment."""
    promoted = promote(logged.home, 1, "a")
    terms = {
        "name": "tone",
        "version_a": 1,
        "version_b": 1,
        "release_a": "a" * 64,
        "release_b": "b" * 64,
        "promotion_a": 1,
        "promotion_b": 1,
        "metric": "resolved",
        "baseline": 0.5,
        "minimum_effect": 0.1,
        "alpha": 0.05,
        "power": 0.8,
        "users_needed": 100,
        "share": 1.0,
        "salt": "salt",
    }
    logged.home.ledger.append(
        Decision(
            key=start_key(MODEL, "tone"),
            outcome=EXPERIMENT,
            reason="for the test",
            model=MODEL,
            version=1,
            bundle=promoted.decision.bundle,
            evidence={"terms": terms},
        )
    )
    for path in sorted(logged.log.glob("*.jsonl"))[1:]:
        path.touch()  # written to since the experiment began


def lose_a_part(logged: LoggedHome) -> None:
    key = index(logged)[1]["key"]
    shutil.rmtree(logged.home.store.root / LOG_PART / key)


def damage_a_part(logged: LoggedHome) -> None:
    key = index(logged)[1]["key"]
    (logged.home.store.root / LOG_PART / key / "records.parquet").write_bytes(b"?")


OPEN, OLDER = "written to now", "an older one stays"


@pytest.mark.parametrize(
    ("change", "days", "reasons"),
    [
        (None, {}, [OPEN]),
        (None, {"keep_days": 38.5}, ["younger than 38.5 days", OPEN]),
        (None, {"vote_days": 38.5}, ["its requests take votes still", OPEN]),
        (lose_a_part, {}, ["its records are in no sound part: run the job monitor", OLDER, OPEN]),
        (damage_a_part, {}, ["its records are in no sound part: run the job monitor", OLDER, OPEN]),
        (
            lambda logged: logged.ledger.path.unlink(),
            {},
            [*["not counted into the budgets yet: start the gateway"] * 3, OPEN],
        ),
    ],
)
def test_what_somebody_needs_stays(
    logged: LoggedHome,
    change: Callable[[LoggedHome], None] | None,
    days: dict[str, float],
    reasons: list[str],
) -> None:
    logged.collect()
    if change is not None:
        change(logged)
    assert logged.reasons(**days) == reasons


def test_an_experiment_that_runs_keeps_what_it_is_made_from(logged: LoggedHome) -> None:
    logged.collect()
    start_experiment(logged)
    assert logged.reasons(keep_days=-1, vote_days=-1) == [
        *["a rollout or an experiment is made from it"] * 2,
        OPEN,
    ]


def test_killed_between_any_two_writes_nothing_is_lost_or_counted_twice(
    logged: LoggedHome,
) -> None:
    before, totals, writes = logged.ids(), logged.ledger.totals(), 1
    counted = ((log_retention, "write_retired"), (Path, "unlink"))
    while killed_after(writes, logged.prune, counted):
        assert logged.ids() == before
        assert sum_of_log(logged.log) == totals
        assert differences(logged.ledger) == []
        writes += 1
        assert writes < 20
    assert logged.left == ["1.retired.json", "2.retired.json", "3.retired.json", "4.jsonl"]


def test_an_old_copy_of_the_budget_ledger_is_refused(logged: LoggedHome) -> None:
    """It ends within a segment that is no more: counting on would leave the rest of it out."""
    logged.collect()
    path = logged.log / "00000001.jsonl"
    whole, times = path.read_bytes(), path.stat()
    logged.ledger.path.unlink()
    others = [
        each.rename(each.with_suffix(".away")) for each in sorted(logged.log.glob("*[234].jsonl"))
    ]
    path.write_bytes(whole[: whole.find(b"\n") + 1])
    logged.ledger.catch_up()
    old = logged.ledger.path.read_bytes()
    path.write_bytes(whole)
    os.utime(path, (times.st_atime, times.st_mtime))
    for each in others:
        each.rename(each.with_suffix(".jsonl"))
    logged.ledger.catch_up()
    logged.prune()
    assert len(list(retired_segments(logged.log))) == 3
    for leftover in ("", "-wal", "-shm"):
        logged.ledger.path.with_name(logged.ledger.path.name + leftover).unlink(missing_ok=True)
    logged.ledger.path.write_bytes(old)
    with pytest.raises(LineageError, match="it is an old copy"):
        logged.ledger.catch_up()


def test_what_was_counted_long_ago_is_not_read_again(logged: LoggedHome) -> None:
    """A gateway counts every second, whatever was deleted since it began."""
    logged.collect()
    logged.prune()
    (logged.log / "00000001.retired.json").write_text("{")
    assert logged.ledger.catch_up() == {}
    with pytest.raises(LineageError, match=r"00000001\.retired\.json cannot be read"):
        differences(logged.ledger)


def test_a_part_that_was_lost_is_named(logged: LoggedHome) -> None:
    logged.collect()
    logged.prune()
    shutil.rmtree(logged.home.store.root / LOG_PART)
    with pytest.raises(LineageError, match="holds the records of the deleted segment"):
        logged.collect()


def test_the_command(logged: LoggedHome, monkeypatch: pytest.MonkeyPatch) -> None:
    logged.collect()
    monkeypatch.setenv("MLOPS_HOME", str(logged.home.root))
    shown = CliRunner().invoke(app, ["prune"])
    assert shown.exit_code == 0
    assert "requests/00000003.jsonl" in shown.output
    assert "its records are in log_part" in shown.output
    assert logged.left == ["1.jsonl", "2.jsonl", "3.jsonl", "4.jsonl"]
    done = CliRunner().invoke(app, ["prune", "--delete", "--json"])
    assert done.exit_code == 0
    assert json.loads(done.output)["deleted"] is True
    assert logged.left == ["1.retired.json", "2.retired.json", "3.retired.json", "4.jsonl"]
    checked = CliRunner().invoke(app, ["usage", "--check"])
    assert (checked.exit_code, "is the sum" in checked.output) == (0, True)
