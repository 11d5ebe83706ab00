"""The metrics of answers in production, and whether each is worse than it was.

Every metric is a number of single requests. It becomes a loss in [0, 1] of which more is worse:
shares and votes are one already; of a time, a cost or a length the loss is whether it lies beyond
the baseline's percentile by more than a tolerated ratio, so that one request that took an hour
counts as one.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from mlops_assets.feedback_record import RATING
from mlops_assets.metrics import mean, percentile
from mlops_assets.monitoring.drift.findings import BUSINESS, CONCEPT, Finding, too_few
from mlops_assets.monitoring.quality.quality_spec import QualitySpec
from mlops_assets.monitoring.quality.same_users import same_users
from mlops_assets.monitoring.quality.user_verdicts import Judged
from mlops_assets.monitoring.quality.windows import FAILED
from mlops_assets.monitoring.quality.worsening import Loss, count_users, mean_loss, p_worse
from mlops_assets.request_record import LEFT

Number = Callable[[Judged], float | None]
"""Of one request; None where it has none."""

MOST_NAMED = 20
"""Metrics of users' own naming that are looked at: whoever has a key names them."""
SHARE, SCORE, MS, MONEY, TOKENS = "share", "score", "ms", "money", "tokens"


@dataclass(frozen=True)
class Metric:
    """One number of requests, and in which direction it is worse."""

    name: str
    unit: str
    number: Number
    margin: str
    """Name of the setting."""
    layer: str = BUSINESS
    fewest: str = "min_requests"
    """Name of the setting."""
    beyond: float | None = None
    """Percentile that stands for the metric; None: the mean does."""
    fewer_is_worse: bool = False
    at_will: bool = False
    """Whether a user brings it about: then a few users alone never count."""
    if_unused: str = ""
    """Why it says nothing where it is 0 everywhere; empty where 0 says something."""

    def value(self, requests: Iterable[Judged]) -> float | None:
        """The metric of these requests; None where none has the number."""
        numbers = self._numbers(requests)
        return mean(numbers) if self.beyond is None else percentile(numbers, self.beyond)

    def shown(self, requests: Iterable[Judged]) -> str:
        """The value for people, with its unit."""
        return show(self.value(requests), self.unit)

    def count(self, requests: Iterable[Judged]) -> int:
        """How many of the requests have the number."""
        return len(self._numbers(requests))

    def losses(self, requests: Iterable[Judged], limit: float | None) -> list[Loss]:
        """Who asked, and what was lost; ``limit`` is what a number must not exceed."""
        return [
            (one.asked.user, self._loss(number, limit))
            for one in requests
            if (number := self.number(one)) is not None
        ]

    def _numbers(self, requests: Iterable[Judged]) -> list[float]:
        return [number for one in requests if (number := self.number(one)) is not None]

    def _loss(self, number: float, limit: float | None) -> float:
        if limit is not None:
            return float(number > limit)
        return 1 - number if self.fewer_is_worse else number


def show(value: float | None, unit: str) -> str:
    """A metric's value for people; a dash where there is none."""
    if value is None:
        return "-"
    if unit in (SHARE, SCORE):
        return f"{value:.1%}" if unit == SHARE else f"{value:.2f}"
    return f"{value:,.0f} ms" if unit == MS else f"{value:,.4g}"


def _vote(metric: str, one: Judged) -> float | None:
    return one.votes.get(metric)


def _answered(number: Callable[[Judged], float]) -> Number:
    """The number of answers alone."""
    return lambda one: number(one) if one.asked.answered else None


UNTIMED, UNCORRECTED = "no answer's time was recorded", "no answer was corrected"
_latency = _answered(lambda one: one.asked.latency_ms)

