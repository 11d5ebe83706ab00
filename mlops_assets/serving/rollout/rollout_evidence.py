"""What the requests of a rollout have shown so far: fed one by one, asked at any time.

Requests that ended at about the same time form a block, so that what both arms meet together (an
outage, a rush hour) and a share of traffic that changes speak for neither. What is bet on a block
comes from the blocks before it. The same observations in the same order give the same evidence,
so it can be made again from the request log.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mlops_assets.request_record import CANARY, CHAMPION, SHADOW
from mlops_assets.serving.records.observations import Observation
from mlops_assets.serving.rollout.arm_statistics import (
    SCORE_DIGITS,
    ArmStatistics,
    Latencies,
    latency_step,
    ratio_steps,
    shares,
)
from mlops_assets.serving.rollout.clustering import Clustering
from mlops_assets.serving.rollout.release_spec import MOST_LOSS, ReleaseSpec
from mlops_assets.serving.rollout.sequential import Excess, Expected, NonInferiority, Tally, p_value

BLOCK_REQUESTS = 3
"""A block has this many requests of each arm at least."""
BLOCK_S = 1.0
PRIOR_REQUESTS = 20
"""Weight of what is expected before anything was seen."""
PRIOR_RATE, PRIOR_LOSS = 0.01, 0.25
ERRORS, EMPTY, REFUSED, QUALITY = "errors", "empty", "refusals", "quality"
QUANTILES = {"latency/p50": 0.5, "latency/p95": 0.95}
ALPHA_SHARES = {
    ERRORS: 0.5,
    EMPTY: 0.1,
    REFUSED: 0.1,
    QUALITY: 0.1,
    **dict.fromkeys(QUANTILES, 0.1),
}
"""How the probability of a false rollback is split over the tests; they add up to 1."""
SHADOW_ALPHA = 0.2
"""Part of it that the shadow stage may use; the canary has the rest."""


@dataclass(frozen=True, slots=True)
class View:
    """A block as one test sees it, and what it expected."""

    control: Tally
    candidate: Tally
    expected: Expected


@dataclass
class Comparison:
    """The tests of one measure: that the candidate is worse, that it is not, stage by stage."""

    harm: Excess
    alpha: float
    """Of the harm; a part of the rollout's."""
    stages: tuple[NonInferiority, ...]
    """What each stage rules out, in order; empty where nothing has to be shown."""
    clustering: Clustering = field(default_factory=Clustering)
    """Of the champion's requests. It weakens what speaks for harm, so that a user who is trouble
    with any release takes none back. What speaks against harm is taken request by request: with
    few users of different kinds no margin could ever be ruled out."""
    design_effect: float = 1.0

    def update(self, worse: View, stages: Sequence[View]) -> None:
        """Take in a block as the test for harm and those of the stages see it."""
        expected, self.design_effect = worse.expected, self.clustering.design_effect
        self.harm.update(worse.control, worse.candidate, expected.control, expected.spread)
        for test, view in zip(self.stages, stages, strict=True):
            test.update(view.control, view.candidate, view.expected)

    @property
    def p_harm(self) -> float:
        """p value of "the candidate is no worse", whenever it is read."""
        return p_value(self.harm.peak, self.design_effect)

    def p_margin(self, stage: int) -> float:
        """p value of "it is worse by the stage's margin or more", as of now."""
        return p_value(self.stages[stage].log_e)


@dataclass
class Block:
    """Requests of both arms that ended at the same time."""

    control: ArmStatistics = field(default_factory=ArmStatistics)
    candidate: ArmStatistics = field(default_factory=ArmStatistics)
    since: float | None = None


