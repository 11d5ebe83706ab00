"""What people are told through a Slack-compatible webhook, and that data cannot shape it."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mlops_assets.artifacts import Artifact, Recipe
from mlops_assets.gate_alert import gate_of_run, stopped_message
from mlops_assets.home import Home
from mlops_assets.jobs import run_failure_alert
from mlops_assets.ref_json import dump_ref
from mlops_assets.refs import GateRef, ReleaseBundle
from mlops_assets.resources import Alerts
from mlops_assets.verdicts import FAIL, GATE, INCONCLUSIVE, PASS, Criterion, overall
from mlops_assets.webhook import Link, Message, Undelivered, escape, post
from mlops_assets_tests.conftest import VERSIONS, Webhook

PIECE = Artifact("base_model", "k" * 64, "d" * 64)
BUNDLE = ReleaseBundle(PIECE, PIECE, "t" * 64, "p" * 64, {}, VERSIONS)
REPORT = Artifact("eval_report", "e" * 64, "f" * 64)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("<!channel> a & b", "&lt;!channel&gt; a &amp; b"),
        ("<https://evil|here>", "&lt;https:\u2060//evil|\u2060here&gt;"),
        ("@here", "@\u2060here"),
        (
            "*bold* _it_ ~no~ `code`",
            "*\u2060bold*\u2060 _\u2060it_\u2060 ~\u2060no~\u2060 `\u2060code`\u2060",
        ),
        ("[x](http://y)", "[\u2060x]\u2060(http:\u2060//y)"),
        ("one\ntwo\r\n\tthree", "one two three"),
        ("safe\u202eexe.\u0000x", "safe exe. x"),
        ("", ""),
    ],
)
def test_data_is_shown_as_it_stands(text: str, shown: str) -> None:
    assert escape(text) == shown


def test_a_long_text_is_cut_before_it_is_escaped() -> None:
    shown = escape("&" * 1000, 10)
    assert shown == "&amp;" * 9 + "…"


HOSTILE = "<!channel> <https://evil|x> *b*"


def test_nothing_of_a_message_escapes_its_place() -> None:
    payload = Message(
        HOSTILE, ((HOSTILE, HOSTILE),), (HOSTILE,), "mlops status `<x>", (), HOSTILE
    ).payload()
    written = [payload["text"]]
    for block in payload["blocks"][1:]:
        parts = [*block.get("fields", []), *block.get("elements", [])]
        written += [
            part["text"] for part in (*parts, *([block["text"]] if "text" in block else []))
        ]
    assert len(written) >= 5
    for text in written:
        assert "<" not in text
        assert "*b*" not in text
    header = payload["blocks"][0]["text"]
    assert (header["type"], header["text"]) == ("plain_text", HOSTILE)


def test_a_message_fits_what_slack_takes() -> None:
    many = tuple((f"fact {i}", "v" * 3_000) for i in range(14))
    payload = Message("t" * 900, many, ("d" * 900,) * 40).payload()
    header, facts, details = payload["blocks"]
    assert len(header["text"]["text"]) <= 150
    assert len(facts["fields"]) <= 10
    assert all(len(field["text"]) <= 2_000 for field in facts["fields"])
    assert len(details["text"]["text"]) <= 3_000
    assert details["text"]["text"].endswith("more")
    assert payload["unfurl_links"] is False, "a preview is a request with the link in it"


def test_links_are_sent_and_not_logged(webhook: list[Any]) -> None:
    message = Message("Decide", (("a", "b"),), links=(Link("Open", "https://x/y#token=t"),))
    post(webhook_url(), message, 5)
    assert "<https://x/y#token=t|Open>" in webhook[0]["text"]
    assert "token" not in message.log_line


def webhook_url() -> str:
    return os.environ["MLOPS_ALERT_WEBHOOK"]


@pytest.mark.parametrize("status", [302, 404, 500])
def test_what_is_no_success_is_undelivered(
    status: int, webhook: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Webhook, "status", status)
    with pytest.raises(Undelivered, match=f"it answered {status}"):
        post(webhook_url(), Message("x"), 5)
    assert len(webhook) == 1, "a redirection is not followed"


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://x", "secret", "http://[secret"])
def test_only_http_is_spoken_and_no_error_names_the_webhook(url: str) -> None:
    with pytest.raises(Undelivered) as refused:
        post(url, Message("x"), 1)
    assert url not in str(refused.value)


def gate(home: Home, run: str, verdicts: dict[str, str], verdict: str) -> None:
    criteria = [
        asdict(Criterion(name, each, f"{name} says 0.9 against 0.95"))
        for name, each in verdicts.items()
    ]
    content = {
        "verdict": verdict,
        "candidate": BUNDLE.digest,
        "report": REPORT.digest,
        "champion": None,
        "criteria": criteria,
        "spec": {},
    }

    def produce(directory: Path) -> dict[str, object]:
        (directory / GATE).write_text(json.dumps(content))
        return {}

    artifact = home.store.build(Recipe("gate_verdict", {}, {"run": run}, "1"), produce)
    home.write_ref("gate_verdict", run, dump_ref(GateRef(artifact, BUNDLE, REPORT, None, verdict)))


@pytest.mark.parametrize(
    ("verdicts", "verdict"),
    [
        ({"floor/good": PASS, "slice/bad": FAIL, "judge/lost": INCONCLUSIVE}, FAIL),
        ({"floor/good": PASS, "judge/lost": INCONCLUSIVE}, INCONCLUSIVE),
    ],
)
def test_a_gate_that_stops_a_run_says_which_criteria(
    home: Home, verdicts: dict[str, str], verdict: str
) -> None:
    gate(home, "run-1", verdicts, verdict)
    found = gate_of_run(home, "run-1")
    assert found is not None
    message = stopped_message("run-1", "retrain", found)
    assert verdict in message.title
    assert "retrain" in message.title
    stopped = [name for name, each in verdicts.items() if each != PASS]
    assert len(message.details) == len(stopped)
    for line, name in zip(message.details, stopped, strict=True):
        assert name in line
        assert "0.9 against 0.95" in line


def test_a_run_without_a_gate_of_its_own_has_none(home: Home) -> None:
    gate(home, "earlier", {"a": FAIL}, FAIL)
    assert gate_of_run(home, "earlier") is not None
    assert gate_of_run(home, "later") is None, "an earlier run's gate did not stop this one"


@dg.asset
def stopped() -> None:
    """Ends as a run does whose gate's check failed."""
    raise dg.Failure("blocking check `gate` failed", allow_retries=False)


