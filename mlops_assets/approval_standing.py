"""What the ledger's rows add up to for a request: who has approved, and does it still stand.

Nothing here is remembered: every look goes through the rows, and every signature is verified
against the list of approvers as it is now. A row whose words are not those that were signed
counts for nothing, and is named.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from mlops_assets.approval_requests import (
    EXPIRED,
    OPEN,
    OUTDATED,
    SUPERSEDED,
    Approval,
    Request,
    Standing,
)
from mlops_assets.approvers import Approvers
from mlops_assets.ledger import (
    APPROVED,
    PROMOTED,
    REJECTED,
    REQUESTED,
    LedgerEntry,
    last_champion,
)
from mlops_assets.statements import (
    APPROVE,
    REJECT,
    SignedStatement,
    find_forgery,
    find_mismatch,
    find_untimely,
    parse,
    stamp,
)

ACTIONS = {APPROVE: APPROVED, REJECT: REJECTED}
"""Outcome of the row that an action becomes."""
EVIDENCE = ("statement", "signature")
"""What the row of an answer keeps as its evidence."""


def standing(
    entries: Sequence[LedgerEntry], request: Request, approvers: Approvers, now: datetime
) -> Standing:
    """Where a request stands, every signature verified again."""
    answers = [row for row in entries if _answers(row, request)]
    approvals, invalid = _count(answers, request, approvers)
    state, reason = _state(entries, answers, request, now)
    return Standing(request, state, reason, approvals, invalid)


def pending(entries: Sequence[LedgerEntry], approvers: Approvers, now: datetime) -> list[Standing]:
    """Every request that waits for somebody, oldest first."""
    asked = [Request.of(row) for row in entries if row.decision.outcome == REQUESTED]
    found = [standing(entries, request, approvers, now) for request in asked]
    return [each for each in found if each.state == OPEN]


def find_invalid(
    entries: Sequence[LedgerEntry], approvers: Approvers, now: datetime
) -> Iterator[str]:
    """Every answer on the ledger that does not count, and why."""
    answered = set()
    for row in entries:
        if row.decision.outcome == REQUESTED:
            request = Request.of(row)
            yield from standing(entries, request, approvers, now).invalid
            answered |= {answer.entry for answer in entries if _answers(answer, request)}
    for row in entries:
        if row.decision.outcome in ACTIONS.values() and row.entry not in answered:
            yield f"ledger entry {row.entry}: it answers no request that stands on the ledger"


def why_refused(
    entries: Sequence[LedgerEntry],
    found: Standing,
    answer: SignedStatement,
    approvers: Approvers,
    now: datetime,
) -> str | None:
    """Why this answer to the request is not taken; None if it is."""
    said, request = answer.statement, found.request
    if any(row.decision.key == answer.digest for row in entries):
        return "this very statement stands on the ledger already (replayed)"
    if used := next((row for row in entries if said.via and link_of(row) == said.via), None):
        return f"this link was used at {used.at} (ledger entry {used.entry}) and works once"
    if found.state != OPEN:
        return found.reason
    if reason := _flaw(answer, request, approvers, now):
        return reason
    if said.action == REJECT:
        return None
    if any(approval.name == said.name for approval in found.approvals):
        return f"{said.name} has approved this request already"
    if _is_machine(said.name, approvers) and any(each.automatic for each in found.approvals):
        return "another machine's key has approved this request already, and they count once"
    names = {said.name, *(approval.name for approval in found.approvals)}
    if _author_alone(names, request, approvers):
        return (
            f"{said.name} made this change, and {request.required} approvals are required:"
            " somebody else has to approve first"
        )
    return None


def link_of(row: LedgerEntry) -> str:
    """The grant of the link by which an answer came; empty for any other row."""
    written = row.decision.evidence.get("statement")
    return str(written.get("via") or "") if isinstance(written, dict) else ""


def _answers(row: LedgerEntry, request: Request) -> bool:
    """Whether a row claims to answer this request, whatever its outcome now says."""
    written = row.decision.evidence.get("statement")
    return (
        row.decision.outcome in (APPROVED, REJECTED)
        and isinstance(written, dict)
        and written.get("request") == request.id
    )


def _count(
    answers: Sequence[LedgerEntry], request: Request, approvers: Approvers
) -> tuple[tuple[Approval, ...], tuple[str, ...]]:
    """The approvals that count, one for each person, and what does not."""
    found: dict[str, Approval] = {}
    invalid: list[str] = []
    for row in answers:
        answer = parse({name: row.decision.evidence.get(name) for name in EVIDENCE})
        taken = datetime.fromisoformat(row.at)
        if answer is None:
            invalid.append(f"ledger entry {row.entry}: it cannot be read")
        elif flaw := _flaw(answer, request, approvers, taken) or _written_otherwise(row, answer):
            invalid.append(f"ledger entry {row.entry}: {flaw}")
        elif answer.statement.action == APPROVE:
            said, machine = answer.statement, _is_machine(answer.statement.name, approvers)
            if machine and any(each.automatic for each in found.values()):
                continue  # machines count once, however many there are
            approval = Approval(said.name, said.reason, row.at, machine, answer.digest)
            found.setdefault(said.name, approval)
    if _author_alone(found.keys(), request, approvers):
        invalid.append("the author's approval counts beside somebody else's only")
        found = {}
    return tuple(found.values()), tuple(invalid)


def _written_otherwise(row: LedgerEntry, answer: SignedStatement) -> str | None:
    """Whether the row's columns say something else than what was signed."""
    said, decided = answer.statement, row.decision
    pairs = {
        "outcome": (decided.outcome, ACTIONS.get(said.action)),
        "reason": (decided.reason, said.reason),
        "model": (decided.model, said.model),
        "version": (decided.version, said.version),
        "bundle": (decided.bundle.digest, said.bundle),
        "bundle digest": (row.bundle_digest, said.bundle),
        "key": (decided.key, answer.digest),
    }
    changed = [name for name, (written, meant) in pairs.items() if written != meant]
    return f"its {', '.join(changed)} is not what was signed" if changed else None


