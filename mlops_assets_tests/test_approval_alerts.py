"""Everybody is told of a request once; an approver gets the link that decides, nobody else does."""

import logging
from collections.abc import Iterator
from datetime import timedelta

import dagster as dg
import pytest

from mlops_assets.approval_requests import utc_now
from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home
from mlops_assets.ledger import APPROVED, PROMOTED, REQUESTED
from mlops_assets.promotion import registry
from mlops_assets.promotion.approval import approve
from mlops_assets.promotion.approval_alerts import send_alerts, webhook_variable
from mlops_assets.promotion.defs import approval_alerts
from mlops_assets.promotion.page_key import page_key
from mlops_assets.signing import public_key
from mlops_assets.verdicts import INCONCLUSIVE
from mlops_assets_tests.approval_pages import (
    RunningPage,
    Webhooks,
    ask,
    running_page,
    running_webhooks,
)
from mlops_assets_tests.releases import enlist
from mlops_assets_tests.test_approval_request import materialize

HOSTILE = "<!channel> <https://evil.example|approve> *now*"


@pytest.fixture(autouse=True)
def _no_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow has tests of its own; here the aliases have nobody to be shown to."""
    monkeypatch.setattr(registry, "reconcile", lambda home, name: {})


@pytest.fixture
def page(home: Home) -> Iterator[RunningPage]:
    with running_page(home) as page:
        yield page


@pytest.fixture
def webhooks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhooks]:
    """One for everybody, one for Ada, one for Bob."""
    with running_webhooks() as found:
        monkeypatch.setenv("MLOPS_ALERT_WEBHOOK", found.at("everybody"))
        for name in ("ada", "bob"):
            monkeypatch.setenv(webhook_variable(name), found.at(name))
        yield found


def test_the_alert_says_what_there_is_to_decide(
    home: Home, page: RunningPage, webhooks: Webhooks
) -> None:
    now = utc_now()
    asked = ask(home, 7, now=now)
    assert len(send_alerts(home, now).sent) == 1
    (text,) = webhooks.texts("everybody")
    for expected in (
        "support-tickets version 7 waits for approval",
        "Gate: PASS, 1 criterion",
        "93.9% of 508 test requests (91.5% to 95.7%)",
        "+93.3 points (+90.7 to +95.2)",
        "PASS floor/exact",
        "grace@\u2060example.com",
        "(in 3 days)",
        f"<{page.url}/requests/{asked.request.id}|",
        "`mlops approve 7 --model support-tickets --as NAME",
    ):
        assert expected in text, (expected, text)
    kinds = [block["type"] for block in webhooks.received["everybody"][0]["blocks"]]
    assert kinds[0] == "header"


def test_only_an_approvers_own_webhook_gets_the_link_that_decides(
    home: Home, page: RunningPage, webhooks: Webhooks, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    enlist(home, "ada")
    enlist(home, "bob")
    asked = ask(home)
    send_alerts(home)
    assert "#token=" not in str(webhooks.received["everybody"])
    tokens = {name: webhooks.token(name) for name in ("ada", "bob")}
    assert tokens["ada"] != tokens["bob"]
    assert "--as ada" in webhooks.texts("ada")[0]
    answer = page.decide(asked.request.id, tokens["ada"], reason="seen")
    assert answer.status_code == 200
    assert [row.decision.outcome for row in home.ledger.entries()] == [
        REQUESTED,
        APPROVED,
        PROMOTED,
    ]
    assert home.ledger.entries()[1].decision.evidence["statement"]["name"] == "ada"
    kept = [path for path in home.root.rglob("*") if path.is_file()]
    for token in tokens.values():
        assert token not in caplog.text
        assert not any(token.encode() in path.read_bytes() for path in kept), "kept on disk"


def test_nobody_is_told_twice(home: Home, page: RunningPage, webhooks: Webhooks) -> None:
    enlist(home, "ada")
    ask(home)
    assert len(send_alerts(home).sent) == 2
    assert str(send_alerts(home)) == "nothing to send"
    assert [len(webhooks.received[name]) for name in ("everybody", "ada")] == [1, 1]
    ask(home, 2, seed="b")
    assert len(send_alerts(home).sent) == 2, "another request is another alert"


def test_what_a_webhook_did_not_take_waits_for_it(
    home: Home, page: RunningPage, webhooks: Webhooks
) -> None:
    enlist(home, "ada")
    asked = ask(home)
    webhooks.status = 503
    down = send_alerts(home)
    assert (len(down.sent), len(down.waiting)) == (0, 2)
    assert "it answered 503" in str(down)
    assert asked.request.id in page.get().text, "the request waits as ever"
    webhooks.status = 200
    assert len(send_alerts(home).sent) == 2
    assert len(webhooks.received["everybody"]) == 1


def test_a_personal_link_waits_for_an_address(home: Home, webhooks: Webhooks) -> None:
    enlist(home, "ada")
    ask(home)
    first = send_alerts(home)
    assert "to everybody" in first.sent[0]
    assert "no address for a personal link yet" in first.waiting[0]
    with running_page(home):
        assert "to ada" in send_alerts(home).sent[0]


def test_a_personal_link_does_not_travel_in_the_clear(
    home: Home, page: RunningPage, webhooks: Webhooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    enlist(home, "ada")
    ask(home)
    monkeypatch.setenv("MLOPS_APPROVER_WEBHOOK_ADA", "http://chat.example.org/ada")
    delivery = send_alerts(home)
    assert "to everybody" in delivery.sent[0]
    assert "to ada (The webhook of ada is not https" in delivery.waiting[0]


def test_an_alert_that_is_sent_again_holds_the_same_link(
    home: Home, page: RunningPage, webhooks: Webhooks
) -> None:
    """As after a crash between the webhook's answer and our note of it."""
    enlist(home, "ada")
    ask(home)
    send_alerts(home)
    first = webhooks.token("ada")
    for note in (home.root / "alerts").glob("*.json"):
        note.unlink()
    send_alerts(home)
    assert len(webhooks.received["ada"]) == 2
    assert webhooks.token("ada") == first


