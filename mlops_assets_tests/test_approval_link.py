"""A personal link decides once, in one name, on one release; nothing else decides anything."""

import base64
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import requests

from mlops_assets.approval_requests import Standing, utc_now
from mlops_assets.approvers import read_approvers
from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home
from mlops_assets.ledger import APPROVED, PROMOTED, REJECTED, REQUESTED
from mlops_assets.promotion import registry
from mlops_assets.promotion.approval_link import Grant, make_token
from mlops_assets.promotion.page_key import page_key
from mlops_assets.release_check import find_void, verify_release
from mlops_assets.signing import new_key, public_key
from mlops_assets_tests.approval_pages import RunningPage, ask, running_page, token_for
from mlops_assets_tests.releases import enlist, stranger


@pytest.fixture(autouse=True)
def _no_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow has tests of its own; here the aliases have nobody to be shown to."""
    monkeypatch.setattr(registry, "reconcile", lambda home, name: {})


@pytest.fixture
def page(home: Home) -> Iterator[RunningPage]:
    with running_page(home) as page:
        yield page


def outcomes(home: Home) -> list[str]:
    return [row.decision.outcome for row in home.ledger.entries()]


def test_a_personal_link_approves_once(home: Home, page: RunningPage) -> None:
    enlist(home, "ada")
    asked = ask(home)
    token = token_for(home, asked, "ada")
    first = page.decide(asked.request.id, token, reason="better on every slice")
    assert first.status_code == 200
    assert "is now the champion" in first.text
    assert outcomes(home) == [REQUESTED, APPROVED, PROMOTED]
    row = home.ledger.entries()[1]
    said = row.decision.evidence["statement"]
    assert (said["name"], said["reason"]) == ("ada", "better on every slice")
    granted = Grant(
        asked.request.id, said["bundle"], "ada", asked.request.terms.expires.isoformat()
    )
    assert said["via"] == granted.id
    assert token not in row.decision.evidence.__repr__(), "the ledger is no place for a link"
    champion = home.ledger.champion()
    assert champion is not None
    assert verify_release(home, champion) == ("ada",)
    second = page.decide(asked.request.id, token)
    assert second.status_code == 409
    assert "this link was used at" in second.text
    assert outcomes(home) == [REQUESTED, APPROVED, PROMOTED]


def test_a_link_that_approved_cannot_reject_as_well(home: Home, page: RunningPage) -> None:
    enlist(home, "ada")
    asked = ask(home, required_approvals=2)
    token = token_for(home, asked, "ada")
    assert "waits for 1 more" in page.decide(asked.request.id, token).text
    assert "works once" in page.decide(asked.request.id, token, "reject").text
    assert outcomes(home) == [REQUESTED, APPROVED]


def test_of_clicks_at_the_same_moment_one_counts(home: Home, page: RunningPage) -> None:
    enlist(home, "ada")
    asked = ask(home, required_approvals=2)
    token = token_for(home, asked, "ada")
    with ThreadPoolExecutor(4) as clicks:
        found = clicks.map(
            lambda choice: page.decide(asked.request.id, token, choice, f"click {choice}"),
            ("approve", "reject", "approve", "reject"),
        )
    assert sorted(answer.status_code for answer in found) == [200, 409, 409, 409]
    assert len(outcomes(home)) == 2


def test_a_personal_link_rejects(home: Home, page: RunningPage) -> None:
    enlist(home, "ada")
    asked = ask(home)
    answer = page.decide(asked.request.id, token_for(home, asked, "ada"), "reject", "too slow")
    assert answer.status_code == 200
    assert outcomes(home) == [REQUESTED, REJECTED]
    assert "too slow" in page.get(f"requests/{asked.request.id}").text


def altered(home: Home, asked: Standing) -> str:
    """Ada's link, made out to Bob without the key."""
    content, _, signature = token_for(home, asked, "ada").partition(".")
    grant = json.loads(base64.urlsafe_b64decode(content + "=="))
    forged = json.dumps(grant | {"approver": "bob"}, sort_keys=True, separators=(",", ":"))
    return f"{base64.urlsafe_b64encode(forged.encode()).rstrip(b'=').decode()}.{signature}"


