"""How far production's texts lie from the reference's in meaning, and whether chance explains it.

A classifier two-sample test (Lopez-Paz and Oquab 2017) on sentence embeddings: a linear direction
that tells both sides apart is learned on four fifths of the texts and looked along on the rest, in
turn for each fifth. The effect is the Kolmogorov-Smirnov distance of the positions along it, so it
reads like that of any number: at least this share of the texts would have to change for both
sides to agree.

The p value is of an exact permutation test of the difference of the mean positions, in which the
sides are shuffled within each fifth. Every text serves in it, where splitting the sample in two
halves would leave half of them and finds less (the benchmark `embeddings` prints both). A
direction by ridge regression is linear in the labels, so ten thousand shuffles, each with its own
five directions, are one product of matrices.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlops_assets.monitoring.drift.design_effect import UNCLUSTERED, clustering, effective
from mlops_assets.monitoring.drift.findings import DATA, Finding

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mlops_assets.monitoring.drift.design_effect import Codes

    Vectors = NDArray[np.float32]

FOLDS = 5
RIDGE = 1.0  # of the mean variance of a dimension, added to each
PERMUTATIONS = 9_999
BLOCK = 500  # shuffles at a time
ENOUGH = 20  # shuffles as far apart as what was seen: more would not make it significant


@dataclass(frozen=True)
class Separation:
    """What tells two samples of texts apart."""

    effect: float
    """0 to 1; NaN without any text."""
    p: float
    """At least 1e-4; NaN without any text."""
    reference: "Vectors"
    """Position of each text along the direction, which was learned without it."""
    current: "Vectors"
    """The same of production: the higher, the less the reference resembles it."""
    design_effect: float = UNCLUSTERED
    """How many of production's texts count as one, because few users wrote them."""

    @classmethod
    def unknown(cls, reference: int, current: int) -> "Separation":
        """Of so many texts of each side that could not be compared."""
        import numpy as np

        before, now = (np.full(count, np.nan, np.float32) for count in (reference, current))
        return cls(math.nan, math.nan, before, now)


def embedding_finding(
    name: str,
    reference: "Vectors",
    current: "Vectors",
    seed: int,
    min_effect: float = 0.1,
    layer: str = DATA,
    users: "Codes | None" = None,
) -> Finding:
    """The finding on one text column, of embeddings as (texts, dimensions)."""
    return as_finding(name, separate(reference, current, seed, users), min_effect, layer)


def as_finding(name: str, apart: Separation, min_effect: float, layer: str) -> Finding:
    """What two samples of texts lie apart, as the report has it."""
    return Finding(
        name=name,
        layer=layer,
        kind="embedding",
        effect=apart.effect,
        min_effect=min_effect,
        p=apart.p,
        reference_n=len(apart.reference),
        current_n=len(apart.current),
        detail="meaning, by sentence embeddings",
        effective_n=effective(len(apart.current), apart.design_effect),
    )


def separate(
    reference: "Vectors", current: "Vectors", seed: int, users: "Codes | None" = None
) -> Separation:
    """Tell two samples apart; arrays are (texts, dimensions), of one encoder.

    ``users`` are numbers that stand for who wrote each current text; None where each has a user of
    its own. The same arrays and seed give the same result. A side without texts, or a value that is
    not finite, gives NaN.
    """
    import numpy as np
    import pyarrow as pa
    from scipy.stats import ks_2samp

    if not len(reference) or not len(current) or not _finite(reference, current):
        return Separation.unknown(len(reference), len(current))
    vectors = np.concatenate([reference, current]).astype(np.float32)
    sides = np.repeat(np.array([0, 1], np.float32), [len(reference), len(current)])
    random = np.random.default_rng(seed)
    writers = np.arange(len(current)) if users is None else users
    folds = np.concatenate([_folds(len(reference), random), _folds_of_users(writers, random)])
    operator = _held_out(vectors - vectors.mean(0), folds)
    labels = sides - sides.mean()
    positions = operator @ labels
    before, now = positions[sides == 0], positions[sides == 1]
    effect = float(ks_2samp(before, now, method="asymp").statistic)
    design_effect = clustering(writers, pa.array(now), pa.array(before))
    widening = (1 / len(before) + design_effect / len(now)) / (1 / len(before) + 1 / len(now))
    p = _permutation_p(operator, labels, folds, random, widening)
    return Separation(effect, p, before, now, design_effect)


