"""What got better and what got worse between two systems' answers to the same items.

Items pair by suite and id, and count only where both systems were asked the very same and are
measured by the same reference. What cannot be paired is counted, never dropped in silence. A
pair where one side has no score is no better and no worse: it is unscored.

The report's page compares a candidate with its champion this way, `mlops diff` two runs.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from mlops_assets.artifacts import LineageError
from mlops_assets.evaluation.records import TEST, Record
from mlops_assets.metrics import Interval, paired_difference

SAME = 1e-6  # scores nearer than this differ by the rounding of floats


@dataclass(frozen=True)
class Pair:
    """The answers of both to one item."""

    before: Record
    after: Record

    def scores(self, metric: str) -> tuple[float, float] | None:
        """Before and after; None where a side has no score."""
        old, new = (side.scores.get(metric) for side in (self.before, self.after))
        if old is None or new is None or not (math.isfinite(old) and math.isfinite(new)):
            return None
        return float(old), float(new)

    @property
    def changes(self) -> dict[str, float]:
        """By how much it got better (above 0) or worse, by metric; metrics that did not change
        are not in it."""
        scored = {metric: self.scores(metric) for metric in self.after.scores}
        rises = {name: pair[1] - pair[0] for name, pair in scored.items() if pair}
        return {name: rise for name, rise in rises.items() if abs(rise) > SAME}

    @property
    def largest(self) -> float:
        """The largest of the changes, with its sign; 0 without any."""
        return max(self.changes.values(), key=abs, default=0.0)


@dataclass(frozen=True)
class Difference:
    """One metric over pairs of items."""

    better: int
    worse: int
    same: int
    unscored: int
    """Pairs where a side has no score; they are in no other number."""
    before: float | None
    after: float | None
    """Means over the scored pairs; None without any."""
    difference: float | None
    """``after - before``."""
    interval: Interval | None
    """95%, over the pairs: see ``metrics.paired_difference``."""

    @property
    def items(self) -> int:
        """Scored pairs."""
        return self.better + self.worse + self.same


@dataclass(frozen=True)
class Comparison:
    """One suite, before and after."""

    suite: str
    pairs: tuple[Pair, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    """Ids of items that only one of the two answered."""
    altered: tuple[str, ...]
    """Ids of items that were asked otherwise, or have another reference by now."""

    @property
    def metrics(self) -> dict[str, Difference]:
        """Every metric that a side has, over all pairs, in the records' order."""
        return _differences(self.pairs)

    @property
    def slices(self) -> dict[str, dict[str, dict[str, Difference]]]:
        """The same by dimension and value of the slice, as the items are sliced after."""
        grouped: dict[str, dict[str, list[Pair]]] = {}
        for pair in self.pairs:
            for dimension, value in pair.after.slices.items():
                grouped.setdefault(dimension, {}).setdefault(value, []).append(pair)
        return {
            dimension: {value: _differences(values[value]) for value in sorted(values)}
            for dimension, values in sorted(grouped.items())
        }

    @property
    def better(self) -> list[Pair]:
        """The pairs whose largest change is a rise, the largest first."""
        return _largest_first(pair for pair in self.pairs if pair.largest > 0)

    @property
    def worse(self) -> list[Pair]:
        """The pairs whose largest change is a fall, the largest first."""
        return _largest_first(pair for pair in self.pairs if pair.largest < 0)


def compare_records(
    before: Iterable[Record], after: Iterable[Record], metrics: Sequence[str] = ()
) -> list[Comparison]:
    """Compare two systems' records, one system on each side: the test split, then each suite.

    Only ``metrics`` count, or all. Raises LineageError when an item stands twice on a side.
    """
    sides = [_by_suite(side, metrics) for side in (before, after)]
    suites = sorted(sides[0].keys() | sides[1].keys(), key=lambda name: (name != TEST, name))
    return [_compare(suite, *(side.get(suite, {}) for side in sides)) for suite in suites]


def _compare(suite: str, before: Mapping[str, Record], after: Mapping[str, Record]) -> Comparison:
    both = [Pair(record, after[item]) for item, record in before.items() if item in after]
    return Comparison(
        suite,
        tuple(pair for pair in both if _comparable(pair)),
        tuple(item for item in before if item not in after),
        tuple(item for item in after if item not in before),
        tuple(pair.after.item for pair in both if not _comparable(pair)),
    )


def _comparable(pair: Pair) -> bool:
    old, new = pair.before, pair.after
    return (old.input_hash, old.reference) == (new.input_hash, new.reference)


def _by_suite(records: Iterable[Record], metrics: Sequence[str]) -> dict[str, dict[str, Record]]:
    found: dict[str, dict[str, Record]] = {}
    for record in records:
        items = found.setdefault(record.suite, {})
        if record.item in items:
            raise LineageError(
                f"The item {record.item} of suite {record.suite} has two records of"
                f" {record.system}.",
                "Give every item an id of its own and materialise `eval_report` again.",
            )
        items[record.item] = _only(record, metrics) if metrics else record
    return found


def _only(record: Record, metrics: Sequence[str]) -> Record:
    scores = {name: score for name, score in record.scores.items() if name in metrics}
    return replace(record, scores=scores)


def _differences(pairs: Sequence[Pair]) -> dict[str, Difference]:
    sides = [pair.after for pair in pairs] + [pair.before for pair in pairs]
    named = dict.fromkeys(metric for side in sides for metric in side.scores)
    return {metric: _difference(pairs, metric) for metric in named}


def _difference(pairs: Sequence[Pair], metric: str) -> Difference:
    scored = [scores for pair in pairs if (scores := pair.scores(metric))]
    rises = [new - old for old, new in scored]
    better, worse = sum(rise > SAME for rise in rises), sum(rise < -SAME for rise in rises)
    before, after = [old for old, _ in scored], [new for _, new in scored]
    difference, interval = paired_difference(after, before) or (None, None)
    return Difference(
        better=better,
        worse=worse,
        same=len(scored) - better - worse,
        unscored=len(pairs) - len(scored),
        before=_mean(before),
        after=_mean(after),
        difference=difference,
        interval=interval,
    )


def _mean(scores: Sequence[float]) -> float | None:
    return math.fsum(scores) / len(scores) if scores else None


def _largest_first(pairs: Iterable[Pair]) -> list[Pair]:
    """Equal changes stand in the order of the items' hashes, which prefers no kind of item and is
    the same tomorrow."""
    return sorted(pairs, key=lambda pair: (-abs(pair.largest), pair.after.input_hash))
