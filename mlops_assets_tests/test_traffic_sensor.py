"""New traffic starts a look at it: once, when there is enough, and only where there was a look."""

import json
from pathlib import Path

import pytest

from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home
from mlops_assets.monitoring.log.new_requests import count_new
from mlops_assets.monitoring.log.prediction_log import PredictionLogSpec, collect
from mlops_assets.ref_json import dump_ref
from mlops_assets.sensor_interval import sensor_seconds
from mlops_assets_tests.daemon import Daemon

ENOUGH = 5


def log(directory: Path, lines: int, segment: int = 1) -> None:
    """Requests that were logged; what stands in their lines is another test's."""
    directory.mkdir(exist_ok=True)
    with (directory / f"{segment:08d}.jsonl").open("a") as stream:
        stream.write("{}\n" * lines)


@pytest.fixture
def requests(home: Home, data: Path) -> Path:
    """An empty log, which the profile names; the data is gone, so it starts nothing."""
    data.unlink()
    directory = home.root / "requests"
    settings = {
        "raw_dataset": {"path": str(data)},
        "prediction_log": {"directory": str(directory), "monitor_after_requests": ENOUGH},
    }
    profile = {"ops": {asset: {"config": given} for asset, given in settings.items()}}
    (data.parent / "profile.yaml").write_text(json.dumps(profile))
    directory.mkdir()
    return directory


def look(home: Home, requests: Path) -> None:
    """As if `monitor` had read the log."""
    ref = collect(home.store, PredictionLogSpec(directory=str(requests)), requests)
    home.write_ref("prediction_log", "a-run", dump_ref(ref))


def test_enough_new_requests_start_one_look(daemon: Daemon, home: Home, requests: Path) -> None:
    log(requests, 20)
    daemon.tick_sensors()
    assert daemon.runs == [], "nobody has looked at this log yet: `lineage` comes first"
    look(home, requests)
    log(requests, ENOUGH - 1)
    daemon.tick_sensors()
    assert daemon.runs == []
    log(requests, 1, segment=2)
    daemon.tick_sensors()
    (run,) = daemon.started("monitor", "traffic")
    log(requests, 100)
    daemon.tick_sensors()
    assert daemon.runs == [run], "it is under way"
    daemon.workspace.instance.report_run_failed(run, "The disk is full.")
    daemon.tick_sensors()
    assert len(daemon.started("monitor", "traffic")) == 1, "not again at every tick"
    look(home, requests)
    daemon.tick_sensors()
    assert len(daemon.started("monitor", "traffic")) == 1, "all of it was seen"
    log(requests, ENOUGH)
    daemon.tick_sensors()
    assert len(daemon.started("monitor", "traffic")) == 2


def test_what_is_new_is_counted_behind_what_was_seen(tmp_path: Path) -> None:
    log(tmp_path, 10)
    log(tmp_path, 4, segment=2)
    size = (tmp_path / "00000001.jsonl").stat().st_size
    cases = {
        "nothing seen": ({}, 14),
        "the first segment seen": ({"00000001.jsonl": size}, 4),
        "half of the first": ({"00000001.jsonl": size // 2}, 9),
        "a segment that became shorter": ({"00000001.jsonl": size + 1}, 14),
    }
    for name, (position, new) in cases.items():
        assert count_new(tmp_path, position, 1000) == new, name
    assert count_new(tmp_path, {}, 3) >= 3
    assert count_new(tmp_path / "nowhere", {}, 3) == 0


def test_who_watches_may_have_sensors_look_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    for asked, seconds in {"": 60, "5": 5, "90": 60}.items():
        monkeypatch.setenv("MLOPS_SENSOR_SECONDS", asked)
        assert sensor_seconds(60) == seconds
    for asked in ("0", "-1", "soon", "1.5"):
        monkeypatch.setenv("MLOPS_SENSOR_SECONDS", asked)
        with pytest.raises(LineageError, match="no whole number of seconds"):
            sensor_seconds(60)
