"""Whether the same users fare worse than before: each one compared with himself.

What happens to requests (a failure, a wait) differs from user to user, because they ask different
things. Those who asked on both sides are compared with themselves, so that neither who they are
nor how often each of them asks makes a difference: the test is that of Mantel and Haenszel (J.
Natl. Cancer Inst. 22, 1959) with the users as its strata, by permutation of each user's requests
between the sides. Requests of nobody in particular are one stratum: of a log without users it is
Fisher's exact test.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlops_assets.monitoring.quality.worsening import CHUNK, PERMUTATIONS, Loss


@dataclass(frozen=True)
class SameUsers:
    """Arrays with an element for each user who asked on both sides; losses are 0 or 1."""

    now: Any
    """Requests."""
    lost_now: Any
    before: Any
    lost_before: Any

    @property
    def fewest(self) -> int:
        """Their requests on the side where they have fewer."""
        return int(min(self.now.sum(), self.before.sum()))

    def excess(self) -> float:
        """How much more of the requests is lost now: each user's difference, weighted as by Mantel
        and Haenszel. There must be a user."""
        weights = self.now * self.before / (self.now + self.before)
        differences = self.lost_now / self.now - self.lost_before / self.before
        return float((weights * differences).sum() / weights.sum())

    def p_worse(self, seed: int) -> float:
        """p value of "they lose no more than before", at least 1e-4."""
        import numpy as np

        lost, of = self.lost_now + self.lost_before, self.now + self.before
        telling = (lost > 0) & (lost < of)
        lost, kept, now = lost[telling], (of - lost)[telling], self.now[telling]
        observed, dice = self.lost_now[telling].sum(), np.random.default_rng(seed)
        as_bad, left = 0, PERMUTATIONS
        while left:
            size = min(left, max(1, CHUNK // max(1, len(lost))))
            drawn = dice.hypergeometric(lost, kept, now, size=(size, len(lost)))
            as_bad += int((drawn.sum(axis=1) >= observed).sum())
            left -= size
        return (1 + as_bad) / (1 + PERMUTATIONS)


def same_users(current: Sequence[Loss], baseline: Sequence[Loss]) -> SameUsers:
    """Pair what users lost with what they lost before."""
    import numpy as np

    sums: dict[str, list[int]] = {}
    for column, side in ((0, current), (2, baseline)):
        for user, loss in side:
            counts = sums.setdefault(user, [0, 0, 0, 0])
            counts[column] += 1
            counts[column + 1] += int(loss)
    found = np.array([one for one in sums.values() if one[0] and one[2]], dtype=np.int64)
    return SameUsers(*found.reshape(-1, 4).T)
