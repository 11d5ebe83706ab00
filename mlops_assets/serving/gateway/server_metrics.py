"""What Prometheus reads of the gateway.

No label has values that a caller can choose: keys are named by their names, of which the file
holds a bounded number; users, features and the models that were asked for are not labels.
"""

from collections.abc import Callable, Mapping
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from mlops_assets.artifacts import SHORT
from mlops_assets.serving.traffic.shadow import OUTCOMES as SHADOW_OUTCOMES

CONTENT_TYPE = CONTENT_TYPE_LATEST.encode()
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class ServerMetrics:
    """The gateway's own registry; children with their labels are looked up once."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter = partial(Counter, registry=self.registry)
        gauge = partial(Gauge, registry=self.registry)
        by_arm = ("release", "arm")
        seconds = partial(Histogram, labelnames=by_arm, buckets=SECONDS, registry=self.registry)
        self._requests = counter(
            "mlops_requests_total",
            "Chat requests by what the caller got.",
            (*by_arm, "status", "key"),
        )
        self._latency = seconds(
            "mlops_request_seconds", "From the request's last byte to the answer's last."
        )
        self._first_byte = seconds(
            "mlops_first_byte_seconds", "Until the first byte of a streamed answer."
        )
        self._tokens = counter(
            "mlops_tokens_total", "Tokens read and written.", (*by_arm, "direction")
        )
        self.in_flight = gauge("mlops_requests_in_flight", "Requests that are answered now.")
        self.waiting = gauge("mlops_requests_waiting", "Requests that wait for their turn.")
        self.log_errors = counter(
            "mlops_request_log_errors_total", "Records that could not be written or synced."
        )
        self._cached = counter("mlops_cache_hits_total", "Answers from the cache.", ("kind",))
        self._shadow = gauge(
            "mlops_shadow_requests",
            "Mirrored requests since the start: answered by the candidate, or dropped and why.",
            ("outcome",),
        )
        self._budget = gauge(
            "mlops_budget_used_ratio",
            "Part of its daily limit that a key has used.",
            ("key", "unit"),
        )
        self._release = gauge("mlops_release_info", "1 for every release that is served.", by_arm)
        self._engine_up = gauge(
            "mlops_engine_up", "Whether the release's engine is ready.", ("release",)
        )
        self._ledger_age = gauge("mlops_ledger_age_seconds", "Time since the ledger was last read.")
        self._engines: Callable[[], Mapping[str, bool]] = dict
        self.budgets: Callable[[], Mapping[tuple[str, str], float]] = dict
        """Says what part of its limit a key has used, by its name and unit."""
        self._children: dict[tuple[str, str], _Arm] = {}
        self._counts: dict[tuple[str, str, int, str], Counter] = {}

    def count(self, release: str, arm: str, status: int, key: str) -> None:
        """Count a request by what became of it."""
        wanted = (release, arm, status, key)
        if (counter := self._counts.get(wanted)) is None:
            counter = self._requests.labels(release[:SHORT], arm, str(status), key)
            self._counts[wanted] = counter
        counter.inc()

    def observe(
        self,
        release: str,
        arm: str,
        seconds: float,
        first_byte: float | None,
        tokens: tuple[int, int],
    ) -> None:
        """Take down an answer's times, in seconds, and its tokens, read and written."""
        if (child := self._children.get((release, arm))) is None:
            child = self._children[(release, arm)] = _Arm(self, release[:SHORT], arm)
        child.latency.observe(seconds)
        if first_byte is not None:
            child.first_byte.observe(first_byte)
        child.read.inc(tokens[0])
        child.written.inc(tokens[1])

    def cache_hit(self, kind: str) -> None:
        """Count an answer from the cache."""
        self._cached.labels(kind).inc()

    def serving(self, releases: dict[str, str]) -> None:
        """Say which release serves each arm."""
        self._release.clear()
        for arm, release in releases.items():
            self._release.labels(release[:SHORT], arm).set(1)

    def observe_shadow(self, counts: Mapping[str, int]) -> None:
        """Show these counts of mirrored requests, as they are when somebody reads."""
        for outcome in SHADOW_OUTCOMES:
            self._shadow.labels(outcome).set_function(partial(counts.__getitem__, outcome))

    def watch(
        self, ledger_age: Callable[[], float], engines_up: Callable[[], Mapping[str, bool]]
    ) -> None:
        """Ask these whenever somebody reads the metrics: seconds, and readiness by release."""
        self._ledger_age.set_function(ledger_age)
        self._engines = engines_up

    def render(self) -> bytes:
        """The exposition text."""
        self._engine_up.clear()
        for release, up in self._engines().items():
            self._engine_up.labels(release[:SHORT]).set(up)
        self._budget.clear()
        for labels, share in self.budgets().items():
            self._budget.labels(*labels).set(share)
        return generate_latest(self.registry)


class _Arm:
    """The metrics of one arm of one release."""

    __slots__ = ("first_byte", "latency", "read", "written")

    def __init__(self, metrics: ServerMetrics, release: str, arm: str) -> None:
        self.latency = metrics._latency.labels(release, arm)
        self.first_byte = metrics._first_byte.labels(release, arm)
        self.read = metrics._tokens.labels(release, arm, "read")
        self.written = metrics._tokens.labels(release, arm, "written")
