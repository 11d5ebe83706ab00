"""Metrics of what others know: made when somebody reads, from what they say then.

Nothing is counted here. What is counted elsewhere, such as the rows of the ledger, is shown as it
is, so a gateway that starts again goes on where it was.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from mlops_assets import ledger
from mlops_assets.artifacts import SHORT
from mlops_assets.release_state import STEPS, WAITING, ReleaseState

STAGES = (WAITING, *STEPS)
OUTCOMES = (
    *(ledger.PASSED, ledger.FAILED, ledger.INCONCLUSIVE),
    *(ledger.REQUESTED, ledger.APPROVED, ledger.REJECTED, ledger.PROMOTED, *STEPS),
)


@dataclass(frozen=True)
class EngineHealth:
    """One engine, as metrics show it."""

    release: str
    up: bool
    restarts: int


@dataclass(eq=False)  # the registry keeps it by its identity
class StateMetrics(Collector):
    """Asks these whenever somebody reads."""

    budgets: Callable[[], Mapping[tuple[str, str], float]] = dict
    """What part of its limit a key has used, by its name and unit."""
    engines: Callable[[], Sequence[EngineHealth]] = tuple
    release: Callable[[], ReleaseState] = ReleaseState
    outcomes: Callable[[], Iterable[str]] = tuple
    """Of the ledger's rows, one for each."""
    ledger_age: Callable[[], float] = field(default=lambda: float("inf"))
    """Seconds."""

    def collect(self) -> Iterator[Metric]:
        """Every family, with or without samples."""
        yield GaugeMetricFamily(
            "mlops_ledger_age_seconds", "Time since the ledger was last read.", self.ledger_age()
        )
        yield self._budgets()
        yield from self._engines()
        yield from self._release()
        yield self._decisions()

    def _budgets(self) -> Metric:
        used = GaugeMetricFamily(
            "mlops_budget_used_ratio",
            "Part of its daily limit that a key has used.",
            labels=("key", "unit"),
        )
        for (key, unit), share in self.budgets().items():
            used.add_metric((key, unit), share)
        return used

    def _engines(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "mlops_engine_up", "Whether the release's engine is ready.", labels=("release",)
        )
        restarts = CounterMetricFamily(
            "mlops_engine_restarts_total",
            "Times that the release's engine was taken down because it died, hung or was changed.",
            labels=("release",),
        )
        for engine in self.engines():
            up.add_metric((engine.release[:SHORT],), engine.up)
            restarts.add_metric((engine.release[:SHORT],), engine.restarts)
        yield from (up, restarts)

    def _release(self) -> Iterator[Metric]:
        release = self.release()
        stage = GaugeMetricFamily(
            "mlops_release_stage", "1 for the stage that the release is in.", labels=("stage",)
        )
        for name in STAGES:
            stage.add_metric((name,), release.stage == name)
        yield stage
        yield GaugeMetricFamily(
            "mlops_release_percent", "Users who get the candidate, of 100.", release.percent
        )

    def _decisions(self) -> Metric:
        rows = CounterMetricFamily(
            "mlops_decisions_total", "Rows of the decision ledger.", labels=("outcome",)
        )
        counts = Counter(self.outcomes())
        for outcome in OUTCOMES:
            rows.add_metric((outcome,), counts[outcome])
        return rows