def foreign(home: Home, asked: Standing) -> str:
    """A whole link, signed by an approver's own key."""
    decided = asked.request.entry.decision
    expires = asked.request.terms.expires.isoformat()
    grant = Grant(asked.request.id, decided.bundle.digest, "ada", expires)
    return make_token(grant, stranger(home, "ada").key)


def signed_otherwise(**changes: str) -> Callable[[Home, Standing], str]:
    return lambda home, asked: token_for(home, asked, "ada", **changes)


def of_another_request(home: Home, asked: Standing) -> str:
    return token_for(home, ask(home, 2, seed="b"), "ada")


@pytest.mark.parametrize(
    ("make", "status", "said"),
    [
        (altered, 403, "altered"),
        (foreign, 403, "altered"),
        (lambda *_: "", 403, "only shows the evidence"),
        (lambda *_: "x", 403, "altered"),
        (lambda *_: "a.b.c", 403, "altered"),
        (lambda *_: "é.é", 403, "altered"),
        (lambda *_: "A" * 9_000, 403, "altered"),
        (lambda home, asked: token_for(home, asked, "ada") + "=", 403, "altered"),
        (lambda home, asked: token_for(home, asked, "ada")[:-1], 403, "altered"),
        (of_another_request, 403, "another request"),
        (signed_otherwise(bundle="0" * 64), 403, "another release"),
        (signed_otherwise(expires="2020-01-01T00:00:00+00:00"), 403, "expired at"),
        (signed_otherwise(expires="soon"), 403, "altered"),
        (signed_otherwise(approver="mallory"), 409, "not on the list of approvers"),
    ],
)
def test_any_other_link_decides_nothing(
    home: Home, page: RunningPage, make: Callable[[Home, Standing], str], status: int, said: str
) -> None:
    enlist(home, "ada")
    enlist(home, "bob")
    asked = ask(home)
    answer = page.decide(asked.request.id, make(home, asked))
    assert (answer.status_code, said in answer.text) == (status, True), answer.text
    assert set(outcomes(home)) == {REQUESTED}


def test_an_expired_request_cannot_be_approved_by_its_link(home: Home, page: RunningPage) -> None:
    enlist(home, "ada")
    asked = ask(home, now=utc_now() - timedelta(hours=2), request_hours=1)
    answer = page.decide(asked.request.id, token_for(home, asked, "ada"))
    assert answer.status_code == 403
    assert "This link expired at" in answer.text
    assert outcomes(home) == [REQUESTED]


def test_a_link_of_somebody_who_left_since(home: Home, page: RunningPage) -> None:
    enlist(home, "ada", until=utc_now() - timedelta(minutes=1))
    asked = ask(home)
    answer = page.decide(asked.request.id, token_for(home, asked, "ada"))
    assert "is an approver until" in answer.text
    assert outcomes(home) == [REQUESTED]