def _flaw(
    answer: SignedStatement, request: Request, approvers: Approvers, taken: datetime
) -> str | None:
    """What is wrong with an answer that was taken, or comes, at this moment."""
    said = answer.statement
    asked = request.statement(said.action, said.name, said.reason, taken)
    if reason := find_mismatch(said, asked) or find_forgery(answer, approvers, taken):
        return reason
    if reason := find_untimely(said, taken):
        return reason
    if taken >= request.terms.expires:
        return f"the request expired at {stamp(request.terms.expires)}"
    allowed, approver = request.terms.policy.approvers, approvers.find(said.name)
    if approver is not None and approver.automatic and not request.automatic:
        return f"{said.name} is a machine's key, and this release needs a person"
    if allowed and said.name not in allowed and not (approver and approver.automatic):
        return f"{said.name} may not approve this model, only {', '.join(allowed)}"
    return None


def _author_alone(names: Iterable[str], request: Request, approvers: Approvers) -> bool:
    """Whether nobody but the author has approved: a machine is not somebody else."""
    author = approvers.of_author(request.terms.author)
    people = {name for name in names if not _is_machine(name, approvers)}
    return request.required > 1 and author is not None and people == {author}


def _is_machine(name: str, approvers: Approvers) -> bool:
    found = approvers.find(name)
    return found is not None and found.automatic


def _state(
    entries: Sequence[LedgerEntry], answers: Sequence[LedgerEntry], request: Request, now: datetime
) -> tuple[str, str]:
    """The state of a request and, unless it is open, why."""
    asked = request.entry.decision
    ours = [row for row in entries if row.decision.model == asked.model]
    for row in ours:
        if row.decision.outcome == PROMOTED and row.decision.evidence.get("request") == request.id:
            return PROMOTED, f"it was promoted at {row.at} already"
    # A rejection closes whatever its signature is worth now: doubt never promotes.
    for row in answers:
        if row.decision.outcome == REJECTED:
            who = row.decision.evidence["statement"].get("name")
            return REJECTED, f"{who} rejected it at {row.at}: {row.decision.reason}"
    later = [row for row in ours if row.entry > request.entry.entry]
    if any(
        (row.decision.outcome, row.decision.version) == (REQUESTED, asked.version) for row in later
    ):
        return SUPERSEDED, "a later request has taken its place"
    champion = last_champion(ours)
    if (champion.entry if champion else 0) != request.terms.replaces:
        since = f"version {champion.decision.version}" if champion else "none"
        return OUTDATED, (
            f"the champion changed meanwhile (now {since}): the newest candidate is evaluated"
            " against it by itself (sensor `champion_changed`, job `reevaluate`)"
        )
    if now >= request.terms.expires:
        return EXPIRED, f"the request expired at {stamp(request.terms.expires)}"
    return OPEN, ""
