"""A rollback by hand: signed, on the ledger, verified again; and what forged ones are worth."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from typer.testing import CliRunner

from mlops_assets.approval_requests import utc_now
from mlops_assets.approvers import approvers_file
from mlops_assets.artifacts import LineageError
from mlops_assets.cli import app
from mlops_assets.home import Home
from mlops_assets.ledger import ROLLED_BACK, Decision, LedgerEntry
from mlops_assets.promotion.audit import audit
from mlops_assets.promotion.request import find_undone
from mlops_assets.reevaluation import Outdated, find_outdated
from mlops_assets.ref_json import dump_ref
from mlops_assets.refs import RegisteredModelRef
from mlops_assets.release_check import find_void, verify_release
from mlops_assets.release_state import read_release
from mlops_assets.rollback_statement import statement
from mlops_assets.serving.rollout.release_steps import release_first
from mlops_assets.serving.rollout.release_steps import roll_back as rollback_row
from mlops_assets.serving.rollout.rollback import RolledBack, roll_back
from mlops_assets.statements import signed
from mlops_assets_tests.releases import MODEL, enlist, make_bundle, make_gate, request, stranger
from mlops_assets_tests.served_homes import promote


def back(home: Home, name: str = "ada", reason: str = "users complain") -> RolledBack:
    return roll_back(home, name, reason, stranger(home, name).key)


def champion(home: Home) -> LedgerEntry:
    found = home.ledger.champion(MODEL)
    assert found is not None
    return found


@pytest.fixture
def two(home: Home) -> Home:
    """Version 1 is released, version 2 promoted."""
    promote(home, 1, "a")
    home.ledger.append(release_first(champion(home)))
    promote(home, 2, "b")
    return home


def test_a_candidate_is_taken_back_and_what_served_before_is_champion(two: Home) -> None:
    done = back(two)
    assert (done.undone, done.entry.decision.version) == (2, 1)
    assert champion(two) == done.entry
    assert verify_release(two, done.entry) == ("ada",), "by the approval of its promotion"
    state = read_release(two.ledger.entries(), MODEL)
    assert (state.stage, state.candidate) == (ROLLED_BACK, None)
    assert audit(two).problems == ()
    assert audit(two).champions == {MODEL: 1}


def test_there_is_nothing_behind_the_first(two: Home) -> None:
    back(two)
    with pytest.raises(LineageError, match=r"nothing to roll version 1 .* back to"):
        back(two)


def test_nothing_was_promoted_yet(home: Home) -> None:
    with pytest.raises(LineageError, match="Nothing was promoted yet"):
        back(home)


def test_the_next_candidate_replaces_the_restored_one(two: Home) -> None:
    back(two)
    promoted = promote(two, 3, "c")
    assert promoted.decision.replaces == promoted.entry - 3  # its request and approval between
    assert audit(two).problems == ()


def not_on_the_list(home: Home) -> None:
    stranger(home, "eve")
    back(home, "eve")


def without_a_reason(home: Home) -> None:
    back(home, reason=" ")


def with_another_key(home: Home) -> None:
    roll_back(home, "ada", "why", stranger(home, "eve").key)


def what_was_changed(home: Home) -> None:
    adapter = make_bundle(home, "a").adapter
    file = home.store.root / adapter.kind / adapter.key / "adapter_model.safetensors"
    file.write_bytes(b"x" + file.read_bytes()[1:])
    back(home)


@pytest.mark.parametrize(
    ("attempt", "why"),
    [
        (not_on_the_list, "eve is not on the list"),
        (without_a_reason, "it gives no reason"),
        (with_another_key, "not that of ada"),
        (what_was_changed, "version 1 is void, .*adapter_model"),
    ],
)
def test_a_rollback_is_refused_and_nothing_written(
    two: Home, attempt: Callable[[Home], None], why: str
) -> None:
    rows = len(two.ledger.entries())
    with pytest.raises(LineageError, match=why):
        attempt(two)
    assert len(two.ledger.entries()) == rows


def test_whoever_comes_second_is_told(two: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway took it back while somebody typed."""
    entries = two.ledger.entries()
    automatic = rollback_row(read_release(entries, MODEL), "errors", {"verdict": {}})
    with monkeypatch.context() as earlier:
        earlier.setattr("mlops_assets.ledger.Ledger.entries", lambda _: list(entries))
        earlier.setattr(
            "mlops_assets.serving.rollout.rollback.release_steps.roll_back",
            lambda *args: (earlier.undo(), two.ledger.append(automatic), rollback_row(*args))[-1],
        )
        with pytest.raises(LineageError, match=r"restored already.*errors"):
            back(two)
    assert [row.decision.outcome for row in two.ledger.entries()].count(ROLLED_BACK) == 1


