"""What starts a retraining by itself shares one cooldown and one daily cap, and waits its turn."""

import json
from datetime import timedelta
from pathlib import Path

import time_machine
from dagster._core.test_utils import create_run_for_test
from typer.testing import CliRunner

from mlops_assets.cli import app
from mlops_assets.home import Home
from mlops_assets.promotion.approval import approve
from mlops_assets.retraining_notes import read_notes
from mlops_assets.serving.rollout.release_steps import release_first
from mlops_assets.serving.rollout.rollback import roll_back
from mlops_assets.state import read_state
from mlops_assets_tests.daemon import Daemon
from mlops_assets_tests.releases import MODEL, enlist, request
from mlops_assets_tests.test_automation import drifted

HOUR = timedelta(hours=1)


def said(home: Home) -> str:
    """What the sensor said when it looked last."""
    (note,) = [note for note in read_notes(home) if note.sensor == "drift_sensor"]
    return note.said


def test_new_data_counts_towards_the_bounds_of_drift(
    daemon: Daemon, home: Home, data: Path
) -> None:
    daemon.tick_sensors()
    assert len(daemon.retrains("data")) == 1
    drifted(home)
    daemon.tick_sensors(HOUR)
    assert daemon.retrains("drift") == []
    assert "cooling down until 2026-03-03 00:05" in said(home)
    daemon.tick_sensors(12 * HOUR)
    assert len(daemon.retrains("drift")) == 1
    data.write_text('{"id": "9"}\n')
    drifted(home, key="k2")
    daemon.tick_sensors()
    assert len(daemon.retrains("data")) == 2, "a person put it there: it waits for nothing"
    daemon.tick_sensors(13 * HOUR)
    assert daemon.retrains("drift")[1:] == [], "two within 24 hours are the cap, whoever began them"
    assert "2 retrainings within 24 hours are the daily cap" in said(home)


def test_a_second_attempt_at_a_run_is_no_second_retraining(
    daemon: Daemon, home: Home, data: Path
) -> None:
    data.unlink()
    drifted(home)
    daemon.tick_sensors()
    (first,) = daemon.retrains("drift")
    with time_machine.travel(daemon.now):
        create_run_for_test(
            daemon.workspace.instance,
            job_name="retrain",
            tags=first.tags,
            parent_run_id=first.run_id,
            root_run_id=first.run_id,
        )
    assert len(daemon.retrains("drift")) == 2
    drifted(home, key="k2")
    daemon.tick_sensors(13 * HOUR)
    assert len(daemon.retrains("drift")) == 3


def test_nothing_starts_while_a_candidate_waits_or_is_on_its_way(
    daemon: Daemon, home: Home, data: Path
) -> None:
    data.unlink()
    ada = enlist(home, "ada")
    request(home, 1, "a", now=daemon.now)
    approve(home, 1, "ada", "fine", ada.key, now=daemon.now)
    champion = home.ledger.champion(MODEL)
    assert champion is not None
    home.ledger.append(release_first(champion))
    request(home, 2, "b", now=daemon.now)
    drifted(home)
    daemon.tick_sensors()
    assert "version 2 waits for approval" in said(home)
    approve(home, 2, "ada", "fine", ada.key, now=daemon.now)
    daemon.tick_sensors()
    assert "version 2 is on its way to users (waiting)" in said(home)
    assert daemon.retrains("drift") == []
    roll_back(home, "ada", "users complain", ada.key)
    daemon.tick_sensors()
    assert len(daemon.retrains("drift")) == 1


def test_the_status_says_what_retrained_last_and_why_nothing_does_now(
    daemon: Daemon, home: Home, data: Path
) -> None:
    data.unlink()
    drifted(home, layers={"data": "drift", "concept": "no_verdict"})
    daemon.tick_sensors()
    assert read_state(home).last_retraining is None, "it is about to start one"
    daemon.tick_sensors()
    ended = CliRunner().invoke(app, ["status"])
    told = " ".join(ended.output.split())
    (run,) = daemon.retrains("drift")
    assert "drift in words (1,000 records) drift: data; no verdict: concept" in told
    reason = f"drift in words over 1,000 records (run {run.run_id[:8]})"
    assert "by drift at 2026-03-02T12:05:" in told
    assert reason in told
    assert "No retraining: cooling down until 2026-03-03 00:05:" in told
    found = json.loads(CliRunner().invoke(app, ["status", "--json"]).output)["retraining"]
    assert found["last"]["run"] == run.run_id
    assert found["sensors"]["drift_sensor"]["said"].startswith("No retraining: cooling down")
