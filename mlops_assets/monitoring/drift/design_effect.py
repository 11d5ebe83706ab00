"""How many independent requests those of a few users count as.

Who asks again mostly asks the same kind, so a thousand requests of twenty users tell less than a
thousand of a thousand users. By how much is Kish's design effect (1965), ``1 + (sum n_u^2 / n - 1)
* rho``, where user ``u`` made ``n_u`` of ``n`` requests: the variance of a share, divided by what
it were if each request had a user of its own. ``n`` divided by it is the effective number, which
the p values reckon with (Rao and Scott's first-order correction, 1981).

``rho``, the intra-class correlation, is ``1 - within / between``: how far two requests of one user
lie apart, by how far those of two users do (F_ST of Hudson, Slatkin and Maddison 1992). Two
classes lie 1 apart, or 0 where they are the same; two numbers by their ranks, which stands for all
the thresholds at which the Kolmogorov-Smirnov distance looks. Few users may agree by chance, and
nothing would seem to keep them apart; so ``between`` is no smaller than how far two rows of the
reference lie apart, of which no two need be of one user.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mlops_assets.monitoring.drift.features import Column
from mlops_assets.monitoring.drift.sketches import rank_of

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    Codes = NDArray[np.int64]

UNCLUSTERED = 1.0
"""The design effect of requests of which each has a user of its own."""


class Users(NamedTuple):
    """How many requests each user made."""

    counts: "pa.Table"
    """``user`` (a number that stands for it) and ``requests``; no user twice."""
    unnamed: int
    """Requests of which nobody knows who made them: each counts as of a user of its own."""

    @property
    def repeats(self) -> float:
        """``sum n_u^2 / n - 1``: the other requests of the user who made one, on average."""
        import numpy as np

        return _repeats(self.counts["requests"].to_numpy().astype(np.float64), self.unnamed)


def numbered(users: "pa.ChunkedArray", seed: int) -> "pa.Array":
    """A number for each user, the same in every part; null where there is none."""
    import pyarrow as pa

    coded = pa.concat_arrays(users.chunks or [pa.array([], users.type)]).dictionary_encode()
    hashed = [int.from_bytes(rank_of(each, seed)) for each in coded.dictionary.to_pylist()]
    return pa.array(hashed, pa.uint64()).take(coded.indices)


def count(users: "pa.Array") -> Users:
    """The users of requests, null where nobody knows them."""
    import pyarrow as pa

    named = users.drop_null()
    ones = pa.array([1] * len(named), pa.int64())
    return add([Users(pa.table({"user": named, "requests": ones}), users.null_count)])


def add(parts: Sequence[Users]) -> Users:
    """The users of all parts."""
    import pyarrow as pa

    none = pa.table({"user": pa.array([], pa.uint64()), "requests": pa.array([], pa.int64())})
    whole = pa.concat_tables([none, *(part.counts for part in parts)])
    counts = whole.group_by("user", use_threads=False).aggregate([("requests", "sum")])
    named = {"user": counts["user"], "requests": counts["requests_sum"]}
    return Users(pa.table(named), sum(part.unnamed for part in parts))


def design_effects(
    columns: Iterable[Column], reference: "pa.Table", drawn: "pa.Table", users: Users
) -> dict[str, float]:
    """The design effect of each column, at least 1.

    ``reference`` holds rows with a value of each column, ``drawn`` a sample of production's with
    their ``user``, ``users`` are those of the whole window.
    """
    groups, repeats = clusters(drawn["user"]), users.repeats
    sides = {
        column.name: [side[column.name].combine_chunks() for side in (drawn, reference)]
        for column in columns
    }
    return {
        name: UNCLUSTERED + repeats * correlation(groups, *values) for name, values in sides.items()
    }


def clustering(users: "Codes", values: "pa.Array", reference: "pa.Array") -> float:
    """The design effect of values of which every user is known, at least 1."""
    import numpy as np

    made = np.unique(users, return_counts=True)[1].astype(np.float64)
    return UNCLUSTERED + _repeats(made, 0) * correlation(users, values, reference)


def effective(n: int, design_effect: float) -> int:
    """How many independent requests ``n`` count as; at least one where there are any."""
    return max(min(n, 1), int(n / design_effect))


def clusters(users: "pa.ChunkedArray") -> "Codes":
    """A number for the user of each request; one that nobody knows is like no other."""
    import numpy as np

    known = np.asarray(users.is_valid())
    codes = np.arange(len(users)) + len(users)
    codes[known] = np.unique(users.drop_null().to_numpy(), return_inverse=True)[1]
    return codes


def correlation(users: "Codes", values: "pa.Array", reference: "pa.Array") -> float:
    """The intra-class correlation of production's values, 0 to 1; 0 where no user has two."""
    import numpy as np

    coded, apart = _coded(values, reference)
    now, before = coded[: len(values)], coded[len(values) :]
    everybody, rows = np.zeros(len(now), np.int64), np.zeros(len(before), np.int64)
    within, pairs = apart(now, users), _pairs(users)
    others = apart(now, everybody) - within, _pairs(everybody) - pairs
    known = apart(before, rows), _pairs(rows)
    between = max(total / count if count else 0.0 for total, count in (others, known))
    return max(0.0, 1 - within / pairs / between) if pairs and between else 0.0


def _repeats(made: "NDArray[np.float64]", alone: int) -> float:
    total = float(made.sum()) + alone
    return max(0.0, (float(made @ made) + alone) / total - 1) if total else 0.0


def _coded(*sides: "pa.Array") -> tuple[Any, Callable[[Any, Any], float]]:
    """The values of both sides as numbers, and what measures how far pairs of them lie apart."""
    import pyarrow as pa
    from scipy.stats import rankdata

    # A side without a row may not know of what type it is.
    whole = pa.chunked_array([side.cast(sides[0].type) for side in sides]).combine_chunks()
    if pa.types.is_floating(whole.type):
        return rankdata(whole.to_numpy()), _ranks_apart
    return whole.dictionary_encode().indices.to_numpy().astype("int64"), _classes_apart


def _pairs(groups: "Codes") -> float:
    """How many pairs are of one group."""
    import numpy as np

    sizes = np.unique(groups, return_counts=True)[1].astype(np.float64)
    return float(sizes @ (sizes - 1)) / 2


def _ranks_apart(values: "NDArray[np.float64]", groups: "Codes") -> float:
    """The sum of the differences of all pairs that are of one group."""
    import numpy as np

    order = np.lexsort((values, groups))
    _, first, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    place = np.arange(len(values)) - np.repeat(first, sizes)
    # The value at place i of s is the larger one in i pairs and the smaller one in s - 1 - i.
    return float((2 * place - np.repeat(sizes, sizes) + 1.0) @ values[order])


def _classes_apart(values: "Codes", groups: "Codes") -> float:
    """How many pairs that are of one group are of two classes."""
    return _pairs(groups) - _pairs(groups * (int(values.max(initial=0)) + 1) + values)
