"""Signed links: who may decide on which request with them, and until when.

A link's token is its grant as JSON and a signature of the page's own key over it. We sign with
an Ed25519 key and not with a shared secret because the same key signs what the link's owner
decides: whoever audits the ledger needs the public half alone, and can forge nothing with it.

A grant names one approver, one request and one bundle, and ends with the request. What is
signed begins with a purpose, so that no other signature of the key is a token. A grant has no
random part: an alert that is sent again holds the same link, not a second one.
"""

import base64
import binascii
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from mlops_assets.artifacts import LineageError, canonical_json, digest_json
from mlops_assets.signing import sign, signed_by

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PURPOSE = b"mlops-assets approval link 1\n"
LONGEST_TOKEN = 2_000  # characters; ours have about 500
REMEDY = "Open the link in your own alert again, or use `mlops approve`."


@dataclass(frozen=True)
class Grant:
    """What a link allows."""

    request: str
    """Id of the request: a hash of all that was asked."""
    bundle: str
    """Digest of the release bundle."""
    approver: str
    """Who decides."""
    expires: str
    """When the request does: ISO 8601 in UTC."""

    @property
    def id(self) -> str:
        """Names the grant, 64 hex digits; it is no secret."""
        return digest_json(asdict(self))


def make_token(grant: Grant, key: "Ed25519PrivateKey") -> str:
    """The token of a grant, in letters that a URL takes as they are."""
    content = canonical_json(asdict(grant))
    signature = base64.b64decode(sign(key, PURPOSE + content))
    return f"{_encode(content)}.{_encode(signature)}"


def open_token(token: str, public_key: str, now: datetime) -> Grant:
    """The grant of a token. Raises LineageError when it is not ours, was altered, or expired."""
    try:
        grant = _verified(token, public_key)
        expires = datetime.fromisoformat(grant.expires)
    except (ValueError, binascii.Error, ValidationError):
        # One sentence for every fault: it teaches a forger nothing, and quotes no token.
        raise LineageError(
            "This link was altered, is incomplete, or was not made by this service.", REMEDY
        ) from None
    if now >= expires:
        raise LineageError(
            f"This link expired at {grant.expires}, as its request did.",
            "Run the job `retrain` to have the candidate judged and requested again.",
        )
    return grant


def _verified(token: str, public_key: str) -> Grant:
    if len(token) > LONGEST_TOKEN:
        raise ValueError("too long")
    content, signature = (_decode(part) for part in token.split("."))
    if not signed_by(public_key, base64.b64encode(signature).decode(), PURPOSE + content):
        raise ValueError("not signed by this key")
    found: Grant = TypeAdapter(Grant).validate_json(content, strict=True)
    return found


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    data = base64.b64decode(text.encode() + b"=" * (-len(text) % 4), b"-_", validate=True)
    if _encode(data) != text:
        raise ValueError("not in the form in which we write it")
    return data
