"""Tells people that a candidate waits for their approval: once each, however often it is tried.

What has to be said follows from the ledger (open requests) and the environment (webhooks), and
what was said from one small file for each message that a webhook took. So nothing is lost
while a webhook is down: whoever tries next, the asset, the sensor or `mlops alerts`, sends
what is missing. A process that is killed between the webhook's answer and the file leads to
the same message with the same link once more.

Everybody's webhook (``MLOPS_ALERT_WEBHOOK``) gets a link that shows the evidence. An approver's
own (``MLOPS_APPROVER_WEBHOOK_NAME``) gets the link that decides in their name; nothing else
ever sees it, no log either.
"""

import fcntl
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from mlops_assets.approval_requests import Standing, utc_now
from mlops_assets.approval_standing import pending
from mlops_assets.approvers import Approver, Approvers, read_approvers
from mlops_assets.artifacts import SHORT, LineageError, atomic_write, digest_json
from mlops_assets.gate_alert import criterion_lines
from mlops_assets.home import Home
from mlops_assets.promotion.approval_link import Grant, make_token
from mlops_assets.promotion.page_address import page_url, request_url, travels_safely
from mlops_assets.promotion.page_key import page_key
from mlops_assets.promotion.request_view import RequestView, view_request
from mlops_assets.statements import stamp
from mlops_assets.webhook import Link, Message, Undelivered, post

logger = logging.getLogger(__name__)

EVERYBODY = ""
COMMON, PERSONAL = "MLOPS_ALERT_WEBHOOK", "MLOPS_APPROVER_WEBHOOK_"
TIMEOUT = 10.0  # seconds for a webhook to answer


@dataclass(frozen=True)
class Recipient:
    """Who is told, and where."""

    name: str
    """An approver's, or ``EVERYBODY``."""
    webhook: str = field(repr=False)

    def __str__(self) -> str:
        return self.name or "everybody"


@dataclass(frozen=True)
class Delivery:
    """What became of the messages that were due."""

    sent: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    """Who is still to be told of what, and why not yet."""

    def __str__(self) -> str:
        sent = f"sent: {'; '.join(self.sent)}" if self.sent else ""
        waiting = f"waiting: {'; '.join(self.waiting)}" if self.waiting else ""
        return ". ".join(filter(None, (sent, waiting))) or "nothing to send"


def send_alerts(home: Home, now: datetime | None = None) -> Delivery:
    """Send every message that is due. A webhook that does not take one is no error: it waits.

    Raises LineageError when the ledger or the list of approvers cannot be used, or when the
    webhook of one approver would serve for another too.
    """
    now = now or utc_now()
    sent: list[str] = []
    waiting: list[str] = []
    with _alone(home) as alone:
        if not alone:
            return Delivery(waiting=("another process is sending",))
        for view, recipient in _due(home, now):
            label = f"{view.model} version {view.version} to {recipient}"
            try:
                post(recipient.webhook, _message(home, view, recipient), TIMEOUT)
                _note(home, view, recipient, now)
                sent.append(label)
            except (Undelivered, LineageError) as error:
                waiting.append(f"{label} ({error})")
    return Delivery(tuple(sent), tuple(waiting))


def try_alerts(home: Home) -> None:
    """Send what is due, and log what became of it: what cannot be sent now is sent later."""
    try:
        delivery = send_alerts(home)
    except LineageError as error:
        logger.warning("%s", error)
        return
    if delivery.sent or delivery.waiting:
        logger.info("%s", delivery)


def recipients(found: Standing, approvers: Approvers, now: datetime) -> list[Recipient]:
    """Who has a webhook and is to be told of this request: everybody, and who may decide.

    Raises LineageError when one variable is the webhook of two approvers.
    """
    common = os.environ.get(COMMON)
    told = [Recipient(EVERYBODY, common)] if common else []
    shared = Counter(webhook_variable(each.name) for each in approvers.approvers)
    for approver in approvers.approvers:
        variable = webhook_variable(approver.name)
        if not (webhook := os.environ.get(variable)) or not _may_decide(found, approver, now):
            continue
        if shared[variable] > 1:
            raise LineageError(
                f"{variable} is the webhook of more than one approver: each would get the"
                " other's personal link.",
                "Rename one of them, such that their names differ in letters or digits.",
            )
        told.append(Recipient(approver.name, webhook))
    return told


