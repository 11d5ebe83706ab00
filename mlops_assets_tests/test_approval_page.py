"""The approval page: the evidence as it stands, shown safely, and to nobody but who asks for it."""

import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta

import pytest

from mlops_assets.approval_requests import utc_now
from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home
from mlops_assets.promotion import registry
from mlops_assets.promotion.approval import approve
from mlops_assets.promotion.page_address import page_url, public_url
from mlops_assets.promotion.request_view import in_words
from mlops_assets_tests.approval_pages import RunningPage, ask, running_page, token_for
from mlops_assets_tests.releases import enlist
from mlops_assets_tests.test_layout import HEAVY

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7 * 7 }}"


@pytest.fixture(autouse=True)
def _no_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow has tests of its own; here the aliases have nobody to be shown to."""
    monkeypatch.setattr(registry, "reconcile", lambda home, name: {})


@pytest.fixture
def page(home: Home) -> Iterator[RunningPage]:
    with running_page(home) as page:
        yield page


def text_of(html: str) -> str:
    """What a person reads: without tags, scripts and styles, spaces folded."""
    shown = re.sub(r"(?s)<(script|style).*?</\1>", " ", html)
    return " ".join(re.sub(r"<[^>]+>", " ", shown).split())


def test_the_evidence_is_shown(home: Home, page: RunningPage) -> None:
    asked = ask(home, 7, required_approvals=2)
    shown = text_of(page.get(f"requests/{asked.request.id}").text)
    for expected in (
        "support-tickets version 7",
        "grace@example.com",
        "Waiting for 2 approvals",
        "93.9% of 508 test requests",
        "+93.3 points against its base model (+90.7 to +95.2)",
        "floor/exact_match 93.9%, at least 60.0%",
        "chat 142 94.0% 1.0% +93.0",
        "test exact match \N{EN DASH} \N{EN DASH} 475 1 32",
        "safety refuses 0.975 0.500 20 1 19",
        "this would be the first",
        asked.request.entry.decision.bundle.digest,
        "mlops approve 7",
    ):
        assert expected in shown, expected
    report = page.get(f"requests/{asked.request.id}/report")
    assert report.text == "<h1>The whole report</h1>"
    assert "sandbox" in report.headers["content-security-policy"]


def test_who_has_approved_and_what_changed_since_the_champion(
    home: Home, page: RunningPage
) -> None:
    ada = enlist(home, "ada")
    ask(home, 1)
    approve(home, 1, "ada", "the first", ada.key)
    asked = ask(home, 2, seed="b", required_approvals=2)
    approve(home, 2, "ada", "better on chat", ada.key)
    shown = text_of(page.get(f"requests/{asked.request.id}").text)
    assert "1 of 2 approvals given" in shown
    assert "Waiting for one more" in shown
    assert "better on chat" in shown
    assert "those of the champion, version 1" in shown


@pytest.mark.parametrize("where", ["model", "detail", "author", "reason"])
def test_no_text_becomes_markup(home: Home, page: RunningPage, where: str) -> None:
    ada = enlist(home, "ada")
    named = {where: HOSTILE} if where != "reason" else {}
    asked = ask(home, required_approvals=2, **named)
    decided = asked.request.entry.decision
    reason = HOSTILE if where == "reason" else "fine"
    approve(home, 1, "ada", reason, ada.key, model=decided.model)
    for path in (f"requests/{asked.request.id}", ""):
        html = page.get(path).text
        assert "<script>alert" not in html
        assert "<img" not in html
        assert "49" not in re.findall(r"onerror=alert\(1\)&gt;(.{0,4})", html)
    assert "&lt;script&gt;alert(1)" in page.get(f"requests/{asked.request.id}").text


def test_a_notice_quotes_nothing_as_markup(home: Home, page: RunningPage) -> None:
    enlist(home, "ada")
    asked = ask(home, model=HOSTILE)
    answer = page.decide(asked.request.id, token_for(home, asked, "ada"), "reject", HOSTILE)
    assert answer.status_code == 200
    assert "<script>alert" not in answer.text


@pytest.mark.parametrize(
    "path", ["", "requests/{id}", "requests/{id}/report", "nowhere", "requests/x"]
)
def test_every_answer_is_guarded(home: Home, page: RunningPage, path: str) -> None:
    answer = page.get(path.format(id=ask(home).request.id))
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "server" not in answer.headers
    assert "set-cookie" not in answer.headers
    nonces = re.findall(r"'nonce-([^']+)'", policy)
    assert all(f'nonce="{nonce}"' in answer.text for nonce in nonces)
    assert " style=" not in answer.text, "the policy would drop it"


def test_evidence_that_was_changed_is_no_evidence(home: Home, page: RunningPage) -> None:
    asked = ask(home)
    gate = next((home.store.root / "gate_verdict").glob("*/gate.json"))
    gate.write_text(gate.read_text().replace("93.9", "99.9"))
    html = page.get(f"requests/{asked.request.id}").text
    assert "The evidence cannot be trusted" in html
    assert "was changed after it was built" in html
    assert "<form" not in html


def test_what_is_closed_says_why_and_has_no_form(home: Home, page: RunningPage) -> None:
    asked = ask(home, now=utc_now() - timedelta(hours=2), request_hours=1)
    html = page.get(f"requests/{asked.request.id}").text
    assert "the request expired at" in html
    assert "<form" not in html


def test_the_index_lists_what_waits_at_this_machine_alone(
    home: Home, page: RunningPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Nothing waits" in page.get().text
    asked = ask(home)
    assert f'href="requests/{asked.request.id}"' in page.get().text
    monkeypatch.setenv("MLOPS_APPROVAL_URL", "https://approvals.example.com/")
    assert page.get().status_code == 404
    assert page.get(f"requests/{asked.request.id}").status_code == 200


def test_the_address_is_the_proxys_or_the_running_servers(
    home: Home, page: RunningPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert page_url(home) == page.url
    monkeypatch.setenv("MLOPS_APPROVAL_URL", "https://approvals.example.com/llm/")
    assert page_url(home) == "https://approvals.example.com/llm"


@pytest.mark.parametrize(
    "url",
    [
        "http://approvals.example.com",
        "approvals.example.com",
        "https://",
        "https://ada:secret@approvals.example.com",
        "https://approvals.example.com/?a=b",
        "https://approvals.example.com/#x",
        "https://approvals.example.com|x",
        "javascript:alert(1)",
        "https://[::1",
    ],
)
def test_a_link_never_travels_in_the_clear(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_APPROVAL_URL", url)
    with pytest.raises(LineageError, match="MLOPS_APPROVAL_URL"):
        public_url()


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (timedelta(), ""),
        (timedelta(seconds=-5), ""),
        (timedelta(seconds=30), "less than a minute"),
        (timedelta(hours=1, minutes=1), "1 hour 1 minute"),
        (timedelta(days=2, minutes=5), "2 days 5 minutes"),
        (timedelta(days=3, hours=4, minutes=5), "3 days 4 hours"),
    ],
)
def test_time_left_in_words(left: timedelta, words: str) -> None:
    assert in_words(left) == words


def test_the_server_knows_no_dagster_and_starts_light() -> None:
    program = (
        "import sys, mlops_assets.cli, mlops_assets.promotion.approval_server;"
        f"print(sorted(name for name in {('dagster', *HEAVY)!r} if name in sys.modules))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == "[]"
