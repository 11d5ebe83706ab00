"""The approval page's server: shows the evidence, and takes a decision from a personal link.

A request by GET changes nothing, because chat programs and mail filters open every link they
see. A decision is a POST that carries the link's token in its body; there is no cookie, so a
foreign page has nothing to forge it with. It ends in the same function as `mlops approve`.

It listens on loopback alone; who needs it elsewhere puts a TLS proxy before it and says so in
``MLOPS_APPROVAL_URL``. It knows no Dagster.
"""

import logging
import secrets
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request as HttpRequest
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from mlops_assets.approval_requests import OPEN, Request, find_request, utc_now
from mlops_assets.approval_standing import link_of, pending, standing
from mlops_assets.approvers import read_approvers
from mlops_assets.artifacts import LineageError
from mlops_assets.file_lock import exclusive_lock
from mlops_assets.home import Home
from mlops_assets.ledger import REJECTED
from mlops_assets.promotion import approval_page
from mlops_assets.promotion.approval import Answer, approve, reject
from mlops_assets.promotion.approval_form import NOTHING, Refused, read_form, require_own_page
from mlops_assets.promotion.approval_link import REMEDY, Grant, open_token
from mlops_assets.promotion.approval_page import SHORTEST_REASON
from mlops_assets.promotion.page_address import LOOPBACK, note_address, public_url
from mlops_assets.promotion.page_key import page_key
from mlops_assets.promotion.request_view import RequestView, view_request
from mlops_assets.signing import public_key
from mlops_assets.statements import APPROVE, MAX_REASON, REJECT

if TYPE_CHECKING:
    import uvicorn
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

logger = logging.getLogger(__name__)

MOST_CONNECTIONS = 64
HEADERS = {
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
POLICY = "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
REPORT_POLICY = (
    "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'none';"
    " style-src 'unsafe-inline'; sandbox"
)


def make_app(home: Home) -> Starlette:
    """The application over a home."""
    page = Page(home)
    hosts = [*LOOPBACK, "[::1]"]
    if (public := public_url()) is not None:
        hosts.append(str(urlsplit(public).hostname))
    return Starlette(
        routes=[
            Route("/", page.index),
            Route("/requests/{request_id}", page.show, methods=["GET"]),
            Route("/requests/{request_id}", page.decide, methods=["POST"]),
            Route("/requests/{request_id}/report", page.report),
        ],
        # Another name for this address may be a foreign page that wants to read ours.
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)],
        exception_handlers={
            Refused: _refused,
            LineageError: _failed,
            HTTPException: _http_error,
        },
    )


class Page:
    """The routes over a home. What they read and decide runs in threads: it reads files."""

    def __init__(self, home: Home) -> None:
        self.home = home

    async def index(self, _: HttpRequest) -> Response:
        """What waits, for people at this machine; behind a proxy nobody is told."""
        if public_url() is not None:
            raise Refused(404, "Approvals", "Open the link in your alert.")
        views = await run_in_threadpool(self._waiting)
        return _page(lambda nonce: approval_page.render_index(nonce, views))

    async def show(self, http: HttpRequest) -> Response:
        """A request's evidence, and the form for whoever came by a personal link."""
        view = await run_in_threadpool(self._view, http.path_params["request_id"])
        report = None if view.problem else f"{view.id}/report"
        return _page(lambda nonce: approval_page.render_request(view, nonce, report))

    async def report(self, http: HttpRequest) -> Response:
        """The whole evaluation report, in a sandbox of its own."""
        html = await run_in_threadpool(self._report, http.path_params["request_id"])
        return HTMLResponse(html, headers=HEADERS | {"content-security-policy": REPORT_POLICY})

    async def decide(self, http: HttpRequest) -> Response:
        """Approve or reject, once for each personal link."""
        require_own_page(http)
        fields = await read_form(http)
        wanted = http.path_params["request_id"]
        answer = await run_in_threadpool(self._decide, wanted, fields)
        title, text = _outcome(answer)
        logger.info("%s", text)
        return _page(lambda nonce: approval_page.render_notice(nonce, title, text, "good", wanted))

    def _waiting(self) -> list[RequestView]:
        now, entries = utc_now(), self.home.ledger.entries()
        found = pending(entries, read_approvers(self.home), now)
        return [view_request(self.home.store, entries, each, now) for each in found]

    def _view(self, wanted: str) -> RequestView:
        now, request = utc_now(), self._find(wanted)
        entries = self.home.ledger.entries()
        found = standing(entries, request, read_approvers(self.home), now)
        return view_request(self.home.store, entries, found, now)

    def _report(self, wanted: str) -> str:
        directory = self.home.store.path(self._find(wanted).report)
        return (directory / "report.html").read_text(encoding="utf-8")

    def _find(self, wanted: str) -> Request:
        if (request := find_request(self.home.ledger.entries(), wanted)) is None:
            raise Refused(404, "No such request", "The ledger knows no request of this address.")
        return request

    def _decide(self, wanted: str, fields: dict[str, str]) -> Answer:
        key = page_key(self.home)
        grant = _granted(fields.get("token", ""), public_key(key), wanted)
        action, reason = fields.get("decision"), fields.get("reason", "").strip()
        if action not in (APPROVE, REJECT):
            raise Refused(400, NOTHING, "Choose to approve or to reject.")
        if not SHORTEST_REASON <= len(reason) <= MAX_REASON:
            raise Refused(
                400,
                NOTHING,
                f"Write a reason of {SHORTEST_REASON} to {MAX_REASON:,} characters, then decide"
                " again: your link still works.",
            )
        with _one_at_a_time(self.home):
            return self._answer(grant, action, reason, key)

    def _answer(self, grant: Grant, action: str, reason: str, key: "Ed25519PrivateKey") -> Answer:
        act = approve if action == APPROVE else reject
        request, used = self._find(grant.request), self._is_used(grant)
        asked = request.entry.decision
        if grant.bundle != asked.bundle.digest:
            raise Refused(403, NOTHING, f"This link is for another release. {REMEDY}")
        try:
            return act(
                self.home,
                asked.version,
                grant.approver,
                reason,
                key,
                model=asked.model,
                request=request.id,
                via=grant.id,
            )
        except LineageError as error:
            # The answer may stand and only what follows it have failed: MLflow, say.
            title = "Taken, but not complete" if not used and self._is_used(grant) else NOTHING
            raise Refused(409, title, str(error)) from error

    def _is_used(self, grant: Grant) -> bool:
        return any(link_of(row) == grant.id for row in self.home.ledger.entries())


