"""From a request to a champion: what an approval takes."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from mlops_assets.approval_requests import OPEN, latest_request
from mlops_assets.approvers import Approver, Approvers, approvers_file, read_approvers, render
from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home
from mlops_assets.ledger import APPROVED, PROMOTED, REJECTED, REQUESTED, LedgerEntry
from mlops_assets.promotion import approval, registry
from mlops_assets.promotion.approval import approve, reject, settle
from mlops_assets.release_check import verify_release
from mlops_assets.signing import public_key
from mlops_assets.statements import REJECT, signed
from mlops_assets_tests.releases import MODEL, NOON, enlist, request, stranger

HOUR = timedelta(hours=1)
LATER = NOON + HOUR


@pytest.fixture(autouse=True)
def _no_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow has tests of its own; here the aliases have nobody to be shown to."""
    monkeypatch.setattr(registry, "reconcile", lambda home, name: {})


def outcomes(home: Home) -> list[str]:
    return [row.decision.outcome for row in home.ledger.entries()]


def test_an_approval_promotes(home: Home) -> None:
    asked, ada = request(home), enlist(home, "ada")
    answer = approve(home, 1, "ada", "better on every slice", ada.key, now=LATER)
    assert outcomes(home) == [REQUESTED, APPROVED, PROMOTED]
    champion = home.ledger.champion(MODEL)
    assert champion == answer.promoted
    assert champion is not None
    assert champion.decision.bundle == asked.request.entry.decision.bundle
    assert "approved by ada" in champion.decision.reason
    row = home.ledger.entries()[1]
    said = row.decision.evidence["statement"]
    assert (said["name"], said["reason"]) == ("ada", "better on every slice")
    assert said["bundle"] == champion.decision.bundle.digest
    assert (said["at"], row.at) == (LATER.isoformat(), LATER.isoformat())


def test_asking_again_finds_the_open_request(home: Home) -> None:
    first, again = request(home), request(home, now=LATER)
    assert (first.request.id, again.state) == (again.request.id, OPEN)
    assert outcomes(home) == [REQUESTED]


def test_an_expired_request_is_asked_anew_and_a_rejected_one_is_not(home: Home) -> None:
    first = request(home, request_hours=1)
    anew = request(home, request_hours=1, now=LATER)
    assert anew.request.id != first.request.id
    assert anew.state == OPEN
    ada = enlist(home, "ada")
    closed = reject(home, 1, "ada", "wrong tone", ada.key, now=LATER).standing
    assert (closed.state, "wrong tone" in closed.reason) == (REJECTED, True)
    assert request(home, request_hours=1, now=LATER).state == REJECTED
    assert outcomes(home) == [REQUESTED, REQUESTED, REJECTED]


def test_a_request_survives_whoever_opened_it(home: Home) -> None:
    request(home)
    reopened = Home(home.root)  # another process sees what the ledger holds, and nothing else
    ada = enlist(reopened, "ada")
    assert approve(reopened, 1, "ada", "fine", ada.key, now=LATER).promoted


def test_two_people_are_two_people(home: Home) -> None:
    request(home, required_approvals=2)
    ada, bob = enlist(home, "ada"), enlist(home, "bob")
    first = approve(home, 1, "ada", "fine", ada.key, now=LATER)
    assert (first.promoted, first.standing.missing) == (None, 1)
    assert approve(home, 1, "bob", "fine", bob.key, now=LATER).promoted
    assert outcomes(home) == [REQUESTED, APPROVED, APPROVED, PROMOTED]


def test_the_author_counts_beside_somebody_else(home: Home) -> None:
    request(home, required_approvals=2, author="ada@example.org")
    ada, bob = enlist(home, "ada", email="ada@example.org"), enlist(home, "bob")
    assert not approve(home, 1, "bob", "fine", bob.key, now=LATER).promoted
    assert approve(home, 1, "ada", "fine", ada.key, now=LATER).promoted


def test_where_one_approval_is_enough_the_author_may_give_it(home: Home) -> None:
    request(home, author="ada@example.org")
    ada = enlist(home, "ada", email="ada@example.org")
    assert approve(home, 1, "ada", "fine", ada.key, now=LATER).promoted


