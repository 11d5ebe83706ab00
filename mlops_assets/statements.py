"""What an approver signs: one answer to one request, about one bundle, valid for a short time.

The signature covers every field below, and through ``request`` all that the request says
(evidence, champion, policy, expiry). A statement that was altered, made for another request,
made too early or too late, or signed by somebody else is refused, and the refusal says why.
"""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from unicodedata import category

from pydantic import TypeAdapter, ValidationError

from mlops_assets.approvers import Approvers
from mlops_assets.artifacts import SHORT, canonical_json, digest_json
from mlops_assets.signing import sign, signed_by

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

APPROVE, REJECT = "approve", "reject"
PURPOSE = b"mlops-assets approval 1\n"  # a signature made for something else is none here
LIFETIME = timedelta(minutes=15)
"""How long a statement may be on its way between its signature and the ledger."""
CLOCK_SKEW = timedelta(minutes=2)
"""How far an approver's clock may be ahead of ours."""
MAX_REASON = 2_000
UNSEEN = {"Cc", "Cs"}
"""Unicode categories that no reason may hold, tabs and line breaks apart."""
TURNING = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""What changes the direction of the text that follows."""


@dataclass(frozen=True)
class Statement:
    """What somebody says of a request."""

    action: str
    """``approve`` or ``reject``."""
    request: str
    """Id of the request that it answers: a hash of all that was asked."""
    model: str
    version: int
    bundle: str
    """Digest of the release bundle that the answer is about."""
    name: str
    reason: str
    at: str
    """When it was signed, ISO 8601 in UTC."""
    via: str = ""
    """Empty for the approver's own key; else the grant of the link by which they decided, and
    the key of the page that honours links has signed."""

    @property
    def message(self) -> bytes:
        """The bytes that are signed."""
        return PURPOSE + canonical_json(asdict(self))


@dataclass(frozen=True)
class SignedStatement:
    """A statement and its signature in base64."""

    statement: Statement
    signature: str

    @property
    def digest(self) -> str:
        """Names the statement, whatever its signature: the same one again is a replay."""
        return digest_json(asdict(self.statement))

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def signed(statement: Statement, key: "Ed25519PrivateKey") -> SignedStatement:
    """The statement with its signature."""
    return SignedStatement(statement, sign(key, statement.message))


def parse(content: object) -> SignedStatement | None:
    """The inverse of ``as_json``; None for anything else."""
    try:
        found: SignedStatement = _ADAPTER.validate_json(canonical_json(content), strict=True)
    except (ValidationError, ValueError, TypeError):
        return None
    return found


_ADAPTER = TypeAdapter(SignedStatement)


def stamp(moment: datetime) -> str:
    """ISO 8601 in UTC, to the second."""
    return moment.astimezone(UTC).isoformat(timespec="seconds")


def moment(text: str) -> datetime | None:
    """The inverse of ``stamp``; None unless it says its offset from UTC."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else None


def find_forgery(found: SignedStatement, approvers: Approvers, taken: datetime) -> str | None:
    """Why this is not what an approver on the list has signed; None if it is.

    ``taken`` is when it reached us, or when the ledger took it.
    """
    said = found.statement
    if (approver := approvers.find(said.name)) is None:
        return f"{said.name} is not on the list of approvers"
    public = approvers.link_key if said.via else approver.public_key
    if public is None:
        return "the list of approvers has no link_key: decisions by link do not count"
    if not signed_by(public, found.signature, said.message):
        whose = "the approval page" if said.via else said.name
        return (
            f"the signature is not that of {whose} over these words (another key, or name, reason,"
            " time, request or bundle was altered)"
        )
    if approver.until and taken >= approver.until:
        return f"{said.name} is an approver until {stamp(approver.until)} only"
    return None


def find_mismatch(said: Statement, asked: Statement) -> str | None:
    """Why the statement does not answer what is asked; None if it does.

    ``asked`` is what a statement about the open request would say.
    """
    if said.action not in (APPROVE, REJECT):
        return f"{said.action!r} is neither approve nor reject"
    if (said.model, said.version) != (asked.model, asked.version):
        return f"it was made for version {said.version} of {said.model}"
    if said.bundle != asked.bundle:
        return f"it is over another digest ({said.bundle[:SHORT]}, not {asked.bundle[:SHORT]})"
    if said.request != asked.request:
        return f"it answers another request ({said.request[:SHORT]}, not {asked.request[:SHORT]})"
    return find_unreadable(said.reason)


def find_unreadable(reason: str) -> str | None:
    """Why this is no reason that can be signed and shown; None if it is one."""
    if not reason.strip():
        return "it gives no reason"
    if len(reason) > MAX_REASON:
        return f"its reason has more than {MAX_REASON:,} characters"
    letters = set(reason) - set("\t\r\n")
    if any(letter in TURNING or category(letter) in UNSEEN for letter in letters):
        return "its reason holds control characters, which show as something else or not at all"
    return None


def find_untimely(said: Statement, now: datetime) -> str | None:
    """Why the statement comes too early or too late; None if it comes in time."""
    if (at := moment(said.at)) is None:
        return f"{said.at!r} is no time in UTC"
    if at > now + CLOCK_SKEW:
        return f"it is not valid before {stamp(at)}"
    if at + LIFETIME < now:
        return f"it was valid until {stamp(at + LIFETIME)}"
    return None
