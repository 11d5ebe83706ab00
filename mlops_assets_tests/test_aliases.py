"""The registry's aliases follow the ledger, whoever moved them and wherever a crash fell.

On a real MLflow with SQLite.
"""

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from mlops_assets.home import Home
from mlops_assets.promotion import approval, registry
from mlops_assets.promotion.audit import audit
from mlops_assets.promotion.request import open_request
from mlops_assets.promotion.spec import PromotionSpec
from mlops_assets.promotion.submission import Submission
from mlops_assets.refs import RegisteredModelRef
from mlops_assets_tests.releases import NOON
from mlops_assets_tests.submissions import (
    NAME,
    client,
    forbid_mlflow,
    make_submission,
    promote,
    register,
)


def ask(home: Home, submission: Submission, version: int) -> None:
    """A request for approval that expires a day after noon."""
    evaluated = submission.evaluated
    registered = RegisteredModelRef(NAME, version, evaluated.bundle, evaluated.artifact)
    policy = PromotionSpec(request_hours=24)
    open_request(home, registered, submission.gate, policy, "ada@example.org", "run", NOON)


def test_a_candidate_becomes_challenger_champion_and_previous(
    tracked_home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tracked_home

    def aliases() -> dict[str, int]:
        return dict(registry.reconcile(home, NAME, NOON))

    assert aliases() == {}
    first = make_submission(home, "a")
    register(home, first)
    assert aliases() == {"candidate": 1}
    ask(home, first, 1)
    assert aliases() == {"candidate": 1, "challenger": 1}
    promote(home, first, 1)
    assert aliases() == {"candidate": 1, "champion": 1}
    second = make_submission(home, "b", champion=first.evaluated.bundle.digest)
    register(home, second)
    ask(home, second, 2)
    assert aliases() == {"candidate": 2, "challenger": 2, "champion": 1}
    promote(home, second, 2)
    # A crash here leaves the aliases behind; whoever reconciles next moves them.
    assert registry.glance(home, NAME) == registry.look(client(home), NAME)
    expected = {"candidate": 2, "champion": 2, "previous": 1}
    assert aliases() == expected
    client(home).set_registered_model_alias(NAME, "champion", "1")  # by another hand
    client(home).set_registered_model_alias(NAME, "challenger", "1")
    client(home).delete_registered_model_alias(NAME, "candidate")
    assert aliases() == expected
    forbid_mlflow(monkeypatch)
    assert aliases() == expected


def test_the_command_reconcile_finds_a_challenger_before_any_champion(tracked_home: Home) -> None:
    submission = make_submission(tracked_home)
    register(tracked_home, submission)
    ask(tracked_home, submission, 1)
    assert approval.reconcile(tracked_home, NOON) == {NAME: {"candidate": 1, "challenger": 1}}


def test_nobody_is_challenger_once_the_request_expired(tracked_home: Home) -> None:
    submission = make_submission(tracked_home)
    register(tracked_home, submission)
    ask(tracked_home, submission, 1)
    later = NOON + timedelta(hours=24)
    assert registry.reconcile(tracked_home, NAME, NOON)["challenger"] == 1
    assert registry.reconcile(tracked_home, NAME, later) == {"candidate": 1}


def test_a_lost_registry_is_filled_again(tracked_home: Home, migrated_database: Path) -> None:
    first, second = make_submission(tracked_home, "a"), make_submission(tracked_home, "b")
    register(tracked_home, first)
    assert register(tracked_home, second) == 2
    promote(tracked_home, second, 2)
    assert registry.reconcile(tracked_home, NAME)["champion"] == 2
    tracked_home.mlflow_database.write_bytes(migrated_database.read_bytes())
    assert register(tracked_home, second) == 1
    assert registry.reconcile(tracked_home, NAME)["champion"] == 1


def test_a_home_without_a_registry_has_no_aliases(home: Home) -> None:
    promote(home, make_submission(home), 1)
    assert registry.reconcile(home, NAME) == {}
    assert not home.mlflow_database.exists()


def test_a_champion_whose_row_was_cut_off_is_found(tracked_home: Home) -> None:
    home, first = tracked_home, make_submission(tracked_home, "a")
    register(home, first)
    ask(home, first, 1)
    promote(home, first, 1)
    registry.reconcile(home, NAME, NOON)
    with closing(sqlite3.connect(home.root / "ledger.db")) as ledger, ledger:
        ledger.execute("DELETE FROM decisions WHERE outcome = 'promoted'")
    found = audit(home).problems
    assert found == (f"the alias champion of {NAME} names version 1, which no row promotes",)
