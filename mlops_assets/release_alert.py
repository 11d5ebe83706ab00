"""Tells people that a release reached everybody or was taken back: once each.

What has to be said follows from the ledger, what was said from one small file; so nothing is lost
while the webhook is down, and whoever tries next sends what is missing.
"""

import json
import os
from pathlib import Path

from mlops_assets.artifacts import atomic_write
from mlops_assets.home import Home
from mlops_assets.ledger import RELEASED, ROLLED_BACK, LedgerEntry
from mlops_assets.webhook import Message, Undelivered, post

WEBHOOK = "MLOPS_ALERT_WEBHOOK"
TIMEOUT = 10.0  # seconds for the webhook to answer
MOST_CRITERIA = 5  # in a message


def send_release_alerts(home: Home, entries: list[LedgerEntry]) -> str:
    """Send what is due; returns what became of it. A webhook that is down is no error: it waits.

    Without a webhook nothing is sent, later neither.
    """
    told = home.root / "serving" / "alerted.json"
    last = _last(told)
    due = [
        row
        for row in entries
        if row.entry > last and row.decision.outcome in (RELEASED, ROLLED_BACK)
    ]
    if not due:
        return "nothing to send"
    url = os.environ.get(WEBHOOK)
    for row in due:
        try:
            if url:
                post(url, release_message(row), TIMEOUT)
        except Undelivered as error:
            return f"waiting: ledger entry {row.entry} ({error})"
        with atomic_write(told) as temporary:
            temporary.touch(mode=0o600)
            temporary.write_text(json.dumps({"entry": row.entry}), encoding="utf-8")
    return f"sent: {len(due)}" if url else "no webhook to send to"


def release_message(row: LedgerEntry) -> Message:
    """What people are told of a row that ends a rollout, or undoes one."""
    decided = row.decision
    back = decided.outcome == ROLLED_BACK
    what = "is the champion again: a rollback" if back else "is released to all users"
    by = decided.evidence.get("statement")
    facts = [("Model", decided.model), ("Version", str(decided.version))]
    facts += [("Ledger entry", str(row.entry)), ("At", row.at)]
    facts += [("By", str(by["name"]))] if isinstance(by, dict) and "name" in by else []
    return Message(
        title=f"{decided.model} version {decided.version} {what}",
        facts=tuple(facts),
        details=(decided.reason, *_failed(row)),
        command="mlops status",
    )


def _failed(row: LedgerEntry) -> list[str]:
    """The criteria that spoke against it."""
    verdict = row.decision.evidence.get("verdict")
    criteria = verdict.get("criteria", []) if isinstance(verdict, dict) else []
    harm = [str(each.get("detail")) for each in criteria if each.get("verdict") == "FAIL"]
    return [text for text in harm if text != row.decision.reason][:MOST_CRITERIA]


def _last(told: Path) -> int:
    try:
        return int(json.loads(told.read_bytes())["entry"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
