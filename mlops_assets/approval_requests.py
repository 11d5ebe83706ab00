"""A request for approval, as a row of the ledger holds it, and what is known of it."""

import getpass
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from mlops_assets.approvers import NAME, Approvers
from mlops_assets.artifacts import Artifact, LineageError
from mlops_assets.ledger import REQUESTED, LedgerEntry
from mlops_assets.statements import Statement, stamp

OPEN, EXPIRED, OUTDATED, SUPERSEDED = "open", "expired", "outdated", "superseded"
"""States of a request, beside ``rejected`` and ``promoted``."""


class Policy(BaseModel):
    """The settings under which a request was opened: see ``promotion.spec``."""

    model_config = ConfigDict(frozen=True)

    required_approvals: int = Field(ge=1)
    """How many different people have to approve."""
    approvers: tuple[str, ...]
    """Names that may; empty for all on the list."""
    risk_class: str
    automatic_for: tuple[str, ...]


class Terms(BaseModel):
    """What a request says beside its bundle and its reason."""

    model_config = ConfigDict(frozen=True)

    expires: AwareDatetime
    replaces: int = Field(ge=0)
    """Ledger entry of the champion that the candidate was compared with, 0 without one."""
    author: str
    """E-mail or name of who made the change, empty if it is not known."""
    policy: Policy
    criteria: tuple[dict[str, str], ...]
    """``name``, ``verdict`` and ``detail`` of what the gate judged."""
    gate: dict[str, str]
    """``kind``, ``key`` and ``digest`` of the gate's artifact."""
    report: dict[str, str]


@dataclass(frozen=True)
class Request:
    """A row of the ledger that asks people for their approval."""

    entry: LedgerEntry
    terms: Terms

    @classmethod
    def of(cls, entry: LedgerEntry) -> "Request":
        """The request in a row. Raises LineageError when the row is not as we wrote it."""
        try:
            return cls(entry, Terms.model_validate(entry.decision.evidence))
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            raise LineageError(
                f"Row {entry.entry} of the decision ledger is no request of ours ({where}).",
                "It was changed by another hand: bring the ledger back from a backup.",
            ) from error

    @property
    def id(self) -> str:
        """Hash of the row as it stands: one changed byte of it makes every signature void."""
        return self.entry.computed

    @property
    def gate(self) -> Artifact:
        """What the gate said of the release."""
        return _artifact(self.terms.gate)

    @property
    def report(self) -> Artifact:
        """The evaluation report that the gate read, and that people look at."""
        return _artifact(self.terms.report)

    @property
    def required(self) -> int:
        """How many people have to approve."""
        return self.terms.policy.required_approvals

    @property
    def automatic(self) -> bool:
        """Whether the key of a machine may approve too."""
        return self.terms.policy.risk_class in self.terms.policy.automatic_for

    def statement(
        self, action: str, name: str, reason: str, at: datetime, via: str = ""
    ) -> Statement:
        """What somebody who answers this request signs."""
        asked = self.entry.decision
        what = (action, self.id, asked.model, asked.version, asked.bundle.digest)
        return Statement(*what, name, reason, stamp(at), via)


def _artifact(named: Mapping[str, str]) -> Artifact:
    return Artifact(named["kind"], named["key"], named["digest"])


@dataclass(frozen=True)
class Approval:
    """An approval that counts."""

    name: str
    reason: str
    at: str
    """When the ledger took it."""
    automatic: bool
    digest: str


@dataclass(frozen=True)
class Standing:
    """A request and where it stands now."""

    request: Request
    state: str
    reason: str
    """Why it is no longer open; empty while it is."""
    approvals: tuple[Approval, ...]
    invalid: tuple[str, ...]
    """Answers on the ledger that do not count, and why."""

    @property
    def missing(self) -> int:
        """How many approvals it still takes."""
        return max(0, self.request.required - len(self.approvals))


def find_request(entries: Sequence[LedgerEntry], request: str) -> Request | None:
    """The request with this id."""
    found = (row for row in entries if row.decision.outcome == REQUESTED)
    return next((Request.of(row) for row in found if row.computed == request), None)


def latest_request(
    entries: Sequence[LedgerEntry], version: int, model: str | None = None
) -> Request:
    """The newest request for a version, of ``model`` where one is named.

    Raises LineageError when nobody was ever asked about this version, or about that of several
    models and none is named: which of them is meant, nobody may guess.
    """
    asked = [
        row
        for row in entries
        if row.decision.outcome == REQUESTED
        and row.decision.version == version
        and model in (None, row.decision.model)
    ]
    if len(models := sorted({row.decision.model for row in asked})) > 1:
        raise LineageError(
            f"Approval was requested for version {version} of {', '.join(models)}.",
            "Name the model that is meant (--model).",
        )
    if asked:
        return Request.of(asked[-1])
    raise LineageError(
        f"No approval was requested for version {version}{f' of {model}' if model else ''}.",
        "`mlops status` shows what waits for approval; only what passed the gate does.",
    )


def ways_to_approve(found: Standing, approvers: Approvers) -> tuple[str, ...]:
    """The commands with which somebody approves a request, to be typed as they are.

    Where no person is on the list yet, the first one makes a key.
    """
    asked = found.request.entry.decision
    allowed = found.request.terms.policy.approvers
    people = [
        approver.name
        for approver in approvers.approvers
        if not approver.automatic and (not allowed or approver.name in allowed)
    ]
    given = {approval.name for approval in found.approvals}
    name = next((name for name in people if name not in given), None) or _own_name()
    approve = f'mlops approve {asked.version} --model {asked.model} --as {name} --reason "..."'
    return (approve,) if name in people else (f"mlops keys new {name}", approve)


def _own_name() -> str:
    """The login name where it may stand on the list of approvers."""
    try:
        login = getpass.getuser().lower()
    except (OSError, KeyError):  # no login name in a container
        return "me"
    return login if re.fullmatch(NAME, login) else "me"


def utc_now() -> datetime:
    """The present moment, to the second, in UTC."""
    return datetime.now(UTC).replace(microsecond=0)
