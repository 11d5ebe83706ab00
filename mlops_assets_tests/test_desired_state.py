"""What the gateway wants to serve while the ledger is there, is gone, or is not to be believed."""

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home
from mlops_assets.ledger import Ledger
from mlops_assets.release_check import verify_release
from mlops_assets.serving.rollout.desired_state import COPY, DesiredState
from mlops_assets.serving.rollout.release_steps import begin, release_first
from mlops_assets_tests.releases import MODEL
from mlops_assets_tests.served_homes import promote
from mlops_assets_tests.waiting import wait_until


def ledger_file(home: Home) -> Path:
    return home.root / "ledger.db"


def copy_file(home: Home) -> Path:
    return home.root / "serving" / COPY


@pytest.fixture
def served(home: Home) -> Home:
    """Version 1 is released, version 2 is at 5%, and a gateway has read it."""
    home.ledger.append(release_first(promote(home, 1, "a")))
    home.ledger.append(begin(promote(home, 2, "b"), 5))
    assert read(home).problem is None
    return home


def read(home: Home) -> DesiredState:
    """As a gateway that starts."""
    desired = DesiredState(home, MODEL, poll_s=0.01)
    desired.start()
    desired.stop()
    return desired


def what(desired: DesiredState) -> tuple[int | None, int | None, str, int]:
    """Stable and candidate version, stage and percent."""
    state = desired.state
    rows = (state.stable, state.candidate)
    stable, candidate = (row.decision.version if row else None for row in rows)
    return stable, candidate, state.stage, state.percent


UNDER_WAY = (1, 2, "canary", 5)


def gone(home: Home) -> None:
    ledger_file(home).unlink()
    ledger_file(home).mkdir()


def emptied(home: Home) -> None:
    ledger_file(home).write_bytes(b"")


def no_database(home: Home) -> None:
    ledger_file(home).write_text("this is no database, but long enough to look like one")


def cut_off(home: Home) -> None:
    change(home, "DELETE FROM decisions WHERE entry = (SELECT max(entry) FROM decisions)")


def change(home: Home, statement: str) -> None:
    with sa.create_engine(f"sqlite:///{ledger_file(home)}").begin() as connection:
        connection.exec_driver_sql(statement)


def another_shape(home: Home) -> None:
    """A new row that is JSON, and none of ours."""
    change(
        home,
        "INSERT INTO decisions"
        " (key, evidence, hash, at, outcome, reason, model, version, bundle_digest, bundle)"
        " SELECT 'new', '[]', 'new', at, outcome, reason, model, version, bundle_digest, bundle"
        " FROM decisions WHERE outcome = 'canary'",
    )


@pytest.mark.parametrize("fault", [gone, emptied, no_database, cut_off, another_shape])
def test_the_last_known_good_state_stays_in_force(
    served: Home, fault: Callable[[Home], None]
) -> None:
    running = DesiredState(served, MODEL)
    running.refresh()
    kept = served.root / "kept.db"
    shutil.copyfile(ledger_file(served), kept)
    fault(served)
    assert not running.refresh()
    started = read(served)
    for desired in (running, started):
        assert what(desired) == UNDER_WAY
        assert desired.problem is not None
        assert desired.age_s is not None
    shutil.rmtree(ledger_file(served), ignore_errors=True)
    kept.replace(ledger_file(served))
    for desired in (running, started):
        assert desired.refresh()
        assert desired.problem is None
        assert what(desired) == UNDER_WAY


def test_approvals_are_verified_from_the_copy_alone(served: Home) -> None:
    gone(served)
    desired = read(served)
    stable = desired.state.stable
    assert stable is not None
    assert verify_release(served, stable, desired.entries) == ("ada",)
    with pytest.raises(LineageError, match="cannot be used"):
        verify_release(served, stable)


def other_model(copy: dict[str, object]) -> None:
    copy["model"] = "another"


def other_row(copy: dict[str, object]) -> None:
    rows = copy["rows"]
    assert isinstance(rows, list)
    rows[1]["reason"] = "because"


def without_a_row(copy: dict[str, object]) -> None:
    rows = copy["rows"]
    assert isinstance(rows, list)
    del rows[1]


def no_rows(copy: dict[str, object]) -> None:
    del copy["rows"]


@pytest.mark.parametrize("tampering", [other_model, other_row, without_a_row, no_rows])
def test_a_copy_that_was_changed_is_not_served(
    served: Home, tampering: Callable[[dict[str, object]], None]
) -> None:
    content = json.loads(copy_file(served).read_bytes())
    tampering(content)
    copy_file(served).write_text(json.dumps(content))
    gone(served)
    desired = read(served)
    assert what(desired) == (None, None, "", 0)
    assert desired.age_s is None


def test_the_copy_is_private_and_its_time_is_that_of_the_last_look(served: Home) -> None:
    assert stat.S_IMODE(copy_file(served).stat().st_mode) == 0o600
    desired = DesiredState(served, MODEL)
    desired.refresh()
    os.utime(copy_file(served), (0, 0))
    desired.refresh()
    gone(served)
    age = read(served).age_s
    assert age is not None
    assert age < 60


def test_a_start_says_what_is_wrong_and_nothing_else(
    served: Home, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    read(served)
    assert not caplog.messages
    gone(served)
    read(served)
    [said] = caplog.messages
    assert "serving the last known good release" in said


def test_a_new_row_is_seen_and_told(served: Home) -> None:
    desired = DesiredState(served, MODEL, poll_s=0.01)
    told: list[str] = []
    desired.on_change = lambda: told.append(desired.state.stage)
    desired.refresh()
    desired.refresh()
    assert told == ["canary"]
    promote(served, 3, "c")
    desired.refresh()
    assert told == ["canary", "waiting"]
    assert what(desired) == (1, 3, "waiting", 0)


def test_whatever_goes_wrong_the_ledger_is_looked_at_again(
    served: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    desired = DesiredState(served, MODEL, poll_s=0.01)
    desired.start()
    try:
        with monkeypatch.context() as broken:
            broken.setattr(Ledger, "tip", lambda _: 1 // 0)
            wait_until(lambda: desired.problem is not None)
            assert what(desired) == UNDER_WAY
        promote(served, 3, "c")
        wait_until(lambda: what(desired) == (1, 3, "waiting", 0))
    finally:
        desired.stop()
    assert desired.problem is None
    assert "ZeroDivisionError" in caplog.text