def _finite(*sides: "Vectors") -> bool:
    import numpy as np

    return all(bool(np.isfinite(side).all()) for side in sides)


def _folds(count: int, random: "np.random.Generator") -> "NDArray[np.int64]":
    import numpy as np

    return random.permutation(np.arange(count) % FOLDS)


def _folds_of_users(users: "Codes", random: "np.random.Generator") -> "NDArray[np.int64]":
    """Folds as equal as may be in which no user stands twice: a direction that was learned on
    what somebody wrote tells that person apart, whatever the world does."""
    import numpy as np

    each, wrote = np.unique(users, return_counts=True)
    if len(each) == len(users):
        return _folds(len(users), random)
    fold_of, filled = {}, [0] * FOLDS
    for at in sorted(random.permutation(len(each)), key=lambda at: -wrote[at]):
        fold_of[each[at]] = emptiest = filled.index(min(filled))
        filled[emptiest] += wrote[at]
    return np.array([fold_of[user] for user in users], np.int64)


def _held_out(vectors: "Vectors", folds: "NDArray[np.int64]") -> "Vectors":
    """The matrix that makes positions of labels: each text's by the direction of other folds.

    The direction is that of ridge regression, (X'X + aI)^-1 X'y over the texts X and labels y of
    the other folds; but for its length it is that of Fisher's discriminant, shrunk.
    """
    import numpy as np
    from scipy.linalg import cho_factor, cho_solve

    operator = np.zeros((len(vectors), len(vectors)), np.float32)
    whole = vectors.T @ vectors
    for fold in range(FOLDS):
        held, rest = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        spread = whole - vectors[held].T @ vectors[held]
        # The smallest number keeps texts that are all the same solvable: they lie at 0.
        ridge = RIDGE * np.trace(spread) / len(spread) + np.finfo(np.float32).tiny
        spread[np.diag_indices_from(spread)] += ridge
        directions = cho_solve(cho_factor(spread), vectors[rest].T)
        operator[np.ix_(held, rest)] = vectors[held] @ directions
    return operator


def _permutation_p(
    operator: "Vectors",
    labels: "Vectors",
    folds: "NDArray[np.int64]",
    random: "np.random.Generator",
    widening: float,
) -> float:
    """p value of the difference of the mean positions of both sides.

    What was observed counts as so many times nearer to what shuffling gives on average. Shuffles
    stop early when enough of them lie as far apart, which keeps the p value right (Besag and
    Clifford 1991).
    """
    import numpy as np

    members = [np.flatnonzero(folds == fold) for fold in range(FOLDS)]
    observed = float(labels @ operator @ labels)
    if widening > 1:
        means = np.empty_like(labels)
        for rows in members:
            means[rows] = labels[rows].mean()
        # Texts of one fold have no part in each other's positions: these are exact.
        expected = float(means @ operator @ means)
        observed = expected + (observed - expected) / widening
    # What shuffling cannot change is as far apart, however single precision rounds the sums.
    least = observed - 1e-6 * float(abs(labels) @ abs(operator) @ abs(labels))
    seen = as_far = 0
    while seen < PERMUTATIONS:
        block = min(BLOCK, PERMUTATIONS - seen)
        shuffled = np.empty((len(labels), block), np.float32)
        for rows in members:
            order = random.random((len(rows), block), np.float32).argsort(axis=0)
            shuffled[rows] = labels[rows][order]
        found = np.einsum("ij,ij->j", shuffled, operator @ shuffled)
        hits = np.flatnonzero(found >= least)
        if as_far + len(hits) >= ENOUGH:
            return ENOUGH / float(seen + hits[ENOUGH - as_far - 1] + 1)
        as_far, seen = as_far + len(hits), seen + block
    return (1 + as_far) / (1 + PERMUTATIONS)
