"""What one gateway is made of, and what every route of it does the same way.

It keeps no state that the log, the ledger and the files in its directory do not hold.
"""

import asyncio
import hmac
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from functools import partial
from typing import Any

from mlops_assets.artifacts import SHORT
from mlops_assets.request_record import RequestRecord
from mlops_assets.serving.accounting.budgets import Budgets
from mlops_assets.serving.accounting.prices import cost
from mlops_assets.serving.accounting.usage_ledger import usage_ledger
from mlops_assets.serving.caching.cache import AnswerCache
from mlops_assets.serving.gateway.access_log import LINE, make_access_log
from mlops_assets.serving.gateway.api_keys import ApiKey, KeyRing
from mlops_assets.serving.gateway.call import Call
from mlops_assets.serving.gateway.limits import Admission, KeyLimits
from mlops_assets.serving.gateway.refusal import AUTHENTICATION, PERMISSION, Refusal, unavailable
from mlops_assets.serving.gateway.relay import Relay
from mlops_assets.serving.gateway.server_metrics import ServerMetrics
from mlops_assets.serving.gateway.tracing import make_tracing
from mlops_assets.serving.gateway_spec import GatewaySpec
from mlops_assets.serving.records.feedback import Feedback
from mlops_assets.serving.records.request_log import LogFailed, SegmentLog
from mlops_assets.serving.serving_home import ServingHome
from mlops_assets.serving.traffic.route import Routes
from mlops_assets.serving.traffic.shadow import Shadow

logger = logging.getLogger(__name__)