def serve(home: Home, port: int) -> None:
    """Serve the page on loopback until Ctrl-C or SIGTERM. Port 0 takes any that is free.

    Raises LineageError when the port is taken or the page's public address cannot be used.
    """
    home.prepare()
    server = make_server(home)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            raise LineageError(
                f"Port {port} for the approval page is taken.",
                "Stop the program that uses it, or choose another with --port.",
            ) from error
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        note_address(home, url)
        logger.info("approval page: %s", public_url() or url)
        server.run(sockets=[listener])


def make_server(home: Home) -> "uvicorn.Server":
    """The server of the page, not yet running."""
    import uvicorn

    config = uvicorn.Config(
        make_app(home),
        access_log=False,  # it would keep who looked at what, and nobody needs it
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=5,
    )
    return uvicorn.Server(config)


def _granted(token: str, public: str, wanted: str) -> Grant:
    if not token:
        raise Refused(403, NOTHING, f"This link only shows the evidence. {REMEDY}")
    try:
        grant = open_token(token, public, utc_now())
    except LineageError as error:
        raise Refused(403, NOTHING, str(error)) from None
    if grant.request != wanted:
        raise Refused(403, NOTHING, f"This link is for another request. {REMEDY}")
    return grant


def _outcome(answer: Answer) -> tuple[str, str]:
    said = answer.entry.decision
    name = f"{said.model} version {said.version}"
    if answer.promoted is not None:
        return "Approved", f"{name} has all its approvals and is now the champion."
    if said.outcome == REJECTED:
        return "Rejected", f"{name} stays what it is: the request is closed."
    if answer.standing.state != OPEN:
        return "Taken, but too late", f"{name} is not promoted: {answer.standing.reason}."
    return "Approved", f"{name} has your approval and waits for {answer.standing.missing} more."


def _one_at_a_time(home: Home) -> AbstractContextManager[None]:
    """Two clicks on one link come one after the other, and the second finds it used."""
    return exclusive_lock(home.root / "approval_decisions.lock")


def _page(render: Callable[[str], str], status: int = 200) -> Response:
    nonce = secrets.token_urlsafe(16)
    policy = f"{POLICY}; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'"
    return HTMLResponse(render(nonce), status, HEADERS | {"content-security-policy": policy})


async def _refused(_: HttpRequest, error: Exception) -> Response:
    title, status = (error.title, error.status) if isinstance(error, Refused) else (NOTHING, 400)
    return _notice(title, str(error), status)


async def _failed(http: HttpRequest, error: Exception) -> Response:
    """What the approval itself refuses, or the home cannot do, with its reason."""
    return _notice(NOTHING if http.method == "POST" else "This cannot be shown", str(error), 409)


async def _http_error(_: HttpRequest, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 400
    return _notice("There is no such page", "Open the link in your alert.", status)


def _notice(title: str, text: str, status: int) -> Response:
    return _page(lambda nonce: approval_page.render_notice(nonce, title, text, "bad"), status)