def test_looking_decides_nothing(home: Home, page: RunningPage) -> None:
    """As chat programs and mail filters do, which open every link they see."""
    enlist(home, "ada")
    asked = ask(home)
    where, token = f"requests/{asked.request.id}", token_for(home, asked, "ada")
    choice = {"token": token, "decision": "approve", "reason": "prefetched"}
    for method in ("GET", "HEAD"):
        url = f"{page.url}/{where}"
        assert requests.request(method, url, params=choice, timeout=60).status_code == 200
    for method in ("PUT", "DELETE", "PATCH"):
        url = f"{page.url}/{where}"
        assert requests.request(method, url, data=choice, timeout=60).status_code == 405
    assert outcomes(home) == [REQUESTED]


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"headers": {"Sec-Fetch-Site": "cross-site"}}, 403),
        ({"headers": {"Sec-Fetch-Site": "same-site"}}, 403),
        ({"headers": {"Content-Type": "text/plain"}}, 415),
        ({"headers": {"Host": "evil.example"}}, 400),
        ({"data": "x" * 20_000}, 413),
        ({"data": iter([b"reason=" + b"x" * 9_000, b"y" * 9_000])}, 413),
        ({"data": "token=a&token=b&decision=approve&reason=abc"}, 400),
        ({"data": "nothing"}, 400),
        ({"data": b"reason=%ff"}, 400),
        ({"change": {"decision": "promote"}}, 400),
        ({"change": {"decision": ""}}, 400),
        ({"change": {"reason": "   "}}, 400),
        ({"change": {"reason": "x" * 2_001}}, 400),
    ],
)
def test_any_other_form_decides_nothing(
    home: Home, page: RunningPage, options: dict[str, Any], status: int
) -> None:
    enlist(home, "ada")
    asked = ask(home)
    whole = {"token": token_for(home, asked, "ada"), "decision": "approve", "reason": "fine"}
    data = options.get("data", whole | options.get("change", {}))
    kind = {"Content-Type": "application/x-www-form-urlencoded"} | options.get("headers", {})
    url = f"{page.url}/requests/{asked.request.id}"
    answer = requests.post(url, data=data, headers=kind, timeout=60)
    assert answer.status_code == status, answer.text
    assert outcomes(home) == [REQUESTED]


def test_a_changed_adapter_is_not_approved(home: Home, page: RunningPage) -> None:
    enlist(home, "ada")
    asked = ask(home)
    adapter = home.store.path(asked.request.entry.decision.bundle.adapter)
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(bytes([weights.read_bytes()[0] ^ 1]) + weights.read_bytes()[1:])
    answer = page.decide(asked.request.id, token_for(home, asked, "ada"))
    assert answer.status_code == 409
    assert "void" in answer.text
    assert outcomes(home) == [REQUESTED]


def test_an_answer_that_stands_is_not_called_nothing(
    home: Home, page: RunningPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow is down: the promotion is on the ledger, the aliases follow later."""
    from mlops_assets.artifacts import LineageError

    def down(*_: object) -> None:
        raise LineageError("MLflow cannot be reached.", "Start it.")

    monkeypatch.setattr(registry, "reconcile", down)
    enlist(home, "ada")
    asked = ask(home)
    answer = page.decide(asked.request.id, token_for(home, asked, "ada"))
    assert answer.status_code == 409
    assert "Taken, but not complete" in answer.text
    assert "Nothing is lost" in answer.text
    assert outcomes(home) == [REQUESTED, APPROVED, PROMOTED]


def test_the_pages_key_is_private_and_believed(home: Home) -> None:
    key = page_key(home)
    (file,) = home.root.glob("*key*.pem")
    assert file.stat().st_mode & 0o777 == 0o600
    assert read_approvers(home).link_key == public_key(key) == public_key(page_key(home))


def test_the_pages_key_is_not_replaced_without_a_word(
    home: Home, page: RunningPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the release that was approved by the former key's link would be void."""
    enlist(home, "ada")
    asked = ask(home)
    assert page.decide(asked.request.id, token_for(home, asked, "ada")).status_code == 200
    believed = read_approvers(home).link_key
    monkeypatch.setenv("MLOPS_LINK_KEY", str(home.root / "other.pem"))
    new_key(home.root / "other.pem")
    with pytest.raises(LineageError, match="names another key"):
        page_key(home)
    assert read_approvers(home).link_key == believed
    champion = home.ledger.champion()
    assert champion is not None
    assert find_void(home, champion) is None


def test_the_page_does_not_sign_with_an_approvers_key(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    enlist(home, "ada")
    monkeypatch.setenv("MLOPS_LINK_KEY", str(home.root / "keys/ada.pem"))
    with pytest.raises(LineageError, match="the link_key is the key of an approver"):
        page_key(home)