class Gateway:
    """Everything that the routes use. To be made inside the event loop."""

    def __init__(
        self,
        files: ServingHome,
        spec: GatewaySpec,
        model: str,
        routes: Routes,
        describe: Callable[[], Mapping[str, Any]] = dict,
        shadow_tokens_per_day: int = 0,
    ) -> None:
        """``describe`` says for ``/health`` what is served; mirrored requests may use so many
        tokens a day. Raises LineageError when a log cannot be written."""
        self.spec = spec
        self.model = model
        self.routes = routes
        self.describe = describe
        self.keys = KeyRing(files.keys)
        self.limits = KeyLimits()
        self.admission = Admission(
            spec.maximum_in_flight, spec.maximum_waiting, spec.waiting_timeout
        )
        segment = spec.log_segment_mib * 1024**2
        self.log = SegmentLog(files.requests, segment)
        self.feedback = SegmentLog(files.feedback, segment)
        self.metrics = ServerMetrics()
        self.metrics.in_flight.set_function(lambda: self.admission.in_flight)
        self.metrics.waiting.set_function(lambda: self.admission.waiting)
        self.budgets = Budgets(usage_ledger(files), spec)
        self.metrics.state.budgets = partial(self.budgets.shares, "key")
        self._price = partial(cost, spec)
        self.cache = AnswerCache(spec)
        self.tracing = make_tracing()
        self.access_log = make_access_log()
        self.relay = Relay(spec)
        self.draining = False
        self.details: Callable[[], Mapping[str, Any]] = dict
        """Says for ``/admin/state`` what ``describe`` leaves out."""
        self.track: Callable[[str], AbstractContextManager[None]] = lambda _: nullcontext()
        """Counts a request as under way at the engine of a release."""
        self.started = time.time()
        self.instance = secrets.token_hex(8)
        """Tells this process from another that listens on its address later."""
        self._salt = files.salt()
        self.votes = Feedback(self.feedback, files.requests, spec, self.hash_user)
        self.shadow = Shadow(files.root, spec, shadow_tokens_per_day, self._has_room)
        self.metrics.observe_shadow(self.shadow.counts)

    def authenticate(self, authorization: bytes, scope: str) -> ApiKey:
        """The key of an ``Authorization`` header. Raises Refusal (401, 403)."""
        kind, _, token = authorization.partition(b" ")
        key = self.keys.find(token.strip().decode("latin-1")) if kind.lower() == b"bearer" else None
        if key is None:
            raise Refusal(
                401,
                AUTHENTICATION,
                "No valid API key was sent: Authorization: Bearer KEY.",
                code="invalid_api_key",
            )
        if scope not in key.scopes:
            raise Refusal(
                403,
                PERMISSION,
                f"The key {key.name!r} lacks the scope {scope!r}.",
                code="missing_scope",
            )
        return key

    def health(self) -> dict[str, Any]:
        """What is served. ``status`` is ``ok``, ``stopping``, or ``unavailable``."""
        told = dict(self.describe())
        status = "stopping" if self.draining else told.pop("status", "ok")
        own = {"status": status, "model": self.model, "config": self.spec.digest}
        own["instance"] = self.instance
        return {**own, **told, "in_flight": self.admission.in_flight}

    def state(self) -> dict[str, Any]:
        """``health``, and what only who runs the gateway may know."""
        segment, size = self.log.position
        return {
            **self.health(),
            **self.details(),
            "waiting": self.admission.waiting,
            "keys": self.keys.states(),
            "request_log": {"segment": segment, "bytes": size},
            "settings": self.spec.model_dump(mode="json"),
        }

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Until the block ends: sync the logs, count the budgets. Then let go of everything.

        Raises LineageError when the budget ledger cannot be used.
        """
        syncing = asyncio.create_task(self._keep_synced(), name="log-sync")
        try:
            await self.budgets.start()
            self.cache.start()
            yield
        finally:
            syncing.cancel()
            with suppress(asyncio.CancelledError):
                await syncing
            await self.shadow.close()
            await self.relay.close()
            self.log.close()
            self.feedback.close()
            await self.budgets.close()
            self.cache.close()
            self.tracing.close()

    async def _keep_synced(self) -> None:
        while True:
            await asyncio.sleep(self.spec.log_sync_interval)
            for log in (self.log, self.feedback):
                try:
                    await asyncio.to_thread(log.sync)
                except LogFailed as error:
                    self.metrics.log_errors.inc()
                    logger.error("the log could not be synced: %s", error)

    def _has_room(self) -> bool:
        """Whether users leave room for mirrored requests now."""
        most = self.spec.shadow_spare * self.spec.maximum_in_flight
        return self.admission.in_flight < most and not self.admission.waiting

    def check_open(self) -> None:
        """Raises Refusal when nothing new is taken on."""
        if self.draining:
            raise unavailable("The gateway is stopping.", code="stopping")

    def hash_user(self, tenant: str, user: str) -> str:
        """A user's name in the log: 64 hex digits that mean nothing without this home's salt."""
        return hmac.digest(self._salt, f"{tenant}\0{user}".encode(), "sha256").hex()

    def take_down(self, call: Call, status: int, error: str) -> None:
        """Record what became of a call, once; then count it, and have the shadow answer it too.

        Raises LogFailed: then the call is open still.
        """
        if call.closed:
            return
        record = call.record(status, error, self._price)
        logged = record is not None
        if record is not None:
            try:
                self.log.append(record)
            except LogFailed as failure:
                self.metrics.log_errors.inc()
                logger.error("a request could not be recorded: %s", failure)
                if status == 200:
                    raise
                logged = False
        call.closed = True
        if record is not None and logged:
            self.budgets.settle(record)
        else:
            self.budgets.release(call.id)
        self._count(call, record, status, error)
        if record is not None and logged:
            self.shadow.offer(call, record)

    def _count(self, call: Call, record: RequestRecord | None, status: int, error: str) -> None:
        key = call.key.name if call.key else ""
        release, arm = (record.release, record.arm) if record else ("", "")
        self.metrics.count(release, arm, status, key)
        line: dict[str, Any] = {"id": call.id, "trace": call.trace.id, "key": key}
        line |= {"status": status, "release": release[:SHORT], "arm": arm}
        if record is not None:
            tokens = record.tokens_in, record.tokens_out
            first = record.first_byte_ms
            if call.key is not None:
                self.limits.spend_tokens(call.key, sum(tokens))
            self.metrics.observe(
                release, arm, record.latency_ms / 1e3, first and first / 1e3, tokens, record.cost
            )
            line |= {"ms": record.latency_ms, "tokens_in": tokens[0], "tokens_out": tokens[1]}
        if error:
            line["error"] = error
        with suppress(OSError):  # nobody reads it, or its disk is full: the request log has it
            self.access_log.info(LINE, **line)
        call.trace.end(status, request_id=call.id, arm=arm, release=release)
