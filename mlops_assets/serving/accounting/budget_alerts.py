"""Tells people that a daily limit is half used, nearly used or used up: once for each of these.

What was reached and who was told of it stand in the budget ledger, so a restart repeats nothing and
a webhook that is down gets the message later. A process that is killed between the webhook's
answer and the note sends the same message once more.
"""

import logging
import os
import time
from collections.abc import Collection, Iterator
from typing import NamedTuple

from mlops_assets.artifacts import SHORT
from mlops_assets.serving.accounting.budget_spec import BudgetSpec
from mlops_assets.serving.accounting.usage import UNITS, Name, Totals, Usage, shown
from mlops_assets.serving.accounting.usage_ledger import Alert, UsageLedger
from mlops_assets.webhook import Message, Undelivered, post

logger = logging.getLogger(__name__)

WEBHOOK = "MLOPS_ALERT_WEBHOOK"
TIMEOUT = 10.0  # seconds for the webhook to answer
PAUSE = 30.0  # seconds after a webhook did not
THRESHOLDS = (50, 80, 100)
"""Percent of a daily limit."""


class Refused(NamedTuple):
    """A limit for which a request was refused: it counts as used up."""

    of: Name
    unit: str


class BudgetAlerts:
    """The alerts of one gateway. It waits for files and the webhook: not on a request's path."""

    def __init__(self, ledger: UsageLedger, spec: BudgetSpec) -> None:
        self._ledger = ledger
        self._spec = spec
        self._not_before = 0.0
        """Monotonic time of the next try, after a webhook did not take a message."""

    def tell(self, totals: Totals, refused: Collection[Refused] = ()) -> None:
        """Note which thresholds these totals have reached, and tell people what is new."""
        used_up = (Alert(each.of, each.unit, 100) for each in refused)
        if found := [*reached(self._spec, totals), *used_up]:
            self._ledger.note(found)
        if time.monotonic() < self._not_before:
            return
        for alert in self._ledger.untold():
            usage = self._ledger.of([alert.of]).get(alert.of, Usage())
            if not _send(message(alert, usage, self._spec)):
                self._not_before = time.monotonic() + PAUSE
                return
            self._ledger.told(alert)


def reached(spec: BudgetSpec, totals: Totals) -> Iterator[Alert]:
    """Every threshold that was reached, by name and unit."""
    for name, usage in totals.items():
        limit = spec.limit(name.scope, name.name)
        for unit in UNITS:
            if (most := limit.of(unit)) is not None and (used := usage.of(unit)):
                for percent in THRESHOLDS:
                    if 100 * used >= percent * most:
                        yield Alert(name, unit, percent)


def message(alert: Alert, usage: Usage, spec: BudgetSpec) -> Message:
    """What people are told of a threshold."""
    day, scope, name = alert.of
    limit = spec.limit(scope, name).of(alert.unit)
    whom = f"{scope} {name if scope in ('key', 'feature') else name[:SHORT]}" if name else scope
    what = "is used up" if alert.percent == 100 else f"has reached {alert.percent}%"
    used = shown(alert.unit, usage.of(alert.unit), spec.currency)
    most = "none" if limit is None else shown(alert.unit, limit, spec.currency)
    return Message(
        title=f"The daily budget of {whom} {what}",
        facts=(("Day", f"{day} (UTC)"), ("Used", used), ("Limit", most)),
        details=("Requests beyond it get 429 until 00:00 UTC.",) if alert.percent == 100 else (),
        command=f"mlops usage --day {day}",
    )


def _send(message: Message) -> bool:
    """Log it, and post it where a webhook is configured; whether people know of it now."""
    logger.warning("alert: %s", message.log_line)
    if not (url := os.environ.get(WEBHOOK)):
        return True
    try:
        post(url, message, TIMEOUT)
    except Undelivered as error:
        logger.error("the alert webhook did not take the message: %s", error)
        return False
    return True