METRICS = (
    Metric("failed", SHARE, lambda one: float(one.asked.status >= FAILED), "failure_margin"),
    Metric("given_up", SHARE, lambda one: float(one.asked.status == LEFT), "failure_margin"),
    Metric("latency/p50", MS, _latency, "excess_margin", beyond=0.5, if_unused=UNTIMED),
    Metric("latency/p95", MS, _latency, "excess_margin", beyond=0.95, if_unused=UNTIMED),
    Metric(
        "cost",
        MONEY,
        _answered(lambda one: one.asked.cost),
        "excess_margin",
        beyond=0.5,
        if_unused="no answer had a price",
    ),
    Metric(
        "tokens_out",
        TOKENS,
        _answered(lambda one: float(one.asked.tokens_out)),
        "excess_margin",
        beyond=0.5,
        if_unused="no answer's tokens were counted",
    ),
    Metric(
        "cached",
        SHARE,
        _answered(lambda one: float(bool(one.asked.cached))),
        "cache_margin",
        fewer_is_worse=True,
        if_unused="no answer came from the cache",
    ),
    Metric(
        "corrected",
        SHARE,
        _answered(lambda one: float(one.corrected)),
        "feedback_margin",
        at_will=True,
        if_unused=UNCORRECTED,
    ),
    Metric(
        "made_again",
        SHARE,
        _answered(lambda one: float(one.again)),
        "feedback_margin",
        at_will=True,
    ),
    Metric(
        "contradicted",
        SHARE,
        _answered(lambda one: float(one.contradicted)),
        "feedback_margin",
        layer=CONCEPT,
        at_will=True,
        if_unused=UNCORRECTED,
    ),
)
"""Those that every log has. What users say of the answers that they correct at all is concept, how
often they do is business: the first is 0 where corrections only repeat the answer."""


def metrics_of(requests: Iterable[Judged]) -> list[Metric]:
    """Every metric: those of every log, the rating, and what else users voted on most."""
    voted = Counter(name for one in requests for name in one.votes if name != RATING)
    named = [RATING, *sorted(name for name, _ in voted.most_common(MOST_NAMED))]
    return [
        *METRICS,
        *(
            Metric(
                name if name == RATING else f"vote/{name}",
                SCORE,
                partial(_vote, name),
                "vote_margin",
                fewest="min_votes",
                fewer_is_worse=True,
                at_will=True,
            )
            for name in named
        ),
    ]


def compare(
    metric: Metric, current: Sequence[Judged], baseline: Sequence[Judged], spec: QualitySpec
) -> Finding:
    """Whether the metric is worse now than in the baseline; one-sided, with its setting's margin.

    What happens to requests is compared user by user where enough of them asked on both sides and
    make up half of the requests now, or those who came are too few to be compared as users;
    elsewhere, and always for what users say, each user counts once.

    What lies beyond the baseline's percentile is counted strictly above it there, and above a
    multiple of it now: as many as before, and now is that multiple at this percentile. So the
    permutation test of single requests is the exact precedence test of that hypothesis, although
    the percentile is an estimate itself.
    """
    counts = metric.count(baseline), metric.count(current)
    finding = Finding(
        name=metric.name,
        layer=metric.layer,
        kind="rate",
        effect=0.0,
        min_effect=getattr(spec, metric.margin),
        p=1.0,
        reference_n=counts[0],
        current_n=counts[1],
    )
    if min(counts) < (fewest := getattr(spec, metric.fewest)):
        what = "votes" if metric.fewest == "min_votes" else "requests"
        what = f"earlier {what}" if counts[0] < counts[1] else what
        return replace(finding, left_out=too_few(min(counts), fewest, what))
    if metric.if_unused and not any(map(metric.number, [*current, *baseline])):
        return replace(finding, left_out=metric.if_unused)
    limit = None if metric.beyond is None else metric.value(baseline)
    ours = metric.losses(current, limit and limit * (1 + spec.excess_ratio))
    theirs = metric.losses(baseline, limit)
    same = same_users(ours, theirs)
    few_users = too_few(min(map(count_users, (ours, theirs))), spec.min_users, "users")
    stayed = 2 * same.now.sum() >= len(ours) or few_users
    if not metric.at_will and same.fewest >= fewest and stayed:
        effect, p = same.excess(), same.p_worse(spec.seed)
    elif left_out := few_users:
        return replace(finding, left_out=left_out)
    else:
        effect, p = mean_loss(ours) - mean_loss(theirs), p_worse(ours, theirs, spec.seed)
    detail = f"{metric.shown(current)}, was {metric.shown(baseline)}"
    return replace(finding, effect=max(0.0, effect), p=p, detail=detail)
