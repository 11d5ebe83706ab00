"""Whether one side lost more than the other, beyond chance, when a user may count many times.

A loss lies in [0, 1] and more is worse: a failed request, a thumb down. What one user does on
one side is one block, because a user's requests resemble each other: a hundred votes of one
person are not a hundred opinions. The p value is that of a permutation of the blocks between the
sides. What is compared is the difference of the sides' mean losses over its standard error, that
of a ratio of block totals (Cochran, Sampling Techniques, 1977, 6.3): so studentised the test stays
right where the blocks of the longer side are larger (Janssen, Stat. Prob. Letters 36, 1997). That
holds for many users; of few who ask unequally often it is far too bold where it matters, at p
below 0.001. So where a user counts many times p is never smaller than that of Student's t. Where
every request is of another user and losses are 0 and 1, it is Fisher's exact test.
"""

from collections.abc import Sequence
from typing import Any

PERMUTATIONS = 9_999
CHUNK = 4_000_000
"""Numbers that are held in memory at once, about."""

Loss = tuple[str, float]
"""Who asked, empty for nobody in particular, and the loss."""


def mean_loss(losses: Sequence[Loss]) -> float:
    """The mean over the requests. Raises ZeroDivisionError without any."""
    return sum(loss for _, loss in losses) / len(losses)


def count_users(losses: Sequence[Loss]) -> int:
    """How many users there are; each request of nobody in particular is one."""
    named = {user for user, _ in losses if user}
    return len(named) + sum(not user for user, _ in losses)


def p_worse(current: Sequence[Loss], baseline: Sequence[Loss], seed: int) -> float:
    """p value of "current loses no more than the baseline", at least 1e-4; both non-empty."""
    from scipy.special import stdtr

    ours, theirs = user_blocks(current), user_blocks(baseline)
    p = permutation_p(ours, theirs, seed)
    if max(ours[:, 0].max(), theirs[:, 0].max()) == 1:
        return p  # nobody counts twice: the permutation is exact
    freedom = max(1, min(len(ours), len(theirs)) - 1)
    return max(p, float(stdtr(freedom, -_observed(ours, theirs))))


def permutation_p(ours: Any, theirs: Any, seed: int) -> float:
    """p value of the permutation alone, of the ``user_blocks`` of either side."""
    import numpy as np

    # Blocks that are alike need not be told apart: a permutation only says how many of each kind
    # fall on either side.
    kinds, counts = np.unique(np.concatenate([ours, theirs]), axis=0, return_counts=True)
    n, total = kinds.T
    sums = np.stack([np.ones_like(n), n, total, n * n, n * total, total * total], axis=1)
    whole, observed = counts @ sums, _observed(ours, theirs)
    dice, left, as_bad = np.random.default_rng(seed), PERMUTATIONS, 0
    while left:
        size = min(left, max(1, CHUNK // len(counts)))
        drawn = dice.multivariate_hypergeometric(counts, len(ours), size=size, method="marginals")
        as_bad += int((_studentised(drawn @ sums, whole) >= observed - 1e-9).sum())
        left -= size
    return (1 + as_bad) / (1 + PERMUTATIONS)


def user_blocks(losses: Sequence[Loss]) -> Any:
    """Requests and total loss of each user, a row each."""
    import numpy as np

    found: dict[str | int, list[float]] = {}
    for number, (user, loss) in enumerate(losses):
        block = found.setdefault(user or number, [0, 0.0])
        block[0] += 1
        block[1] += loss
    return np.round(np.array(list(found.values()), dtype=float), 9)


def _of_side(blocks: Any) -> Any:
    import numpy as np

    n, total = blocks.T
    return np.array(
        [len(n), n.sum(), total.sum(), (n * n).sum(), (n * total).sum(), (total * total).sum()]
    )


def _observed(ours: Any, theirs: Any) -> float:
    whole = _of_side(ours) + _of_side(theirs)
    return float(_studentised(_of_side(ours)[None, :], whole)[0])


def _studentised(current: Any, whole: Any) -> Any:
    """The difference of the mean losses over its standard error, for each row of ``current``:
    blocks, requests, losses, and the sums of their squares and products."""
    import numpy as np

    (ours, our_variance), (theirs, their_variance) = (
        _mean_and_variance(side) for side in (current, whole - current)
    )
    difference, error = ours - theirs, np.sqrt(our_variance + their_variance)
    certain = error < 1e-12
    value = difference / np.where(certain, 1.0, error)
    sure = np.where(difference > 0, np.inf, -np.inf)
    return np.where(certain & (abs(difference) > 1e-12), sure, value)


def _mean_and_variance(sums: Any) -> tuple[Any, Any]:
    import numpy as np

    blocks, n, total, n_n, n_total, total_total = sums.T
    mean = total / n
    scatter = np.maximum(total_total - 2 * mean * n_total + mean * mean * n_n, 0.0)
    return mean, scatter / (n * n) * blocks / np.maximum(blocks - 1, 1)
