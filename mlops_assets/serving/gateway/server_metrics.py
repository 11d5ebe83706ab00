"""What Prometheus reads of the gateway: what it counts itself, and what it knows of the rest.

No label has values that a caller can choose: keys are named by their names, of which the file
holds a bounded number; users, features, metrics that are voted on and the models that were asked
for are not labels. docs/gateway.md has a table of all metrics, which a test compares with these.
"""

import asyncio
from collections.abc import Mapping
from functools import partial

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from mlops_assets.artifacts import SHORT
from mlops_assets.feedback_record import RATING, FeedbackRecord
from mlops_assets.serving.gateway.home_metrics import HomeMetrics
from mlops_assets.serving.gateway.state_metrics import StateMetrics
from mlops_assets.serving.traffic.shadow import OUTCOMES as SHADOW_OUTCOMES

CONTENT_TYPE = CONTENT_TYPE_LATEST.encode()
UP, DOWN, BETWEEN, OTHER = "up", "down", "between", "other"
"""Votes: thumbs, a score in their place, and any score of another metric than the rating."""
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class ServerMetrics:
    """The gateway's own registry; children with their labels are looked up once."""

    def __init__(self) -> None:
        # A second series for each counter, which nobody reads.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.state = StateMetrics()
        self.registry.register(self.state)
        self._home: HomeMetrics | None = None
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
        self._cost = counter(
            "mlops_cost_total", "What answers cost, in the currency of the settings.", by_arm
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
        self._release = gauge("mlops_release_info", "1 for every release that is served.", by_arm)
        self._votes = counter(
            "mlops_feedback_votes_total", "Votes on answers, by what they say.", (*by_arm, "vote")
        )
        self._corrections = counter(
            "mlops_feedback_corrections_total", "Votes that say what would have been right.", by_arm
        )
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
        cost: float,
    ) -> None:
        """Take down an answer's times, in seconds, its tokens, read and written, and its cost."""
        if (child := self._children.get((release, arm))) is None:
            child = self._children[(release, arm)] = _Arm(self, release[:SHORT], arm)
        child.latency.observe(seconds)
        if first_byte is not None:
            child.first_byte.observe(first_byte)
        child.read.inc(tokens[0])
        child.written.inc(tokens[1])
        child.cost.inc(cost)

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

    def vote(self, record: FeedbackRecord) -> None:
        """Count a vote."""
        release, arm = record.release[:SHORT], record.arm
        said = {1.0: UP, 0.0: DOWN}.get(record.score, BETWEEN)
        self._votes.labels(release, arm, said if record.metric == RATING else OTHER).inc()
        if record.correction:
            self._corrections.labels(release, arm).inc()

    def watch_home(self, home: HomeMetrics) -> None:
        """Show what lies in this home, too."""
        self._home = home
        self.registry.register(home)

    async def render(self) -> bytes:
        """The exposition text."""
        if self._home is not None:
            await asyncio.to_thread(self._home.look)
        return generate_latest(self.registry)


class _Arm:
    """The metrics of one arm of one release."""

    __slots__ = ("cost", "first_byte", "latency", "read", "written")

    def __init__(self, metrics: ServerMetrics, release: str, arm: str) -> None:
        self.latency = metrics._latency.labels(release, arm)
        self.first_byte = metrics._first_byte.labels(release, arm)
        self.read = metrics._tokens.labels(release, arm, "read")
        self.written = metrics._tokens.labels(release, arm, "written")
        self.cost = metrics._cost.labels(release, arm)
