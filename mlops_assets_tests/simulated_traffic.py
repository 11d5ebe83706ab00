"""Traffic to a champion and a candidate that is the same for every rule that watches it."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlops_assets.request_record import CANARY, CHAMPION
from mlops_assets.serving.records.observations import Observation
from mlops_assets.serving.rollout.arm_statistics import LOG_STEP, ArmStatistics

LOOK_S = 30
REQUESTS_PER_S = 5
MEDIAN_MS, SIGMA = 400.0, 0.6
SCORED, GOOD = 0.2, 0.8
"""Share of answers that get a score of 0 or 1, and of those that get a 1."""
OUTAGE, OUTAGE_SHARE = 0.3, 0.05
"""Share of requests that fail in both arms in one look of twenty, where there are outages."""
USERS = 500
Drawn = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Scenario:
    """How the candidate differs from the champion, and what both live through."""

    name: str
    failing: float = 0.01
    """The champion's error rate."""
    worse: float = 0.0
    """Added to it for the candidate."""
    slower: float = 1.0
    """What the candidate's latencies are multiplied by."""
    quality: float = 0.0
    """Taken from the candidate's share of good scores."""
    outages: bool = False
    troubled: float = 0.0
    """Share of the users half of whose requests fail, whichever arm they get."""
    pace: float = 0.0
    """Standard deviation between users of the logarithm of their latencies."""

    @property
    def sticky(self) -> bool:
        """Whether users differ; they keep their arm, and the log names them."""
        return self.troubled > 0 or self.pace > 0


@dataclass(frozen=True)
class Look:
    """Requests between two looks, and what would happen to each in either arm."""

    scenario: Scenario
    user: Any
    """Numbers of the users who ask."""
    bucket: Drawn
    """Where the user stands between 0 and 1: the candidate has those below its share."""
    fate: Drawn
    failing: Drawn
    """The champion's failure rate for each request."""
    taste: Drawn
    log_ms: Drawn

    def arms(self, percent: int) -> tuple[ArmStatistics, ArmStatistics]:
        """What champion and candidate did with this share of the users for the candidate."""
        chosen = self.bucket < percent / 100
        return self._arm(~chosen, Scenario("champion")), self._arm(chosen, self.scenario)

    def observations(self, percent: int, at: float) -> Iterator[Observation]:
        """The same request by request, all at one time, in the order in which they came."""
        for number in range(len(self.bucket)):
            chosen = self.bucket[number] < percent / 100
            arm = self.scenario if chosen else Scenario("champion")
            taste = self.taste[number] / SCORED
            yield Observation(
                CANARY if chosen else CHAMPION,
                at,
                failed=bool(self.fate[number] < self.failing[number] + arm.worse),
                empty=False,
                refused=False,
                latency_ms=math.exp(self.log_ms[number]) * arm.slower,
                quality=float(taste < GOOD - arm.quality) if taste < 1 else None,
                user=str(self.user[number]),
            )

    def chosen(self, percent: int) -> int:
        """How many of the requests the candidate gets."""
        return int((self.bucket < percent / 100).sum())

    def pairs(self, share: float) -> tuple[ArmStatistics, ArmStatistics]:
        """The champion's answers, and the candidate's to the share that is mirrored to it."""
        everything = np.ones(len(self.bucket), dtype=bool)
        return self._arm(everything, Scenario("champion")), self._arm(
            self.bucket < share, self.scenario
        )

    def _arm(self, who: Any, arm: Scenario) -> ArmStatistics:
        answered = who & (self.fate >= self.failing + arm.worse)
        steps = np.ceil((self.log_ms[answered] + math.log(arm.slower)) / LOG_STEP)
        scored = self.taste[answered & (self.taste < SCORED)] / SCORED
        good = int((scored < GOOD - arm.quality).sum())
        return ArmStatistics(
            requests=int(who.sum()),
            failed=int(who.sum() - answered.sum()),
            latencies=Counter(steps.astype(int).tolist()),
            losses=Counter({0.0: good, 1.0: len(scored) - good}),
        )


def looks(scenario: Scenario, seed: int) -> Iterator[Look]:
    """The traffic between one look and the next, without end; the same for the same seed."""
    dice = np.random.default_rng(seed)
    count = LOOK_S * REQUESTS_PER_S
    places, trouble = dice.random(USERS), dice.random(USERS) < scenario.troubled
    pace = scenario.pace * dice.standard_normal(USERS)
    while True:
        user = dice.integers(USERS, size=count)
        fate, taste, bucket = dice.random((3, count))
        outage = OUTAGE * (dice.random() < OUTAGE_SHARE) * scenario.outages
        yield Look(
            scenario,
            user=user,
            bucket=places[user] if scenario.sticky else bucket,
            fate=fate,
            failing=np.where(trouble[user], 0.5, scenario.failing + outage),
            taste=taste,
            log_ms=math.log(MEDIAN_MS) + pace[user] + SIGMA * dice.standard_normal(count),
        )