def alert_of_failed_run(home: Home, webhook: list[Any], verdicts: dict[str, str]) -> str:
    """What the sensor tells of a run that ended with these criteria, if any."""
    with dg.instance_for_test() as instance:
        result = dg.materialize([stopped], instance=instance, raise_on_error=False)
        if verdicts:
            gate(
                home,
                result.run_id,
                verdicts,
                overall(Criterion("", v, "") for v in verdicts.values()),
            )
        failures = instance.all_logs(result.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
        context = dg.build_run_status_sensor_context(
            "run_failure_alert",
            dagster_instance=instance,
            dagster_run=result.dagster_run,
            dagster_event=failures[0].get_dagster_event(),
        ).for_run_failure()
        run_failure_alert(context, alerts=Alerts())
    return str(webhook[-1]["text"])


def test_the_alert_of_a_stopped_run_names_the_criteria(home: Home, webhook: list[Any]) -> None:
    told = alert_of_failed_run(home, webhook, {"floor/good": PASS, "slice/bad": FAIL})
    assert "says FAIL: nothing is promoted" in told
    assert "FAIL slice/bad: slice/bad says 0.9 against 0.95" in told
    assert "floor/good" not in told
    for other in ({}, {"floor/good": PASS}):
        told = alert_of_failed_run(home, webhook, other)
        assert "failed" in told, "what failed was not the gate"
        assert "nothing is promoted" not in told
