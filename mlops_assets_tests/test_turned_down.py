"""A retraining that starts by itself asks nobody again about what people or users turned down."""

from dataclasses import replace
from typing import Any

import pytest

from mlops_assets.home import Home
from mlops_assets.ledger import PROMOTED, REJECTED, ROLLED_BACK
from mlops_assets.promotion import registry
from mlops_assets.promotion.approval import reject
from mlops_assets.serving.rollout.release_steps import release_first
from mlops_assets.serving.rollout.rollback import roll_back
from mlops_assets_tests.promotion_runs import run_promotion
from mlops_assets_tests.releases import MODEL, enlist, make_bundle, make_gate, stranger
from mlops_assets_tests.served_homes import promote

DRIFT = {"mlops/trigger": "drift"}


@pytest.fixture
def released(home: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Version 1 is what users get; version 2, bundle `b`, is the candidate of these tests."""
    monkeypatch.setattr(registry, "reconcile", lambda *_: {})
    enlist(home, "ada")
    promote(home, 1, "a")
    champion = home.ledger.champion(MODEL)
    assert champion is not None
    home.ledger.append(release_first(champion))
    return home


def retrain(
    home: Home, tags: dict[str, str] | None = None, data: str = "", **policy: Any
) -> tuple[str, int]:
    """The last step of a retraining whose candidate passed against the champion of now: its state,
    and how many requests the ledger holds."""
    champion, bundle = home.ledger.champion(MODEL), make_bundle(home, "b")
    assert champion is not None
    if data:
        bundle = replace(bundle, versions=replace(bundle.versions, data=data))
    judged = make_gate(home, bundle, champion.decision.bundle.digest)
    state = run_promotion(2, judged, policy, tags)["state"]
    asked = [row for row in home.ledger.entries() if row.decision.outcome == "requested"]
    return str(state), len(asked)


def rejected(home: Home) -> str:
    reject(home, 2, "ada", "wrong tone", stranger(home, "ada").key)
    return REJECTED


def rolled_back(home: Home) -> str:
    promote(home, 2, "b")
    roll_back(home, "ada", "users complain", stranger(home, "ada").key)
    return ROLLED_BACK


@pytest.mark.parametrize("turned_down", [rejected, rolled_back])
def test_the_same_candidate_is_asked_about_once(released: Home, turned_down: Any) -> None:
    state, asked = retrain(released, DRIFT)
    assert (state, asked) == ("open", 2)
    how = turned_down(released)
    _, before = retrain(released, DRIFT)
    assert retrain(released, DRIFT) == (how, before)


def test_after_another_champion_the_rejection_still_stands(released: Home) -> None:
    retrain(released, DRIFT)
    rejected(released)
    promote(released, 3, "c")
    assert retrain(released, DRIFT) == (REJECTED, 3)


@pytest.mark.parametrize(
    "changed", [{"data": "other data"}, {"request_hours": 5}], ids=["data", "policy"]
)
def test_on_another_ground_people_are_asked(released: Home, changed: dict[str, Any]) -> None:
    retrain(released, DRIFT)
    rolled_back(released)
    before = retrain(released, DRIFT)[1]
    assert retrain(released, DRIFT, **changed) == ("open", before + 1)


def test_who_starts_a_retraining_by_hand_may_ask_again(released: Home) -> None:
    retrain(released, DRIFT)
    rolled_back(released)
    state, _ = retrain(released)
    assert state == "open"


def test_what_is_the_champion_is_not_turned_down(released: Home) -> None:
    promote(released, 2, "b")
    assert retrain(released, DRIFT)[0] == PROMOTED
