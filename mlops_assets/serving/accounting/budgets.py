"""Budgets of the running gateway: a request reserves what it may use, and settles what it used.

Totals of the current day are held in memory and answer without waiting. A reservation counts like
use, and asking and reserving are one step of the event loop: requests that run at the same time
cannot pass a limit together. What the engine then reports takes the reservation's place.

A task beside the requests counts the request log into the budget ledger every second and sends
alerts. After a restart the totals come from that ledger, which first counts what the log holds
beyond it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import NamedTuple

from mlops_assets.artifacts import LineageError
from mlops_assets.request_record import RequestRecord
from mlops_assets.serving.accounting.budget_alerts import BudgetAlerts, Refused
from mlops_assets.serving.accounting.budget_spec import BudgetSpec
from mlops_assets.serving.accounting.prices import cost
from mlops_assets.serving.accounting.usage import NANO, SCOPES, UNITS, Limit, Name, charge, shown
from mlops_assets.serving.accounting.usage_ledger import UsageLedger
from mlops_assets.serving.gateway.refusal import QUOTA, Refusal

logger = logging.getLogger(__name__)

INTERVAL = 1.0  # seconds between two looks at the log


class Names(NamedTuple):
    """Whom a request is charged to, in the order of ``SCOPES`` and as its record will say."""

    key: str
    user: str
    feature: str
    prompt: str


class Amount(NamedTuple):
    """Tokens, and billionths of the currency; in the order of ``UNITS``."""

    tokens: int
    nanos: int


NOTHING = Amount(0, 0)


@dataclass(slots=True)
class Tally:
    """What one name has used today, and what its requests under way may still use."""

    limit: Limit
    used: Amount = NOTHING
    held: Amount = NOTHING

    def use(self, amount: Amount) -> None:
        self.used = _sum(self.used, amount)

    def hold(self, amount: Amount) -> None:
        self.held = _sum(self.held, amount)

    def release(self, amount: Amount) -> None:
        self.held = Amount(self.held.tokens - amount.tokens, self.held.nanos - amount.nanos)


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _sum(one: Amount, other: Amount) -> Amount:
    return Amount(one.tokens + other.tokens, one.nanos + other.nanos)


class Budgets:
    """The limits of one gateway. Every method but ``start``, ``load`` and ``close`` returns at
    once."""

    def __init__(
        self,
        ledger: UsageLedger,
        spec: BudgetSpec,
        clock: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._ledger = ledger
        self._alerts = BudgetAlerts(ledger, spec)
        self._spec = spec
        self._clock = clock
        self._limited = frozenset(scope for scope in SCOPES if spec.limits(scope))
        self._day = ""
        self._tallies: dict[tuple[str, str], Tally] = {}
        self._reservations: dict[str, tuple[list[Tally], Amount]] = {}
        self._refused: set[Refused] = set()
        self._problem = ""
        """Why the log is not counted now; empty while it is."""
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take up the day's totals where the log left them, and count on in the background.

        Raises LineageError when the budget ledger cannot be used.
        """
        await asyncio.to_thread(self.load)
        self._task = asyncio.create_task(self._count_on(), name="budgets")

    async def close(self) -> None:
        """Count what is left, then stop."""
        self._closing.set()
        if self._task is not None:
            await self._task

    def load(self) -> None:
        """The day's totals from the ledger, after it has counted the rest of the log."""
        self._ledger.catch_up()
        self._roll()
        for name, usage in self._ledger.totals(self._day).items():
            if (tally := self._tally(name.scope, name.name)) is not None:
                tally.use(Amount(*(usage.of(unit) for unit in UNITS)))

    def reserve(
        self, request: str, names: Names, model: str, size: int, answer_tokens: int
    ) -> None:
        """Hold what a request may use until it is settled or released.

        ``size`` is the length of everything that the engine will read, in bytes; ``answer_tokens``
        the most that it may write. Raises Refusal when a limit would be passed, and then holds
        nothing.
        """
        if not self._limited:
            return
        read = ceil(size / self._spec.bytes_per_token)
        price = cost(self._spec, model, read, answer_tokens)
        amount = Amount(read + answer_tokens, round(price * NANO))
        self._roll()
        tallies = []
        for scope, name in zip(SCOPES, names, strict=True):
            if (tally := self._tally(scope, name)) is not None:
                self._refuse_beyond(tally, scope, name, amount)
                tallies.append(tally)
        for tally in tallies:
            tally.hold(amount)
        if tallies:
            self._reservations[request] = tallies, amount

    def settle(self, record: RequestRecord) -> None:
        """Count what a request really used; its record is in the log."""
        self.release(record.id)
        self._roll()
        if not self._limited or (charged := charge(vars(record))) is None:
            return
        if charged.day != self._day:
            return
        amount = Amount(*(charged.usage.of(unit) for unit in UNITS))
        for scope, name in zip(SCOPES, charged.names, strict=True):
            if (tally := self._tally(scope, name)) is not None:
                tally.use(amount)

    def release(self, request: str) -> None:
        """Give back what a request holds; none is held for one that was settled already."""
        tallies, amount = self._reservations.pop(request, ([], NOTHING))
        for tally in tallies:
            tally.release(amount)

    def used(self, scope: str, name: str) -> Amount:
        """What a name with a limit has used today, without what is only held."""
        tally = self._tally(scope, name)
        return tally.used if tally else NOTHING

    def shares(self, scope: str) -> dict[tuple[str, str], float]:
        """What part of its limits every known name of this scope has used, by name and unit."""
        self._roll()
        return {
            (name, unit): tally.used[index] / most if most else 1.0
            for (of, name), tally in self._tallies.items()
            for index, unit in enumerate(UNITS)
            if of == scope and (most := tally.limit.of(unit)) is not None
        }

    def _tally(self, scope: str, name: str) -> Tally | None:
        """None for a name without a limit: nothing is kept in memory for those."""
        if scope not in self._limited:
            return None
        if (tally := self._tallies.get((scope, name))) is None:
            if not (limit := self._spec.limit(scope, name)):
                return None
            tally = self._tallies[scope, name] = Tally(limit)
        return tally

    def _refuse_beyond(self, tally: Tally, scope: str, name: str, amount: Amount) -> None:
        for index, unit in enumerate(UNITS):
            most = tally.limit.of(unit)
            if most is None or tally.used[index] + tally.held[index] + amount[index] <= most:
                continue
            self._refused.add(Refused(Name(self._day, scope, name), unit))
            limit, used, held, wanted = (
                shown(unit, number, self._spec.currency)
                for number in (most, tally.used[index], tally.held[index], amount[index])
            )
            raise Refusal(
                429,
                QUOTA,
                f"This {scope} has a limit of {limit} a day: {used} are used, {held} are held for"
                f" requests under way, and this request may take {wanted}. The next day begins at"
                " 00:00 UTC.",
                self._until_tomorrow(),
                code=QUOTA,
            )

    def _until_tomorrow(self) -> float:
        now = self._clock().astimezone(UTC)
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        return (midnight - now).total_seconds()

    def _roll(self) -> None:
        """A new day begins with nothing used; what is under way stays with the day it began on."""
        if (day := self._clock().astimezone(UTC).date().isoformat()) > self._day:
            self._day = day
            self._tallies = {}

    async def _count_on(self) -> None:
        await self._count(everybody=True)  # what a killed process counted and told nobody
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), INTERVAL)
            await self._count()

    async def _count(self, *, everybody: bool = False) -> None:
        refused, self._refused = self._refused, set()
        try:
            await asyncio.to_thread(self._project, refused, everybody)
        except LineageError as error:
            self._refused |= refused
            if str(error) != self._problem:  # once, not every second
                logger.error("%s Counting goes on when it can.", error)
            self._problem = str(error)
        else:
            self._problem = ""

    def _project(self, refused: set[Refused], everybody: bool) -> None:
        changed = self._ledger.catch_up()
        current = self._ledger.totals(self._day) if everybody else self._ledger.of(changed)
        self._alerts.tell(current, refused)
