"""The ledger is append-only and chained: whoever writes at once, whatever wrote before."""

import stat
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home
from mlops_assets.ledger import GENESIS, KEPT, NO_VERDICT, PASSED, PROMOTED, Decision, Ledger
from mlops_assets.promotion.audit import audit
from mlops_assets_tests.races import race
from mlops_assets_tests.releases import MODEL, make_bundle

BEFORE_THE_CHAIN = """
CREATE TABLE decisions (
    entry INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, at VARCHAR NOT NULL,
    key VARCHAR NOT NULL UNIQUE, outcome VARCHAR NOT NULL, reason VARCHAR NOT NULL,
    model VARCHAR NOT NULL, version INTEGER NOT NULL, bundle_digest VARCHAR NOT NULL,
    bundle TEXT NOT NULL, evidence TEXT NOT NULL, replaces INTEGER, UNIQUE (model, replaces)
)
"""


def decision(home: Home, key: str, outcome: str = PASSED, replaces: int | None = None) -> Decision:
    return Decision(key, outcome, "why", MODEL, 1, make_bundle(home), {"key": key}, replaces)


def change(home: Home, statement: str) -> None:
    with sa.create_engine(f"sqlite:///{home.root / 'ledger.db'}").begin() as connection:
        connection.exec_driver_sql(statement)


def test_each_row_follows_the_one_before(home: Home) -> None:
    for key in ("a", "b", "c"):
        home.ledger.append(decision(home, key))
    rows = home.ledger.entries()
    assert [row.previous for row in rows] == [GENESIS, rows[0].hash, rows[1].hash]
    assert all(row.hash == row.computed for row in rows)
    assert audit(home).problems == ()
    assert audit(home, rows[1].hash).problems == ()


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE decisions SET reason = 'because' WHERE entry = 2", "entry 2 was changed"),
        ("UPDATE decisions SET at = '2026-01-01T00:00:00+00:00' WHERE entry = 1", "entry 1"),
        ("UPDATE decisions SET evidence = '{}' WHERE entry = 3", "entry 3 was changed"),
        ("DELETE FROM decisions WHERE entry = 2", "entry 3 does not follow"),
        ("DELETE FROM decisions WHERE entry = 1", "entry 2 does not follow"),
        ("UPDATE decisions SET entry = 9 WHERE entry = 1", "entry 2 does not follow"),
        ("UPDATE decisions SET hash = NULL WHERE entry = 2", "entry 2 was put in without"),
        ("DELETE FROM decisions WHERE entry = 3", "rows were cut off"),
    ],
)
def test_a_row_that_was_touched_is_found(home: Home, statement: str, found: str) -> None:
    for key in ("a", "b", "c"):
        home.ledger.append(decision(home, key))
    head = audit(home).head
    change(home, statement)
    assert any(found in problem for problem in audit(home, head).problems)


def test_a_row_that_cannot_be_read_is_named(home: Home) -> None:
    home.ledger.append(decision(home, "a"))
    change(home, "UPDATE decisions SET bundle = 'nothing'")
    with pytest.raises(LineageError, match="Row 1 of the decision ledger cannot be read"):
        home.ledger.entries()


def old_ledger(home: Home) -> None:
    """A ledger as it was written before there was a chain."""
    for index, outcome in enumerate((PROMOTED, KEPT, NO_VERDICT)):
        home.ledger.append(decision(home, outcome, outcome, 0 if index == 0 else None))
    old = (
        "entry, at, key, outcome, reason, model, version, bundle_digest, bundle, evidence, replaces"
    )
    change(home, "ALTER TABLE decisions RENAME TO newer")
    change(home, BEFORE_THE_CHAIN)
    change(home, f"INSERT INTO decisions SELECT {old} FROM newer")  # noqa: S608
    change(home, "DROP TABLE newer")


def test_old_rows_are_read_and_new_ones_follow_them(home: Home) -> None:
    old_ledger(home)
    assert [row.decision.outcome for row in home.ledger.entries()] == [PROMOTED, KEPT, NO_VERDICT]
    champion = home.ledger.champion(MODEL)
    assert champion is not None
    assert not champion.chained
    row = home.ledger.append(decision(home, "new"))
    assert row.previous == home.ledger.entries()[2].computed
    assert audit(home).problems == ()
    change(home, "UPDATE decisions SET reason = 'because' WHERE entry = 2")
    assert "entry 4 does not follow" in audit(home).problems[0]


def append_many(home: Home, who: str, count: int) -> None:
    for number in range(count):
        home.ledger.append(decision(home, f"{who}{number}"))


def in_processes(home: Home, *writers: str) -> list[int]:
    """Let as many processes at once append eight rows each; their exit codes."""
    return race(*(partial(append_many, home, who, 8) for who in writers))


def test_processes_that_append_at_once_make_one_chain(home: Home) -> None:
    make_bundle(home)
    assert in_processes(home, "a", "b", "c") == [0, 0, 0]
    assert len(home.ledger.entries()) == 24
    assert audit(home).problems == ()


def test_the_same_decision_by_two_processes_is_one_row(home: Home) -> None:
    make_bundle(home)
    assert in_processes(home, "a", "a") == [0, 0]
    assert [row.decision.key for row in home.ledger.entries()] == [f"a{n}" for n in range(8)]


def test_one_champion_is_replaced_once(home: Home) -> None:
    home.ledger.append(decision(home, "first", PROMOTED, 0))
    home.ledger.append(decision(home, "second", PROMOTED, 1))
    with pytest.raises(LineageError, match="changed while this candidate was judged"):
        home.ledger.append(decision(home, "rival", PROMOTED, 1))
    assert [row.decision.key for row in home.ledger.promotions(MODEL)] == ["first", "second"]


def test_the_ledger_is_private_and_says_when_it_cannot_be_used(tmp_path: Path, home: Home) -> None:
    home.ledger.append(decision(home, "a"))
    assert stat.S_IMODE((home.root / "ledger.db").stat().st_mode) == 0o600
    with pytest.raises(LineageError, match="cannot be used"):
        Ledger("no-such-database")
    (tmp_path / "broken.db").write_text("this is no database, but long enough to look like one")
    with pytest.raises(LineageError, match=r"broken\.db cannot be used"):
        Ledger(f"sqlite:///{tmp_path / 'broken.db'}").entries()
    with pytest.raises(LineageError, match=r"no .*absent.*`make run`"):
        Ledger(f"sqlite:///{tmp_path / 'absent' / 'ledger.db'}").entries()