def test_who_may_not_decide_gets_no_link(home: Home, page: RunningPage, webhooks: Webhooks) -> None:
    enlist(home, "ada", until=utc_now() - timedelta(days=1))
    enlist(home, "bob", automatic=True)
    ask(home)
    send_alerts(home)
    assert set(webhooks.received) == {"everybody"}


@pytest.mark.parametrize("policy", [{"approvers": ["bob"]}, {"required_approvals": 2}])
def test_who_has_no_say_or_has_spoken_gets_none(
    home: Home, page: RunningPage, webhooks: Webhooks, policy: dict[str, object]
) -> None:
    ada = enlist(home, "ada")
    enlist(home, "bob")
    ask(home, **policy)
    if "required_approvals" in policy:
        approve(home, 1, "ada", "fine", ada.key)
    send_alerts(home)
    assert set(webhooks.received) == {"everybody", "bob"}


def test_one_webhook_of_two_approvers_is_refused(
    home: Home, page: RunningPage, webhooks: Webhooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ada.b", "ada-b"):
        enlist(home, name)
    ask(home)
    monkeypatch.setenv("MLOPS_APPROVER_WEBHOOK_ADA_B", webhooks.at("both"))
    with pytest.raises(LineageError, match="MLOPS_APPROVER_WEBHOOK_ADA_B"):
        send_alerts(home)
    assert not webhooks.received


def test_what_is_decided_or_expired_is_not_told_any_more(
    home: Home, page: RunningPage, webhooks: Webhooks
) -> None:
    ada = enlist(home, "ada")
    ask(home)
    approve(home, 1, "ada", "fine", ada.key)
    ask(home, 2, seed="b", now=utc_now() - timedelta(hours=2), request_hours=1)
    assert str(send_alerts(home)) == "nothing to send"


def test_data_cannot_shape_the_alert(home: Home, page: RunningPage, webhooks: Webhooks) -> None:
    ask(home, detail=HOSTILE, author=HOSTILE)
    send_alerts(home)
    assert "<!channel>" not in str(webhooks.received)
    assert "<https://evil" not in str(webhooks.received)


def test_a_list_under_review_has_to_name_the_pages_key(
    home: Home, page: RunningPage, webhooks: Webhooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    enlist(home, "ada")
    reviewed = home.root.parent / "approvers.yaml"
    reviewed.write_text((home.root / "approvers.yaml").read_text())
    key = public_key(page_key(home))
    monkeypatch.setenv("MLOPS_APPROVERS", str(reviewed))
    ask(home)
    delivery = send_alerts(home)
    assert len(delivery.sent) == 1
    assert f"link_key: {key}" in delivery.waiting[0]
    reviewed.write_text(reviewed.read_text() + f"link_key: {key}\n")
    assert "to ada" in send_alerts(home).sent[0]


def test_the_asset_alerts_at_once_and_links_to_the_page(
    home: Home, page: RunningPage, webhooks: Webhooks
) -> None:
    enlist(home, "ada")
    metadata = materialize(home, required_approvals=2)
    assert metadata["page"] == f"{page.url}/requests/{metadata['request']}"
    assert "waits for approval" in webhooks.texts("everybody")[0]
    answer = page.decide(metadata["request"], webhooks.token("ada"))
    assert "waits for 1 more" in answer.text
    materialize(home, required_approvals=2)
    assert [len(webhooks.received[name]) for name in ("everybody", "ada")] == [1, 1]


def test_what_is_approved_automatically_asks_nobody(home: Home, webhooks: Webhooks) -> None:
    metadata = materialize(home, risk_class="low", automatic_for=["low"])
    assert metadata["state"] == PROMOTED
    assert "page" not in metadata, "no server was started"
    assert not webhooks.received


def test_a_gate_that_may_be_inconclusive_is_told_of(home: Home, webhooks: Webhooks) -> None:
    """The run goes on and succeeds: no failure would tell that nothing is promoted."""
    materialize(home, INCONCLUSIVE)
    (told,) = webhooks.texts("everybody")
    assert "says INCONCLUSIVE: nothing is promoted" in told
    assert "floor/exact" in told


def test_the_sensor_tries_again_and_says_what_waits(
    home: Home, page: RunningPage, webhooks: Webhooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tick() -> str:
        with dg.build_sensor_context() as context:
            return str(approval_alerts(context).skip_message)

    ask(home, 7)
    webhooks.status = 500
    assert "it answered 500" in tick()
    webhooks.status = 200
    assert tick() == "sent: support-tickets version 7 to everybody"
    assert tick() == "nothing to send"
    monkeypatch.setenv("MLOPS_APPROVERS", str(home.root / "nowhere.yaml"))
    assert "does not exist" in tick(), (
        "a mistake of ours is said, and mended, without a stack trace"
    )
