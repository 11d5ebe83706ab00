"""Where people reach the approval page: behind a TLS proxy, or on this machine.

``MLOPS_APPROVAL_URL`` is the address that the proxy gives it. Without one it is the loopback
address of the server that was started last in this home.
"""

import json
import logging
import os
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from mlops_assets.artifacts import LineageError, atomic_write
from mlops_assets.home import Home

logger = logging.getLogger(__name__)

VARIABLE = "MLOPS_APPROVAL_URL"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def public_url() -> str | None:
    """The address behind the proxy, without a slash at its end; None where none is set.

    Raises LineageError unless it is https (or on loopback): a link's token must not travel in
    the clear.
    """
    given = os.environ.get(VARIABLE, "").strip().rstrip("/")
    if not given:
        return None
    try:
        parts = urlsplit(given)
        usable = (
            travels_safely(parts) and bool(parts.hostname) and not (parts.query or parts.fragment)
        )
    except ValueError:
        usable = False
    if not usable or parts.username or any(letter in given for letter in "<>|\"' \\"):
        raise LineageError(
            f"{VARIABLE} is not the https address of a page.",
            "Set it to what the TLS proxy in front of `mlops approvals` is reached by, such as"
            " https://approvals.example.com.",
        )
    return given


def travels_safely(address: SplitResult) -> bool:
    """Whether what is sent there is encrypted, or stays on this machine."""
    on_loopback = address.scheme == "http" and address.hostname in LOOPBACK
    return address.scheme == "https" or on_loopback


def note_address(home: Home, url: str) -> None:
    """Remember where the server of this home listens."""
    with atomic_write(_file(home)) as temporary:
        temporary.touch(mode=0o600)
        temporary.write_text(json.dumps({"url": url}), encoding="utf-8")


def page_url(home: Home) -> str | None:
    """Where the page is reached; None as long as no server was started and no address is set."""
    if (public := public_url()) is not None:
        return public
    try:
        return str(json.loads(_file(home).read_bytes())["url"])
    except FileNotFoundError:
        return None


def request_url(base: str, request: str) -> str:
    """The address that shows a request's evidence, and decides nothing."""
    return f"{base}/requests/{request}"


def evidence_url(home: Home, request: str) -> str | None:
    """The same, None where the page's address is not known or cannot be used."""
    try:
        base = page_url(home)
    except LineageError as error:
        logger.warning("%s", error)
        return None
    return request_url(base, request) if base else None


def _file(home: Home) -> Path:
    return home.root / "approval_page.json"