def webhook_variable(name: str) -> str:
    """The environment variable that holds an approver's own webhook."""
    return PERSONAL + re.sub("[^A-Z0-9]", "_", name.upper())


def _may_decide(found: Standing, approver: Approver, now: datetime) -> bool:
    allowed = found.request.terms.policy.approvers
    listed = not allowed or approver.name in allowed
    answered = any(approval.name == approver.name for approval in found.approvals)
    present = approver.until is None or now < approver.until
    return listed and present and not approver.automatic and not answered


def _due(home: Home, now: datetime) -> Iterator[tuple[RequestView, Recipient]]:
    entries, approvers = home.ledger.entries(), read_approvers(home)
    for found in pending(entries, approvers, now):
        told = recipients(found, approvers, now)
        if due := [each for each in told if not _noted(home, found.request.id, each).exists()]:
            view = view_request(home.store, entries, found, now)
            yield from ((view, recipient) for recipient in due)


def _message(home: Home, view: RequestView, recipient: Recipient) -> Message:
    """What a recipient is told. Raises LineageError as long as there can be no personal link."""
    base = page_url(home)
    evidence = request_url(base, view.id) if base else None
    if recipient.name == EVERYBODY:
        links = (Link("Look at the evidence", evidence),) if evidence else ()
        return request_message(view, links, view.command)
    if evidence is None:
        raise LineageError(
            "There is no address for a personal link yet.",
            "Start the page with `mlops approvals`, or set MLOPS_APPROVAL_URL.",
        )
    if not travels_safely(urlsplit(recipient.webhook)):
        raise LineageError(
            f"The webhook of {recipient.name} is not https, and a personal link decides.",
            f"Give {webhook_variable(recipient.name)} an https address.",
        )
    grant = Grant(view.id, view.bundle.digest, recipient.name, view.expires)
    url = f"{evidence}#token={make_token(grant, page_key(home))}"
    links = (Link("Look at the evidence and decide", url),)
    command = view.command.replace("NAME", recipient.name)
    note = "The link is yours alone and works once: it decides in your name. Do not pass it on."
    return request_message(view, links, command, note)


def request_message(
    view: RequestView, links: tuple[Link, ...], command: str, note: str = ""
) -> Message:
    """The alert of an open request."""
    facts = [
        ("Gate", f"{view.verdict}, {view.counted_criteria}"),
        ("Approvals", f"{view.given} of {view.needed}"),
        ("Changed by", view.author or "not known"),
        ("Expires", f"{view.expires} (in {view.remaining})"),
        ("Release", view.bundle.digest[:SHORT]),
    ]
    if (score := view.headline) is not None:
        facts[:0] = [
            ("Exact match", str(score)),
            (f"Against {score.rival_name}", score.against),
        ]
    return Message(
        title=f"{view.model} version {view.version} waits for approval",
        facts=tuple(facts),
        details=criterion_lines(view.criteria, view.problem),
        command=command,
        links=links,
        note=note,
    )


def _noted(home: Home, request: str, recipient: Recipient) -> Path:
    """The file that says that a webhook took a message."""
    name = digest_json({"request": request, "recipient": recipient.name})
    return home.root / "alerts" / f"{name}.json"


def _note(home: Home, view: RequestView, recipient: Recipient, now: datetime) -> None:
    content = {"request": view.id, "recipient": recipient.name, "sent_at": stamp(now)}
    with atomic_write(_noted(home, view.id, recipient)) as temporary:
        temporary.touch(mode=0o600)
        temporary.write_text(json.dumps(content), encoding="utf-8")


@contextmanager
def _alone(home: Home) -> Iterator[bool]:
    """Whether no other process is sending: two would send the same message."""
    home.prepare()
    with (home.root / "alerts.lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
