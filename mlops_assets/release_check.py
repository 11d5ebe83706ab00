"""Whether a release is still, byte for byte and word for word, what was approved.

Before a promotion, in `mlops status` and before serving: the files of base model, chat
template, adapter and prompt are hashed again, the bundle of the ledger's row must be the one
whose digest was signed, and the signatures must be of approvers who are on the list now. One
changed byte anywhere makes the approval void. A step of a release and a rollback have the
approvals of the promotion that they are about; without one they have none.
"""

from collections.abc import Sequence
from pathlib import Path

from mlops_assets.approval_requests import Request, Standing, find_request, utc_now
from mlops_assets.approval_standing import standing
from mlops_assets.approvers import Approvers, read_approvers
from mlops_assets.artifacts import SHORT, Artifact, LineageError, digest_file, digest_json
from mlops_assets.home import Home
from mlops_assets.ledger import PROMOTED, REQUESTED, ROLLED_BACK, LedgerEntry
from mlops_assets.release_state import STEPS, released_by
from mlops_assets.rollback_statement import find_flaw
from mlops_assets.verdicts import PASS, load_gate

TEMPLATE_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
CRITERION = ("name", "verdict", "detail")
"""What a request says of each criterion."""
REMEDY = "Bring back what was approved, or have the release requested and approved anew."


def template_digest(base: Path) -> str:
    """SHA-256 over the files that turn a conversation into tokens."""
    present = [base / name for name in TEMPLATE_FILES if (base / name).is_file()]
    return digest_json({path.name: digest_file(path) for path in present})


def verify_release(
    home: Home, entry: LedgerEntry, entries: Sequence[LedgerEntry] | None = None
) -> tuple[str, ...]:
    """Verify the release of a row that requests, promotes, releases or rolls back; returns who
    approved it.

    Nobody has to have approved what is only requested yet, nor what was promoted before there
    were approvals. ``entries`` is a copy of the ledger, for where it cannot be read. Raises
    LineageError that says what changed.
    """
    name = f"{entry.decision.model} version {entry.decision.version}"
    try:
        verify_bundle(home, entry)
        if entry.decision.outcome == REQUESTED:
            verify_evidence(home, Request.of(entry))
        known = home.ledger.entries() if entries is None else entries
        return verify_approvals(known, entry, read_approvers(home))
    except LineageError as error:
        raise LineageError(f"The approval of {name} is void: {error.problem}", REMEDY) from error


def find_void(home: Home, entry: LedgerEntry) -> str | None:
    """What changed since the release was approved; None if nothing did."""
    try:
        verify_release(home, entry)
    except LineageError as error:
        return error.problem.partition(" is void: ")[2]
    return None


def verify_bundle(home: Home, entry: LedgerEntry) -> None:
    """The bytes on disk, and the bundle in the row, are what the digest says."""
    bundle = entry.decision.bundle
    if entry.computed != (entry.hash or entry.computed):
        raise _void(f"ledger entry {entry.entry} was changed after it was written.")
    if bundle.digest != entry.bundle_digest:
        raise _void(f"the bundle of ledger entry {entry.entry} was changed.")
    base = home.store.path(bundle.base)
    home.store.path(bundle.adapter)
    if isinstance(bundle.prompt, Artifact):
        home.store.path(bundle.prompt)
    if template_digest(base) != bundle.chat_template:
        raise _void("tokenizer or chat template are not those that were approved.")


def verify_evidence(home: Home, request: Request) -> None:
    """What people are shown is what the gate judged: report and gate, which passed this bundle."""
    home.store.path(request.report)
    gate, asked = load_gate(home.store, request.gate), request.entry.decision
    judged = (gate.verdict, gate.candidate, gate.report)
    if judged != (PASS, asked.bundle.digest, request.report.digest):
        raise _void(f"the gate that ledger entry {request.entry.entry} names did not pass it.")
    shown = [{name: vars(each)[name] for name in CRITERION} for each in gate.criteria]
    if shown != list(request.terms.criteria):
        raise _void(f"ledger entry {request.entry.entry} shows other criteria than the gate's.")


def verify_approvals(
    entries: Sequence[LedgerEntry], entry: LedgerEntry, approvers: Approvers
) -> tuple[str, ...]:
    """The names of those who approved. Raises LineageError when the signatures do not suffice."""
    if entry.decision.outcome in STEPS:
        promotion = released_by(entries, entry)
        if entry.decision.outcome == ROLLED_BACK and (flaw := find_flaw(entries, entry, approvers)):
            raise _void(f"ledger entry {entry.entry}: {flaw}.")
        return verify_approvals(entries, promotion, approvers)
    if entry.decision.outcome != PROMOTED:
        return ()
    if precedes_approvals(entries, entry):
        return ()
    request = find_request(entries, str(entry.decision.evidence.get("request")))
    if request is None:
        raise _void(f"ledger entry {entry.entry} promotes what nobody was asked about.")
    return _signatories(entry, request, standing(entries, request, approvers, utc_now()))


def _signatories(entry: LedgerEntry, request: Request, found: Standing) -> tuple[str, ...]:
    asked, decided = request.entry.decision, entry.decision
    wanted = (asked.model, asked.version, asked.bundle.digest, request.terms.replaces)
    if wanted != (decided.model, decided.version, decided.bundle.digest, decided.replaces):
        raise _void(f"ledger entry {entry.entry} promotes something else than was requested.")
    if found.missing:
        why = f" ({'; '.join(found.invalid)})" if found.invalid else ""
        raise _void(
            f"{len(found.approvals)} of {request.required} approvals of request"
            f" {request.id[:SHORT]} are valid{why}."
        )
    return tuple(approval.name for approval in found.approvals)


def precedes_approvals(entries: Sequence[LedgerEntry], entry: LedgerEntry) -> bool:
    """Whether a promotion was written before there were approvals: nobody can have signed it."""
    earlier = (row for row in entries if row.entry <= entry.entry)
    asked = any(row.chained or row.decision.outcome == REQUESTED for row in earlier)
    return not asked and "request" not in entry.decision.evidence


def _void(problem: str) -> LineageError:
    return LineageError(problem, REMEDY)
