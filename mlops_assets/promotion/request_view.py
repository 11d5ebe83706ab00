"""What a person is shown of an approval request: where it stands, and the evidence behind it.

Everything is read again for every look: the ledger's rows, and gate and report from their
verified artifacts. Where an artifact was changed there is no evidence, and the view says so.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from mlops_assets.approval_requests import (
    EXPIRED,
    OPEN,
    OUTDATED,
    SUPERSEDED,
    Request,
    Standing,
)
from mlops_assets.artifacts import SHORT, ArtifactStore, LineageError
from mlops_assets.ledger import APPROVED, PROMOTED, REJECTED, LedgerEntry
from mlops_assets.promotion.report_view import (
    Headline,
    Movement,
    SliceScore,
    SystemScore,
    headline,
    movements,
    slices,
    systems,
)
from mlops_assets.refs import ReleaseBundle
from mlops_assets.verdicts import GATE, Criterion, overall

PACKAGE, BUNDLE = "mlflow_model", "bundle.json"
"""Kind of the registered packages, and the file that names the bundle of one."""

STATES = {
    OPEN: ("Waiting", "wait"),
    PROMOTED: ("Approved and promoted", "good"),
    REJECTED: ("Rejected", "bad"),
    EXPIRED: ("Expired", "bad"),
    OUTDATED: ("Outdated", "bad"),
    SUPERSEDED: ("Superseded", "bad"),
}


@dataclass(frozen=True)
class Answer:
    """What somebody said to the request."""

    approver: str
    outcome: str
    at: str
    reason: str
    via: str


@dataclass(frozen=True)
class RequestView:
    """Everything that page and alert show."""

    id: str
    request: int
    """The ledger entry that asks."""
    model: str
    version: int
    bundle: ReleaseBundle
    author: str
    requested_at: str
    expires: str
    remaining: str
    """Time left in words; empty when there is none, or nothing to decide."""
    state: str
    state_text: str
    state_tone: str
    why_closed: str
    needed: int
    given: int
    answers: tuple[Answer, ...]
    invalid: tuple[str, ...]
    """Answers on the ledger that do not count, and why."""
    verdict: str
    criteria: tuple[Criterion, ...]
    notes: tuple[str, ...]
    headline: Headline | None
    systems: tuple[SystemScore, ...]
    slices: Mapping[str, Sequence[SliceScore]]
    movements: tuple[Movement, ...]
    champion_version: int | None
    changes: tuple[tuple[str, str, str], ...]
    """Setting, the champion's value, the candidate's, where the two differ."""
    card: str
    """Head of the model card, Markdown; empty where there is none."""
    problem: str
    """Why the evidence cannot be trusted; empty where it can."""

    @property
    def counted_criteria(self) -> str:
        """How many criteria the gate had."""
        return "1 criterion" if len(self.criteria) == 1 else f"{len(self.criteria)} criteria"

    @property
    def command(self) -> str:
        """How to approve without the page. A model's and an approver's name need no quotes."""
        return f'mlops approve {self.version} --model {self.model} --as NAME --reason "..."'

    @property
    def digests(self) -> tuple[tuple[str, str], ...]:
        """What the approval is about, by name."""
        bundle = self.bundle
        return (
            ("Release bundle", bundle.digest),
            ("Base model", bundle.base.digest),
            ("Adapter", bundle.adapter.digest),
            ("Tokenizer and chat template", bundle.chat_template),
            ("Prompt", bundle.prompt_digest),
            ("Data (DVC)", bundle.versions.data),
            ("Eval set", bundle.versions.eval_set),
            ("Request", self.id),
        )


def view_request(
    store: ArtifactStore, entries: Sequence[LedgerEntry], found: Standing, now: datetime
) -> RequestView:
    """The view of a request that stands as ``found`` says."""
    request, row = found.request, found.request.entry
    decided = row.decision
    text, tone = STATES.get(found.state, (found.state.capitalize(), "bad"))
    gate, report, problem = _evidence(store, request)
    criteria = _criteria(request)
    champion = next((each for each in entries if each.entry == request.terms.replaces), None)
    left = request.terms.expires - now if found.state == OPEN else timedelta()
    return RequestView(
        id=request.id,
        request=row.entry,
        model=decided.model,
        version=decided.version,
        bundle=decided.bundle,
        author=request.terms.author,
        requested_at=row.at,
        expires=request.terms.expires.isoformat(timespec="seconds"),
        remaining=in_words(left),
        state=found.state,
        state_text=_waiting(found) if found.state == OPEN else text,
        state_tone=tone,
        why_closed=found.reason,
        needed=request.required,
        given=len(found.approvals),
        answers=_answers(entries, request),
        invalid=found.invalid,
        verdict=overall(criteria),
        criteria=criteria,
        notes=tuple(map(str, gate.get("notes", ()))),
        headline=headline(report) if report else None,
        systems=systems(report) if report else (),
        slices=slices(report) if report else {},
        movements=movements(report) if report else (),
        champion_version=champion.decision.version if champion else None,
        changes=_changes(champion.decision.bundle, decided.bundle) if champion else (),
        card=find_card(store, decided.bundle.digest),
        problem=problem,
    )


def in_words(left: timedelta) -> str:
    """A time to come in its two largest units; empty when there is none."""
    minutes = int(left.total_seconds() // 60)
    if minutes < 1:
        return "less than a minute" if left > timedelta() else ""
    units = (("day", minutes // 1440), ("hour", minutes // 60 % 24), ("minute", minutes % 60))
    shown = [f"{count} {unit}{'' if count == 1 else 's'}" for unit, count in units if count]
    return " ".join(shown[:2])


def _waiting(found: Standing) -> str:
    if found.missing == 1:
        return "Waiting for one approval" if not found.approvals else "Waiting for one more"
    return f"Waiting for {found.missing} approvals"


def _answers(entries: Sequence[LedgerEntry], request: Request) -> tuple[Answer, ...]:
    rows = [
        (row, statement)
        for row in entries
        if row.decision.outcome in (APPROVED, REJECTED)
        and isinstance(statement := row.decision.evidence.get("statement"), dict)
        and statement.get("request") == request.id
    ]
    return tuple(
        Answer(
            approver=str(statement.get("name")),
            outcome=row.decision.outcome,
            at=row.at,
            reason=row.decision.reason,
            via="personal link" if statement.get("via") else "own key",
        )
        for row, statement in rows
    )


def _evidence(
    store: ArtifactStore, request: Request
) -> tuple[Mapping[str, Any], Mapping[str, Any], str]:
    """What gate and report say, or why they cannot be trusted."""
    try:
        gate = json.loads((store.path(request.gate) / GATE).read_bytes())
        report = json.loads((store.path(request.report) / "report.json").read_bytes())
    except LineageError as error:
        return {}, {}, str(error)
    except (OSError, ValueError, KeyError) as error:
        return {}, {}, f"Gate or report cannot be read ({type(error).__name__})."
    return gate, report, ""


def _criteria(request: Request) -> tuple[Criterion, ...]:
    """As the request itself states them: approvers sign for its row."""
    return tuple(
        Criterion(each["name"], each["verdict"], each["detail"]) for each in request.terms.criteria
    )


def find_card(store: ArtifactStore, bundle: str) -> str:
    """The head of the model card of a registered bundle, Markdown; empty where there is none."""
    for written in sorted((store.root / PACKAGE).glob(f"*/{BUNDLE}")):
        try:
            package = store.find(PACKAGE, written.parent.name)
            if package and json.loads(written.read_bytes())["digest"] == bundle:
                return str(package.summary.get("head", ""))
        except (LineageError, OSError, ValueError, KeyError, TypeError):
            continue  # a package that cannot be read is no evidence, and not what is approved
    return ""


def _changes(champion: ReleaseBundle, candidate: ReleaseBundle) -> tuple[tuple[str, str, str], ...]:
    before, after = _settings(champion), _settings(candidate)
    names = [*before, *(name for name in after if name not in before)]
    pairs = ((name, before.get(name, "(not set)"), after.get(name, "(not set)")) for name in names)
    return tuple(each for each in pairs if each[1] != each[2])


def _settings(bundle: ReleaseBundle) -> dict[str, str]:
    """Settings that led to the adapter, as its record states them, and what the bundle names."""
    stated = json.loads(str(bundle.adapter.summary.get("settings") or "{}"))
    found = {
        f"{asset}.{name}": json.dumps(value, ensure_ascii=False)
        for asset, values in stated.items()
        for name, value in values.items()
    }
    found |= {f"generation.{name}": json.dumps(v) for name, v in bundle.generation.items()}
    return found | {
        "data": bundle.versions.data,
        "base model": bundle.base.digest[:SHORT],
        "chat template": bundle.chat_template[:SHORT],
        "prompt": bundle.prompt_digest[:SHORT],
    }
