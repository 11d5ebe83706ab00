"""What is served follows from the rows: every order in which they can come."""

import pytest

from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home
from mlops_assets.ledger import (
    CANARY,
    PROMOTED,
    RELEASED,
    ROLLED_BACK,
    SHADOW,
    Decision,
)
from mlops_assets.promotion.audit import audit
from mlops_assets.release_state import ReleaseState, released_by
from mlops_assets.release_view import recent_steps, release_json, release_line
from mlops_assets_tests.release_stories import NAMES, Story
from mlops_assets_tests.releases import MODEL, make_bundle


def shown(state: ReleaseState) -> str:
    """Stable, candidate, stage and percent, and what a rollback would restore."""
    rows = (state.stable, state.candidate, state.restores)
    stable, candidate, back = (NAMES[r.decision.version - 1] if r else "-" for r in rows)
    return f"{stable} {candidate} {state.stage or '-'} {state.percent} {back}"


STORIES = [
    ("", "- - - 0 -"),
    ("promote a", "a - waiting 0 -"),
    ("promote a, released a", "a - released 0 -"),
    ("promote a, promote b", "b - waiting 0 a"),  # no gateway ever ran
    ("promote a, promote b, released b", "b - released 0 a"),
    ("promote a, promote a, released a", "a - released 0 -"),  # approved anew
    ("promote a, released a, promote b", "a b waiting 0 a"),
    ("promote a, released a, promote a", "a - released 0 -"),
    ("promote a, released a, promote b, shadow b", "a b shadow 0 a"),
    ("promote a, released a, promote b, shadow b, canary b 5, canary b 25", "a b canary 25 a"),
    ("promote a, released a, promote b, canary b 5", "a b canary 5 a"),  # shadow is left out
    ("promote a, released a, promote b, shadow b, canary b 5, released b", "b - released 0 a"),
    ("promote a, released a, promote b, canary b 5, promote c", "a c waiting 0 a"),
    ("promote a, released a, promote b, canary b 5, promote a", "a - released 0 -"),
    ("promote a, released a, promote b, canary b 50, back a", "a - rolled_back 0 -"),
    ("promote a, released a, promote b, back a, promote b", "a b waiting 0 a"),
    ("promote a, released a, promote b, back a, promote c, released c", "c - released 0 a"),
    ("promote a, released a, promote b, released b, back a", "a - rolled_back 0 -"),
    ("promote a, released a, promote b, released b, promote c, back b", "b - rolled_back 0 a"),
    (
        "promote a, released a, promote b, released b, promote c, released c, back b, back a",
        "a - rolled_back 0 -",
    ),
    ("promote a, promote b, back a", "a - rolled_back 0 -"),  # by hand, before any gateway
    ("promote a, promote b, back a, promote c", "a c waiting 0 a"),
    (
        "promote a, released a, promote b, released b, promote a, released a, back b, back a",
        "a - rolled_back 0 -",
    ),
]


@pytest.mark.parametrize(("story", "expected"), STORIES)
def test_the_rows_add_up(home: Home, story: str, expected: str) -> None:
    told = Story(home)
    for words in filter(None, story.split(", ")):
        told.tell(words)
    assert shown(told.state) == expected
    champion = home.ledger.champion(MODEL)
    assert told.state.champion == champion
    problems = [found for found in audit(home).problems if "nobody was asked" not in found]
    assert problems == []
    if champion:
        in_force = told.state.candidate or told.state.stable
        assert in_force is not None
        assert champion.decision.bundle.digest == in_force.decision.bundle.digest


BEGUN = "promote a, released a, promote b"
IMPOSSIBLE = [
    ("promote a, released a", "shadow a", "is a step of what is no candidate"),
    (BEGUN, "shadow c", "is a step of what is no candidate"),
    (BEGUN, "released c", "releases what is no candidate"),
    (f"{BEGUN}, canary b 25", "canary b 5", "takes a canary from 25% to 5%"),
    (f"{BEGUN}, canary b 25", "canary b 100", "takes a canary from 25% to 100%"),
    (f"{BEGUN}, canary b 5", "shadow b", "begins a release that had begun"),
    (f"{BEGUN}, promote c", "released b", "releases what is no candidate"),
    (f"{BEGUN}, released b", "back c", "restores what was not in force before"),
    (f"{BEGUN}, canary b 5", "back b", "restores what was not in force before"),
    (f"{BEGUN}, back a", "back b", "restores what was not in force before"),
    ("promote a, released a", "back a", "restores what was not in force before"),
]


@pytest.mark.parametrize(("story", "forged", "why"), IMPOSSIBLE)
def test_what_cannot_have_followed_changes_nothing_and_is_named(
    home: Home, story: str, forged: str, why: str
) -> None:
    told = Story(home)
    for words in story.split(", "):
        told.tell(words)
    before = shown(told.state)
    row = told.tell(forged)
    assert shown(told.state) == before
    assert any(f"entry {row.entry} {why}" in found for found in audit(home).problems)
    with pytest.raises(LineageError, match=why):
        released_by(home.ledger.entries(), row)


def test_a_rollback_undoes_the_champion_of_then(home: Home) -> None:
    told = Story(home)
    for words in BEGUN.split(", "):
        told.tell(words)
    bundle = make_bundle(home, "a")
    late = Decision("late", ROLLED_BACK, "late", MODEL, 1, bundle, {}, replaces=None)
    home.ledger.append(late)
    assert shown(told.state) == "a b waiting 0 a"
    assert any("undoes entry None" in found for found in audit(home).problems)


def test_a_rollback_and_a_promotion_at_once_one_wins(home: Home) -> None:
    told = Story(home)
    for words in BEGUN.split(", "):
        told.tell(words)
    champion = home.ledger.champion(MODEL)
    assert champion is not None
    a, c = make_bundle(home, "a"), make_bundle(home, "c")
    replaces = champion.entry
    home.ledger.append(Decision("back", ROLLED_BACK, "r", MODEL, 1, a, {}, replaces))
    with pytest.raises(LineageError, match="changed while"):
        home.ledger.append(Decision("next", PROMOTED, "r", MODEL, 3, c, {}, replaces))
    assert shown(told.state) == "a - rolled_back 0 -"


def test_people_and_machines_are_told(home: Home) -> None:
    told = Story(home)
    lines = []
    for words in f"{BEGUN}, shadow b, canary b 25, back a".split(", "):
        told.tell(words)
        lines.append(release_line(told.state).partition(" since")[0])
    assert lines == [
        "version 1 waits for a gateway (`mlops serve`)",
        "version 1 to all users",
        "version 1 to all users; version 2 waits for a gateway (`mlops serve`)",
        "version 1 to all users; version 2 sees copies of requests (shadow)",
        "version 1 to 75% of users, version 2 to 25% (canary)",
        "version 1 to all users",
    ]
    assert "after a rollback" in release_line(told.state)
    found = release_json(told.state)
    assert (found["stage"], found["stable"]["version"], found["candidate"]) == (
        *(ROLLED_BACK, 1),
        None,
    )
    steps = [
        (step["outcome"], step["percent"]) for step in recent_steps(home.ledger.entries(), MODEL)
    ]
    assert steps == [(RELEASED, 100), (SHADOW, 0), (CANARY, 25), (ROLLED_BACK, 100)]