def forged(home: Home, **changes: Any) -> LedgerEntry:
    """A rollback that ada signed, and somebody changed before it was written."""
    release = read_release(home.ledger.entries(), MODEL)
    answer = signed(statement(release, "ada", "why", utc_now()), enlist(home, "ada").key)
    decision = rollback_row(release, "why", answer.as_json())
    return home.ledger.append(replace(decision, **changes))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"reason": "another"}, "something else than was signed"),
        ({"version": 7}, "something else than was signed"),
        ({"evidence": {"promotion": 3, "signature": "x"}}, "cannot be read"),
        ({"replaces": None}, "undoes entry None"),
    ],
)
def test_a_forged_rollback_is_void(two: Home, changes: dict[str, Any], why: str) -> None:
    row = forged(two, **changes)
    assert why in str(find_void(two, row))
    assert any(why in problem for problem in audit(two).problems)


@pytest.mark.parametrize("seed", ["b", "c"], ids=["approved only", "unknown"])
def test_a_rollback_to_what_never_was_released_is_void(two: Home, seed: str) -> None:
    bundle, undone = make_bundle(two, seed), champion(two).entry
    row = two.ledger.append(Decision("forged", ROLLED_BACK, "x", MODEL, 9, bundle, {}, undone))
    assert "restores what was not in force before" in str(find_void(two, row))


def test_who_is_taken_off_the_list_restores_nothing_any_more(two: Home) -> None:
    done = back(two)
    approvers_file(two).write_text("approvers: []\n")
    assert "ada is not on the list" in str(find_void(two, done.entry))


def test_a_stale_signature_is_void(two: Home) -> None:
    release = read_release(two.ledger.entries(), MODEL)
    before = utc_now() - timedelta(hours=1)
    answer = signed(statement(release, "ada", "why", before), enlist(two, "ada").key)
    row = two.ledger.append(rollback_row(release, "why", answer.as_json()))
    assert "it was valid until" in str(find_void(two, row))


def test_no_machine_approves_what_was_rolled_back_on_the_same_evidence(two: Home) -> None:
    digest = make_bundle(two, "a").digest
    judged = make_gate(two, make_bundle(two, "b"), digest)
    registered = RegisteredModelRef(MODEL, 2, judged.bundle, judged.report)
    assert find_undone(two, registered, judged) is None
    done = back(two)
    assert find_undone(two, registered, judged) == done.entry
    anew = make_gate(two, make_bundle(two, "b"), "another champion")
    assert find_undone(two, registered, anew) is None


def test_people_are_asked_again_and_told_of_the_rollback(two: Home) -> None:
    back(two, reason="wrong tone")
    again = request(two, 2, "b", now=utc_now())
    assert again.state == "open"
    assert "was rolled back since" in again.request.entry.decision.reason
    assert "wrong tone" in again.request.entry.decision.reason


def test_who_was_judged_against_the_candidate_meets_the_restored_one(two: Home) -> None:
    from mlops_assets.evaluation.gate import record_verdict
    from mlops_assets.verdicts import read_gate

    judged = make_gate(two, make_bundle(two, "c"), make_bundle(two, "b").digest)
    record_verdict(two.ledger, MODEL, judged, read_gate(two.store, judged))
    two.write_ref("gate_verdict", "a-run", dump_ref(judged))
    assert isinstance(find_outdated(two), str)
    done = back(two)
    found = find_outdated(two)
    assert isinstance(found, Outdated)
    assert found.champion == done.entry


def test_the_command(two: Home) -> None:
    done = CliRunner().invoke(app, ["rollback", "--as", "ada", "--reason", "users complain"])
    assert done.exit_code == 0
    assert "version 2 is taken back, version 1 is the champion again" in done.output
    again = CliRunner().invoke(app, ["rollback", "--as", "ada", "--reason", "once more"])
    assert again.exit_code == 1
    assert "There is nothing to roll version 1 of support-tickets back to" in again.output
    assert champion(two).decision.reason == "users complain"
