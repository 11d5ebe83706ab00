"""One changed byte, on disk or on the ledger, and nothing of it is approved any more."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from mlops_assets.approvers import approvers_file
from mlops_assets.artifacts import Artifact, LineageError
from mlops_assets.home import Home
from mlops_assets.ledger import REJECTED, Decision, LedgerEntry
from mlops_assets.promotion import approval, registry
from mlops_assets.promotion.approval import approve, reject, settle
from mlops_assets.promotion.audit import audit
from mlops_assets.release_check import find_void, verify_release
from mlops_assets.verdicts import FAIL
from mlops_assets_tests.releases import MODEL, NOON, enlist, make_bundle, make_gate, request


@pytest.fixture(autouse=True)
def _no_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "reconcile", lambda home, name: {})


def release(home: Home) -> LedgerEntry:
    """A version that ada and bob approved."""
    request(home, required_approvals=2)
    for name in ("ada", "bob"):
        person = enlist(home, name)
        approve(home, 1, name, f"{name} has read the report", person.key, now=NOON)
    champion = home.ledger.champion(MODEL)
    assert champion is not None
    return champion


def place(home: Home, artifact: Artifact | str, file: str) -> Path:
    assert isinstance(artifact, Artifact)
    return home.store.root / artifact.kind / artifact.key / file


def flip(path: Path) -> None:
    """One bit of the file's last byte."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


FILES = [
    ("adapter", "adapter_model.safetensors"),
    ("base", "config.json"),
    ("base", "chat_template.jinja"),
    ("base", "tokenizer.json"),
    ("prompt", "system.txt"),
]


@pytest.mark.parametrize(("part", "file"), FILES)
def test_one_bit_makes_the_approval_void(home: Home, part: str, file: str) -> None:
    champion = release(home)
    assert verify_release(home, champion) == ("ada", "bob")
    flip(place(home, getattr(champion.decision.bundle, part), file))
    with pytest.raises(LineageError, match=rf"version 1 is void: .*{file}"):
        verify_release(home, champion)
    assert file in str(find_void(home, champion))


@pytest.mark.parametrize(("part", "file"), FILES)
def test_what_changed_before_the_last_approval_is_not_promoted(
    home: Home, part: str, file: str
) -> None:
    request(home, required_approvals=2)
    ada, bob = enlist(home, "ada"), enlist(home, "bob")
    approve(home, 1, "ada", "fine", ada.key, now=NOON)
    flip(place(home, getattr(make_bundle(home), part), file))
    with pytest.raises(LineageError, match=rf"is void: .*{file}"):
        approve(home, 1, "bob", "fine", bob.key, now=NOON)
    assert home.ledger.champion(MODEL) is None


