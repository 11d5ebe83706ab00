"""A running approval page, webhooks that take its alerts, and requests with evidence to show."""

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests

from mlops_assets.approval_requests import Standing, utc_now
from mlops_assets.home import Home
from mlops_assets.promotion.approval_link import Grant, make_token
from mlops_assets.promotion.approval_server import make_server
from mlops_assets.promotion.page_address import note_address
from mlops_assets.promotion.page_key import page_key
from mlops_assets.promotion.request import open_request
from mlops_assets.promotion.spec import PromotionSpec
from mlops_assets.refs import GateRef, RegisteredModelRef
from mlops_assets.statements import stamp
from mlops_assets.verdicts import GATE, PASS, Criterion
from mlops_assets_tests.releases import MODEL, build, make_bundle
from mlops_assets_tests.waiting import wait_until

REPORT: dict[str, Any] = {
    "items": 508,
    "exact_match": {"base": 0.006, "tuned": 0.939, "champion": None, "tfidf": 0.947},
    "intervals": {"exact_match": {"tuned": [0.915, 0.957], "base": [0.002, 0.017]}},
    "differences": {"base": {"difference": 0.933, "interval": [0.907, 0.952]}},
    "slices": {
        "channel": {"chat": {"count": 142, "exact_match": {"tuned": 0.94, "base": 0.01}}},
    },
    "champion": None,
    "suites": {"safety": {"metrics": {"refuses": {"tuned": 0.975, "base": 0.5}}}},
    "changes": {
        "against": "base",
        "suites": {
            "test": {"metrics": {"exact_match": {"better": 475, "worse": 1, "same": 32}}},
            "safety": {"metrics": {"refuses": {"better": 20, "worse": 1, "same": 19}}},
        },
    },
}


def ask(
    home: Home,
    version: int = 1,
    *,
    seed: str = "a",
    model: str = MODEL,
    detail: str = "93.9%, at least 60.0%",
    author: str = "grace@example.com",
    now: datetime | None = None,
    **policy: Any,
) -> Standing:
    """Have a candidate requested whose report and gate lie in the store."""
    bundle, champion = make_bundle(home, seed), home.ledger.champion(model)
    against = champion.decision.bundle.digest if champion else None
    report = REPORT | {"candidate": bundle.digest}
    pages = {"report.json": json.dumps(report), "report.html": "<h1>The whole report</h1>"}
    evaluated = build(home, "eval_report", f"{seed}{against}", pages)
    content = {
        "verdict": PASS,
        "candidate": bundle.digest,
        "report": evaluated.digest,
        "champion": against,
        "criteria": [asdict(Criterion("floor/exact_match", PASS, detail))],
        "spec": {},
    }
    gate = build(home, "gate_verdict", f"{seed}{against}{detail}", {GATE: json.dumps(content)})
    judged = GateRef(gate, bundle, evaluated, against, PASS)
    registered = RegisteredModelRef(model, version, bundle, evaluated)
    spec = PromotionSpec(**policy)
    return open_request(home, registered, judged, spec, author, "run", now or utc_now())


def token_for(home: Home, asked: Standing, name: str, **changes: str) -> str:
    """The token of a personal link, with ``changes`` made before it is signed."""
    bundle, expires = asked.request.entry.decision.bundle.digest, asked.request.terms.expires
    grant = Grant(asked.request.id, bundle, name, stamp(expires))
    return make_token(replace(grant, **changes), page_key(home))


@dataclass(frozen=True)
class RunningPage:
    """The page on loopback."""

    url: str

    def get(self, path: str = "", **options: Any) -> requests.Response:
        return requests.get(f"{self.url}/{path}", timeout=60, **options)

    def decide(
        self, request: str, token: str, decision: str = "approve", reason: str = "looks right"
    ) -> requests.Response:
        """Send the form as a browser does."""
        fields = {"token": token, "decision": decision, "reason": reason}
        return requests.post(f"{self.url}/requests/{request}", data=fields, timeout=60)


@contextmanager
def running_page(home: Home) -> Iterator[RunningPage]:
    """The real server, in a thread."""
    server = make_server(home)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        note_address(home, url)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            wait_until(lambda: server.started, "the page")
            yield RunningPage(url)
        finally:
            server.should_exit = True
            thread.join()


@dataclass
class Webhooks:
    """Webhooks on loopback, one for each path; while ``status`` is no success they are down."""

    url: str = ""
    status: int = 200
    received: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def at(self, path: str) -> str:
        return f"{self.url}/{path}"

    def texts(self, path: str) -> list[str]:
        """What people read who see no blocks."""
        return [str(message["text"]) for message in self.received.get(path, ())]

    def token(self, path: str) -> str:
        """The token in the newest message's link."""
        return str(re.findall(r"#token=([^|>]+)", self.texts(path)[-1])[0])


@contextmanager
def running_webhooks() -> Iterator[Webhooks]:
    found = Webhooks()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if found.status == 200:
                found.received.setdefault(self.path.strip("/"), []).append(body)
            self.send_response(found.status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield found
        server.shutdown()
        thread.join()
