"""Each way in which an approval is refused, with the reason, and with nothing written."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from mlops_assets.approval_requests import latest_request
from mlops_assets.approvers import approvers_file
from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home
from mlops_assets.promotion import registry
from mlops_assets.promotion.approval import approve, record, reject
from mlops_assets.statements import CLOCK_SKEW, LIFETIME, SignedStatement, signed
from mlops_assets_tests.releases import MODEL, NOON, Person, enlist, request, stranger

HOUR = timedelta(hours=1)
LATER = NOON + HOUR


@pytest.fixture(autouse=True)
def _no_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "reconcile", lambda home, name: {})


def statement(home: Home, person: Person, **changes: Any) -> SignedStatement:
    """An approval of version 1 by this person, with ``changes`` made before it is signed."""
    found = latest_request(home.ledger.entries(), 1, MODEL)
    said = found.statement("approve", person.name, "looks right", LATER)
    return signed(replace(said, **changes), person.key)


def another_digest(home: Home, ada: Person) -> SignedStatement:
    return statement(home, ada, bundle="f" * 64)


def another_request(home: Home, ada: Person) -> SignedStatement:
    return statement(home, ada, request="f" * 64)


def of_a_superseded_request(home: Home, ada: Person) -> SignedStatement:
    earlier = statement(home, ada)
    request(home, request_hours=5, now=LATER)
    return earlier


def another_version(home: Home, ada: Person) -> SignedStatement:
    request(home, 2, "b")
    return statement(home, ada, version=2)


def too_old(home: Home, ada: Person) -> SignedStatement:
    return statement(home, ada, at=(LATER - LIFETIME - HOUR / 60).isoformat())


def too_early(home: Home, ada: Person) -> SignedStatement:
    return statement(home, ada, at=(LATER + CLOCK_SKEW + HOUR / 60).isoformat())


def no_time(home: Home, ada: Person) -> SignedStatement:
    return statement(home, ada, at="2026-11-21T13:00:00")


def replayed(home: Home, ada: Person) -> SignedStatement:
    answer = statement(home, ada)
    request(home, required_approvals=2)
    answer = statement(home, ada)
    record(home, answer, LATER)
    return answer


def twice(home: Home, ada: Person) -> SignedStatement:
    replayed(home, ada)
    return statement(home, ada, reason="once more")


def altered(**changes: Any) -> Callable[[Home, Person], SignedStatement]:
    def make(home: Home, ada: Person) -> SignedStatement:
        enlist(home, "bob")
        answer = statement(home, ada)
        return replace(answer, statement=replace(answer.statement, **changes))

    return make


def by_another_key(home: Home, ada: Person) -> SignedStatement:
    return statement(home, replace(stranger(home, "eve"), name="ada"))


def not_base64(home: Home, ada: Person) -> SignedStatement:
    return replace(statement(home, ada), signature="no signature")


def by_a_stranger(home: Home, ada: Person) -> SignedStatement:
    return statement(home, stranger(home, "eve"))


def by_one_who_left(home: Home, ada: Person) -> SignedStatement:
    return statement(home, enlist(home, "dan", until=NOON))


def by_one_removed(home: Home, ada: Person) -> SignedStatement:
    answer = statement(home, ada)
    approvers_file(home).write_text("approvers: []\n")
    return answer


def by_the_author_alone(home: Home, ada: Person) -> SignedStatement:
    request(home, required_approvals=2, author="ada@example.org")
    return statement(home, ada)


def not_for_this_model(home: Home, ada: Person) -> SignedStatement:
    request(home, approvers=["bob"])
    return statement(home, ada)


def by_a_machine(home: Home, ada: Person) -> SignedStatement:
    return statement(home, enlist(home, "robot", automatic=True))


def by_a_second_machine(home: Home, ada: Person) -> SignedStatement:
    request(home, required_approvals=2, risk_class="low", automatic_for=["low"])
    first, second = (enlist(home, name, automatic=True) for name in ("robot", "twin"))
    approve(home, 1, "robot", "fine", first.key, now=LATER)
    return statement(home, second)


def by_the_author_beside_a_machine(home: Home, ada: Person) -> SignedStatement:
    policy = {"required_approvals": 2, "risk_class": "low", "automatic_for": ["low"]}
    request(home, author="ada@example.org", **policy)
    robot = enlist(home, "robot", automatic=True)
    approve(home, 1, "robot", "fine", robot.key, now=LATER)
    return statement(home, ada)


def reason(text: str) -> Callable[[Home, Person], SignedStatement]:
    return lambda home, ada: statement(home, ada, reason=text)


def by_an_unknown_page(home: Home, ada: Person) -> SignedStatement:
    return statement(home, ada, via="g" * 64)


def of_a_rejected_request(home: Home, ada: Person) -> SignedStatement:
    bob = enlist(home, "bob")
    reject(home, 1, "bob", "wrong tone", bob.key, now=LATER)
    return statement(home, ada)


def after_the_champion_changed(home: Home, ada: Person) -> SignedStatement:
    request(home, 2, "b")
    answer = statement(home, ada)
    approve(home, 2, "ada", "this one", ada.key, now=LATER)
    return answer


def of_a_promoted_version(home: Home, ada: Person) -> SignedStatement:
    approve(home, 1, "ada", "fine", ada.key, now=LATER)
    return statement(home, ada, reason="again")


def without_a_reason(home: Home, ada: Person) -> SignedStatement:
    return statement(home, ada, reason="  ")


REFUSED: list[tuple[Callable[[Home, Person], SignedStatement], str]] = [
    (another_digest, "over another digest"),
    (another_request, "answers another request"),
    (of_a_superseded_request, "answers another request"),
    (another_version, "answers another request|over another digest"),
    (too_old, "was valid until"),
    (too_early, "not valid before"),
    (no_time, "no time in UTC"),
    (replayed, "replayed"),
    (twice, "has approved this request already"),
    (altered(reason="anything"), "signature is not"),
    (altered(name="bob"), "signature is not that of bob"),
    (altered(at=NOON.isoformat()), "signature is not"),
    (by_another_key, "signature is not that of ada"),
    (not_base64, "signature is not"),
    (by_a_stranger, "eve is not on the list"),
    (by_one_who_left, "until 2026-11-21T12:00:00"),
    (by_one_removed, "ada is not on the list"),
    (by_the_author_alone, "somebody else has to approve first"),
    (not_for_this_model, "may not approve this model, only bob"),
    (by_a_machine, "needs a person"),
    (by_a_second_machine, "they count once"),
    (by_the_author_beside_a_machine, "somebody else has to approve first"),
    (reason("clears the screen \x1b[2J"), "control characters"),
    (reason("turns what follows \u202e"), "control characters"),
    (by_an_unknown_page, "no link_key"),
    (of_a_rejected_request, "bob rejected it"),
    (after_the_champion_changed, "champion changed meanwhile"),
    (of_a_promoted_version, "promoted at .* already"),
    (without_a_reason, "gives no reason"),
    (altered(action="applaud"), "neither approve nor reject"),
]


@pytest.mark.parametrize(("make", "why"), REFUSED)
def test_refused_with_the_reason(
    home: Home, make: Callable[[Home, Person], SignedStatement], why: str
) -> None:
    ada = enlist(home, "ada", email="ada@example.org")
    request(home)
    answer = make(home, ada)
    before = home.ledger.entries()
    with pytest.raises(LineageError, match=f"refused: .*({why})"):
        record(home, answer, LATER)
    assert home.ledger.entries() == before


def test_what_a_terminal_cannot_decode_is_no_reason(home: Home) -> None:
    ada, asked = enlist(home, "ada"), request(home)
    with pytest.raises(LineageError, match="control characters"):
        approve(home, 1, "ada", "fine \udcff", ada.key, now=LATER)
    assert home.ledger.entries() == [asked.request.entry]
    assert approve(home, 1, "ada", "line one\r\nsmørrebrød 👍🏽", ada.key, now=LATER).promoted
