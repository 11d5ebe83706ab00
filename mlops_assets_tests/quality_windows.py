"""Windows of requests whose users differ, drawn again and again: how often answer quality alarms
where nothing got worse, and where something did.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from mlops_assets.feedback_record import RATING
from mlops_assets.monitoring.quality.user_verdicts import Judged
from mlops_assets.monitoring.quality.windows import FAILED, Asked
from mlops_assets.monitoring.quality.worsening import Loss
from mlops_assets.request_record import LEFT

Sides = tuple[list[Loss], list[Loss]]
NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
GIVEN_UP = 0.02
"""Share of the requests."""
VOTED, CACHED, REPEATED = 0.3, 0.2, 0.02
"""Shares of the answers: with a rating, from the cache, and to what is asked again."""
CONTRADICTED = 0.7
"""Share of the corrections that say something else than the answer."""


def requests(now: int, before: int, share: float) -> Callable[[Any], Sides]:
    """Sides of requests that have nothing to do with each other."""

    def draw(dice: Any) -> Sides:
        sides = (dice.random(n) < share for n in (now, before))
        ours, theirs = ([("", float(lost)) for lost in side] for side in sides)
        return ours, theirs

    return draw


def people(now: int, before: int, share: float, users: int, stay: float) -> Callable[[Any], Sides]:
    """Sides of users who ask unequally often, each with a share of losses of their own, of whom
    some stay from one side to the other."""

    def draw(dice: Any) -> Sides:
        own = dice.beta(2 * share, 2 * (1 - share), 2 * users)
        often = 1 / (1 + dice.permutation(users))
        kept = dice.random(users) < stay

        def side(n: int, first: int) -> list[Loss]:
            who = dice.choice(users, n, p=often / often.sum())
            who = [user if kept[user] else first + user for user in who]
            return [(f"u{user}", float(dice.random() < own[user])) for user in who]

        return side(now, 0), side(before, users)

    return draw


@dataclass(frozen=True)
class Worse:
    """What is worse now than it was."""

    failing: float = 0.0
    """Added to each user's share of failed requests."""
    slower: float = 1.0
    """What latencies are multiplied by."""
    disliking: float = 0.0
    """Taken from each user's share of thumbs up."""
    correcting: float = 0.0
    """Added to each user's share of corrected answers."""


UNCHANGED = Worse()


@dataclass(frozen=True)
class Crowd:
    """Users who ask unequally often, each with a pace, luck and taste of their own."""

    users: int
    stay: float
    """Share of them who asked before and ask now; new ones take the places of the others."""

    def window(
        self, now: int, before: int, dice: np.random.Generator, worse: Worse = UNCHANGED
    ) -> tuple[list[Judged], list[Judged]]:
        """So many requests of now, and of before."""
        traits = _Traits.draw(2 * self.users, dice)
        asking = np.arange(self.users)
        places = np.where(dice.random(self.users) < self.stay, asking, asking + self.users)
        often = 1 / (1 + asking) ** 0.8
        sides = [
            _requests(dice.choice(who, n, p=often / often.sum()), traits, change, dice)
            for who, n, change in ((places, now, worse), (asking, before, UNCHANGED))
        ]
        return sides[0], sides[1]


@dataclass(frozen=True)
class _Traits:
    """Of each user; arrays."""

    talkative: Any
    failing: Any
    liking: Any
    correcting: Any

    @classmethod
    def draw(cls, users: int, dice: np.random.Generator) -> "_Traits":
        return cls(
            talkative=dice.lognormal(0, 0.4, users),
            failing=dice.beta(0.2, 9.8, users),
            liking=dice.beta(4, 1, users),
            correcting=dice.beta(0.4, 7.6, users),
        )


def _requests(who: Any, traits: _Traits, worse: Worse, dice: np.random.Generator) -> list[Judged]:
    chance = dice.random((8, len(who)))
    tokens = np.ceil(dice.lognormal(3, 0.4, len(who)) * traits.talkative[who])
    latency = 20 * tokens * dice.lognormal(0, 0.3, len(who)) * worse.slower
    failed = chance[0] < traits.failing[who] + worse.failing
    answered = ~failed & (chance[1] >= GIVEN_UP)
    corrected = answered & (chance[2] < traits.correcting[who] + worse.correcting)
    contradicted = corrected & (chance[3] < CONTRADICTED)
    voted = answered & (chance[4] < VOTED)
    liked = chance[5] < traits.liking[who] - worse.disliking
    cached, again = chance[6] < CACHED, answered & (chance[7] < REPEATED)
    return [
        Judged(
            Asked(
                id=str(i),
                timestamp=NOON,
                release="r",
                user=f"u{who[i]}",
                status=200 if answered[i] else FAILED if failed[i] else LEFT,
                answered=bool(answered[i]),
                latency_ms=float(latency[i]),
                cost=float(tokens[i]) * 1e-5,
                tokens_out=int(tokens[i]),
                cached="exact" if cached[i] else "",
                slices={},
            ),
            {RATING: float(liked[i])} if voted[i] else {},
            corrected=bool(corrected[i]),
            contradicted=bool(contradicted[i]),
            again=bool(again[i]),
        )
        for i in range(len(who))
    ]