def test_a_void_release_that_a_crash_left_unpromoted_can_be_rejected(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    request(home)
    ada = enlist(home, "ada")
    with monkeypatch.context() as crash:
        crash.setattr(approval, "settle", lambda *_: None)  # the approval's row was the last write
        approve(home, 1, "ada", "fine", ada.key, now=NOON)
    flip(place(home, make_bundle(home).adapter, "adapter_model.safetensors"))
    assert settle(home, MODEL, NOON) is None
    assert reject(home, 1, "ada", "it was changed", ada.key, now=NOON).promoted is None
    assert home.ledger.champion(MODEL) is None


def test_a_file_that_comes_or_goes_is_a_change_too(home: Home) -> None:
    champion = release(home)
    adapter = champion.decision.bundle.adapter
    added = place(home, adapter, "modeling.py")
    added.write_text("print()")
    assert "modeling.py was added" in str(find_void(home, champion))
    added.unlink()
    assert find_void(home, champion) is None
    place(home, adapter, "adapter_model.safetensors").unlink()
    assert "is missing" in str(find_void(home, champion))


def tamper(home: Home, assignment: str, outcome: str) -> None:
    """Change the first row with this outcome by another hand."""
    with sa.create_engine(f"sqlite:///{home.root / 'ledger.db'}").begin() as connection:
        first = "(SELECT min(entry) FROM decisions WHERE outcome = ?)"
        statement = f"UPDATE decisions SET {assignment} WHERE entry = {first}"  # noqa: S608
        connection.exec_driver_sql(statement, (outcome,))


def rehash(home: Home) -> None:
    """As somebody would who knows how the chain is made: every hash computed anew."""
    engine = sa.create_engine(f"sqlite:///{home.root / 'ledger.db'}")
    for number in range(len(home.ledger.entries())):
        row = home.ledger.entries()[number]
        with engine.begin() as connection:
            hashed = {"hash": row.computed, "entry": row.entry}
            connection.execute(
                sa.text("UPDATE decisions SET hash = :hash WHERE entry = :entry"), hashed
            )
            connection.execute(
                sa.text("UPDATE decisions SET previous = :hash WHERE entry = :entry + 1"), hashed
            )


ONE_LESS = """evidence = replace(evidence, '"required_approvals":2', '"required_approvals":1')"""
TAMPERED = [
    ("reason = 'all tests were green'", "approved", "reason is not what was signed"),
    ("outcome = 'rejected'", "approved", "outcome is not what was signed"),
    ("bundle_digest = 'f'", "approved", "bundle digest is not what was signed"),
    ("bundle = replace(bundle, '32', '64')", "approved", "bundle is not what was signed"),
    ("version = 2", "approved", "version is not what was signed"),
    ("""evidence = replace(evidence, '"ada"', '"eve"')""", "approved", "eve is not on the list"),
    ("evidence = replace(evidence, '12:00:00', '12:00:01')", "approved", "signature is not"),
    ("at = '2027-01-01T00:00:00+00:00'", "approved", "was valid until"),
    ("bundle = replace(bundle, '32', '64')", "promoted", "bundle"),
    ("version = 2", "promoted", "something else than was requested"),
    ("replaces = 1", "promoted", "something else than was requested"),
    (ONE_LESS, "requested", "nobody was asked"),
    ("evidence = replace(evidence, '93.9%', '99.9%')", "requested", "nobody was asked"),
]


@pytest.mark.parametrize(("assignment", "outcome", "why"), TAMPERED)
def test_a_changed_row_is_found_by_its_signature(
    home: Home, assignment: str, outcome: str, why: str
) -> None:
    """Also where whoever changed it has mended the chain."""
    release(home)
    tamper(home, assignment, outcome)
    assert any("changed" in problem for problem in audit(home).problems)
    rehash(home)
    champion = home.ledger.champion(MODEL)
    assert champion is not None
    assert why in str(find_void(home, champion))
    assert any(why in problem for problem in audit(home).problems)


def test_a_promotion_that_nobody_asked_for_is_void(home: Home) -> None:
    bundle = make_bundle(home)
    forged = Decision("key", "promoted", "trust me", MODEL, 1, bundle, {}, 0)
    champion = home.ledger.append(forged)
    assert "nobody was asked about" in str(find_void(home, champion))
    assert any("nobody was asked about" in problem for problem in audit(home).problems)


def test_an_approver_who_is_removed_takes_their_approvals_along(home: Home) -> None:
    champion = release(home)
    listed = approvers_file(home).read_text()
    approvers_file(home).write_text("approvers: []\n")
    assert "0 of 2 approvals" in str(find_void(home, champion))
    approvers_file(home).write_text(listed)
    assert find_void(home, champion) is None


def test_a_promotion_from_before_there_were_approvals_has_its_bytes_verified(home: Home) -> None:
    bundle = make_bundle(home)
    home.ledger.append(Decision("key", "promoted", "better", MODEL, 1, bundle, {}, 0))
    tamper(home, "hash = NULL, previous = NULL", "promoted")
    champion = home.ledger.champion(MODEL)
    assert champion is not None
    assert verify_release(home, champion) == ()
    assert (audit(home).problems, audit(home).unsigned) == ((), (champion.entry,))
    flip(place(home, bundle.adapter, "adapter_model.safetensors"))
    assert "safetensors" in str(find_void(home, champion))


def test_taking_the_hashes_away_does_not_make_a_ledger_old(home: Home) -> None:
    request(home)
    home.ledger.append(Decision("key", "promoted", "trust me", MODEL, 1, make_bundle(home), {}, 0))
    for outcome in ("requested", "promoted"):
        tamper(home, "hash = NULL, previous = NULL", outcome)
    champion = home.ledger.champion(MODEL)
    assert champion is not None
    assert "nobody was asked about" in str(find_void(home, champion))
    assert "has lost it" in audit(home).problems[0]


@pytest.mark.parametrize(("what", "file"), [("gate", "gate.json"), ("report", "report.html")])
def test_nobody_approves_on_evidence_that_was_changed(home: Home, what: str, file: str) -> None:
    asked, ada = request(home), enlist(home, "ada")
    flip(place(home, getattr(asked.request, what), file))
    with pytest.raises(LineageError, match=rf"is void: .*{file}"):
        approve(home, 1, "ada", "fine", ada.key, now=NOON)
    assert home.ledger.entries() == [asked.request.entry]
    assert reject(home, 1, "ada", "who changed this?", ada.key, now=NOON).standing.state == REJECTED


def another_bundle(home: Home, asked: Decision) -> Decision:
    return replace(asked, bundle=make_bundle(home, "b"))


def a_gate_that_failed(home: Home, asked: Decision) -> Decision:
    gate = make_gate(home, asked.bundle, verdict=FAIL).artifact
    named = {"kind": gate.kind, "key": gate.key, "digest": gate.digest}
    return replace(asked, evidence={**asked.evidence, "gate": named})


def other_criteria(home: Home, asked: Decision) -> Decision:
    return replace(asked, evidence={**asked.evidence, "criteria": []})


@pytest.mark.parametrize(
    ("forge", "why"),
    [
        (another_bundle, "did not pass it"),
        (a_gate_that_failed, "did not pass it"),
        (other_criteria, "shows other criteria"),
    ],
)
def test_a_request_that_was_written_past_the_gate_is_not_approved(
    home: Home, forge: Callable[[Home, Decision], Decision], why: str
) -> None:
    ada, asked = enlist(home, "ada"), request(home).request.entry.decision
    home.ledger.append(replace(forge(home, asked), key="forged"), NOON)
    with pytest.raises(LineageError, match=why):
        approve(home, 1, "ada", "fine", ada.key, now=NOON)
    assert home.ledger.champion(MODEL) is None