@pytest.mark.parametrize("hours", [1, 24])
def test_an_expired_request_can_be_answered_no_more(home: Home, hours: int) -> None:
    request(home, request_hours=hours)
    ada, end = enlist(home, "ada"), NOON + hours * HOUR
    with pytest.raises(LineageError, match="the request expired"):
        approve(home, 1, "ada", "late", ada.key, now=end)
    assert approve(home, 1, "ada", "in time", ada.key, now=end - HOUR / 60).promoted


def test_a_version_that_nobody_asked_about(home: Home) -> None:
    ada = enlist(home, "ada")
    with pytest.raises(LineageError, match="No approval was requested for version 7"):
        approve(home, 7, "ada", "fine", ada.key, now=LATER)


def test_nobody_guesses_which_model_is_meant(home: Home) -> None:
    asked, ada = request(home).request.entry.decision, enlist(home, "ada")
    home.ledger.append(replace(asked, key="another", model="another"), NOON)
    with pytest.raises(LineageError, match="version 1 of another, support-tickets"):
        approve(home, 1, "ada", "fine", ada.key, now=LATER)
    assert approve(home, 1, "ada", "fine", ada.key, model=MODEL, now=LATER).promoted


def test_an_approver_who_is_removed_before_the_last_approval(home: Home) -> None:
    """Earlier approvals are verified again when the last one comes, against the list of now."""
    request(home, required_approvals=2)
    ada, bob = enlist(home, "ada"), enlist(home, "bob")
    approve(home, 1, "ada", "fine", ada.key, now=LATER)
    approvers_file(home).write_text(
        render(Approvers(approvers=(Approver(name="bob", public_key=public_key(bob.key)),)))
    )
    answer = approve(home, 1, "bob", "fine", bob.key, now=LATER)
    assert (answer.promoted, answer.standing.missing) == (None, 1)
    assert "ada is not on the list" in answer.standing.invalid[0]


def test_what_a_crash_left_undone_is_completed(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    request(home)
    ada = enlist(home, "ada")
    with monkeypatch.context() as patched:
        patched.setattr("mlops_assets.promotion.approval.settle", lambda *_: None)
        approve(home, 1, "ada", "fine", ada.key, now=LATER)
    assert outcomes(home) == [REQUESTED, APPROVED]
    assert settle(home, MODEL, LATER)
    assert settle(home, MODEL, LATER) is None
    assert outcomes(home) == [REQUESTED, APPROVED, PROMOTED]


def test_a_rejection_while_the_bytes_are_verified_is_heeded(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large base model takes minutes to hash; nothing that is said meanwhile is passed over."""
    request(home)
    ada, bob = enlist(home, "ada"), enlist(home, "bob")
    found = latest_request(home.ledger.entries(), 1, MODEL)
    no = signed(found.statement(REJECT, "bob", "wrong tone", LATER), bob.key)

    def verify(home: Home, entry: LedgerEntry) -> tuple[str, ...]:
        if outcomes(home) == [REQUESTED, APPROVED]:
            home.ledger.append(approval._row(found, no), LATER)
        return verify_release(home, entry)

    monkeypatch.setattr(approval, "verify_release", verify)
    answer = approve(home, 1, "ada", "fine", ada.key, now=LATER)
    assert (answer.promoted, answer.standing.state) == (None, REJECTED)
    assert outcomes(home) == [REQUESTED, APPROVED, REJECTED]


def test_a_link_signs_with_its_pages_key(home: Home) -> None:
    request(home)
    ada, page = enlist(home, "ada"), stranger(home, "page")
    listed = read_approvers(home).model_copy(update={"link_key": public_key(page.key)})
    approvers_file(home).write_text(render(listed))
    with pytest.raises(LineageError, match="not that of the approval page"):
        approve(home, 1, "ada", "fine", ada.key, via="grant", now=LATER)
    with pytest.raises(LineageError, match="not that of ada"):
        approve(home, 1, "ada", "fine", page.key, now=LATER)
    assert approve(home, 1, "ada", "fine", page.key, via="grant", now=LATER).promoted


def test_a_request_that_was_shown_is_the_one_that_is_answered(home: Home) -> None:
    shown = request(home).request.id
    request(home, required_approvals=2)
    ada = enlist(home, "ada")
    with pytest.raises(LineageError, match="another request has taken the place"):
        approve(home, 1, "ada", "fine", ada.key, request=shown, now=LATER)


def test_times_are_those_of_the_ledger(home: Home) -> None:
    assert datetime.fromisoformat(request(home).request.entry.at) == NOON