class Evidence:
    """All that is known of a candidate in shadow, or as a canary, beside the champion.

    A canary's evidence lives through all its steps: call ``enter`` when one begins.
    """

    def __init__(self, spec: ReleaseSpec, stage: str) -> None:
        self._arms = (CHAMPION, SHADOW if stage == SHADOW else CANARY)
        self.percents = [0] if stage == SHADOW else list(spec.canary_steps)
        self.control, self.candidate = ArmStatistics(), ArmStatistics()
        self.speeds = self.control.speed(), self.candidate.speed()
        """Latencies of both; an open block is not among them."""
        self.entered_with = 0
        """Requests of the candidate before the present stage."""
        self._block, self._votes = Block(), Block()
        part = SHADOW_ALPHA if stage == SHADOW else 1 - SHADOW_ALPHA
        widening = [spec.widening(percent) for percent in self.percents]
        self.margins = {
            ERRORS: [min(MOST_LOSS, spec.error_margin * wider) for wider in widening],
            QUALITY: [min(MOST_LOSS, spec.quality_margin * wider) for wider in widening],
            **{name: [spec.latency_margin * wider for wider in widening] for name in QUANTILES},
        }
        self._harmful_steps = ratio_steps(1 + spec.latency_margin)
        self._stage_steps = [ratio_steps(1 + one) for one in self.margins["latency/p50"]]
        tolerances = {EMPTY: spec.empty_spike, REFUSED: spec.refusal_spike}
        self.comparisons = {
            name: Comparison(
                Excess(tolerances.get(name, 0.0)),
                spec.alpha * part * share,
                tuple(
                    NonInferiority(0.0 if name in QUANTILES else margin, spec.release_alpha)
                    for margin in self.margins.get(name, ())
                ),
            )
            for name, share in ALPHA_SHARES.items()
        }

    def enter(self) -> None:
        """A stage begins: its minimum and maximum of requests are counted from here."""
        self._close()
        self.entered_with = self.candidate.requests

    def add(self, observation: Observation) -> None:
        """Count one finished request; those of other arms than the two are left out."""
        if observation.arm not in self._arms:
            return
        block = self._block
        if observation.arm == CHAMPION:
            block.control.add(observation)
            self._cluster(observation)
        else:
            block.candidate.add(observation)
        block.since = observation.at if block.since is None else block.since
        enough = min(block.control.requests, block.candidate.requests) >= BLOCK_REQUESTS
        if enough and observation.at - block.since >= BLOCK_S:
            self._close()

    def vote(self, arm: str, score: float, user: str = "") -> None:
        """Count what a user said of an answer of this arm, in [0, 1].

        Most answers get no vote, and a vote comes later than its answer: votes form blocks of
        their own, or most would stand in a block without any of the other arm.
        """
        votes = self._votes
        side = votes.control if arm == CHAMPION else votes.candidate
        side.losses[round(1 - score, SCORE_DIGITS)] += 1
        if arm == CHAMPION:
            self.comparisons[QUALITY].clustering.add(user, 1 - score)
        if min(votes.control.losses.total(), votes.candidate.losses.total()) >= BLOCK_REQUESTS:
            self._votes = Block()
            self.add_block(votes.control, votes.candidate)

    def _cluster(self, one: Observation) -> None:
        """Count for every measure how alike the requests of one user are."""
        values: dict[str, float] = {ERRORS: one.failed}
        if not one.failed and one.sound:
            step = latency_step(one.latency_ms)
            values |= {EMPTY: one.empty, REFUSED: one.refused, **dict.fromkeys(QUANTILES, step)}
            if one.quality is not None:
                values[QUALITY] = 1 - one.quality
        for name, value in values.items():
            self.comparisons[name].clustering.add(one.user, value)

    def add_block(self, control: ArmStatistics, candidate: ArmStatistics) -> None:
        """Count requests of both arms that ended at the same time."""
        for name, worse, stages in self._views(control, candidate):
            self.comparisons[name].update(worse, stages)
        self.control.merge(control)
        self.candidate.merge(candidate)
        self.speeds = self.control.speed(), self.candidate.speed()

    @property
    def stage_requests(self) -> int:
        """Requests of the candidate in the present stage; those of an open block with them."""
        return self.candidate.requests + self._block.candidate.requests - self.entered_with

    @property
    def non_finite(self) -> tuple[int, int]:
        """Numbers that are none, of control and candidate; those of an open block with them."""
        return (
            self.control.non_finite + self._block.control.non_finite,
            self.candidate.non_finite + self._block.candidate.non_finite,
        )

    def _close(self) -> None:
        block, self._block = self._block, Block()
        self.add_block(block.control, block.candidate)

    def _views(
        self, control: ArmStatistics, candidate: ArmStatistics
    ) -> Iterator[tuple[str, View, list[View]]]:
        """For each measure the block as its tests see it."""
        past, stages = self.control, len(self.percents)
        for name, count in ((ERRORS, "failed"), (EMPTY, "empty"), (REFUSED, "refused")):
            of = "requests" if name == ERRORS else "answered"
            rate = _expected_rate(getattr(past, count), getattr(past, of), PRIOR_RATE)
            view = View(
                shares(getattr(control, count), getattr(control, of)),
                shares(getattr(candidate, count), getattr(candidate, of)),
                Expected(rate, rate),
            )
            yield name, view, [view] * len(self.comparisons[name].stages)
        scored = past.losses.total()
        lost = sum(loss * count for loss, count in past.losses.items())
        loss = _expected_rate(lost, scored, PRIOR_LOSS)
        view = View(control.losses, candidate.losses, Expected(loss, loss, past.loss_spread()))
        yield QUALITY, view, [view] * stages
        speeds = self.speeds[0], control.speed(), candidate.speed()
        for name, quantile in QUANTILES.items():
            step = speeds[0].quantile_step(quantile)
            if step is not None:
                # Above the quantile for harm, from it on against harm: so that latencies which are
                # all the same can show either.
                worse = _slowness(*speeds, step + 1, self._harmful_steps)
                yield name, worse, [_slowness(*speeds, step, wider) for wider in self._stage_steps]


def _slowness(
    past: Latencies, control: Latencies, candidate: Latencies, step: int, wider: int
) -> View:
    """Answers of the control that take a given time, the candidate's that take a multiple of it.

    If as many of these as of those, the candidate is slower by that ratio at that quantile.
    """
    return View(
        shares(control.as_slow_as(step), control.answers),
        shares(candidate.as_slow_as(step + wider), candidate.answers),
        Expected(
            _expected_rate(past.as_slow_as(step), past.answers, PRIOR_RATE),
            _expected_rate(past.as_slow_as(step + wider), past.answers, PRIOR_RATE),
        ),
    )


def _expected_rate(total: float, of: int, before: float) -> float:
    return (total + PRIOR_REQUESTS * before) / (of + PRIOR_REQUESTS)
