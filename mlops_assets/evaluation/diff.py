"""Two evaluations beside each other: what `mlops diff` knows, before anybody shows it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mlops_assets.artifacts import LineageError
from mlops_assets.evaluation.comparison import Comparison, Difference, Pair, compare_records
from mlops_assets.evaluation.excerpts import excerpt_in_one_line
from mlops_assets.evaluation.recorded import Recorded, find_recorded
from mlops_assets.home import Home


@dataclass(frozen=True)
class Example:
    """An item that got better or worse, fit to be shown."""

    item: str
    asked: str
    reference: str
    before: str
    after: str
    changes: dict[str, float]
    """By how much, by metric."""


@dataclass(frozen=True)
class Examples:
    """Some of the items that changed, the largest changes first, and how many there are."""

    better: tuple[Example, ...]
    worse: tuple[Example, ...]
    better_items: int
    """Items whose largest change, by any metric, was for the better."""
    worse_items: int


@dataclass(frozen=True)
class Diff:
    """A comparison of two evaluations, suite by suite."""

    before: Recorded
    after: Recorded
    suites: tuple[Comparison, ...]
    examples: dict[str, Examples]
    """By suite."""

    def as_json(self) -> dict[str, Any]:
        """The machine's view; the keys are a contract (see docs/tracking.md)."""
        return {
            "before": _side(self.before),
            "after": _side(self.after),
            "suites": {one.suite: self._suite(one) for one in self.suites},
        }

    def _suite(self, one: Comparison) -> dict[str, Any]:
        return {
            "items": len(one.pairs),
            "only_before": list(one.only_before),
            "only_after": list(one.only_after),
            "altered": list(one.altered),
            "metrics": _plain(one.metrics),
            "slices": {
                dimension: {value: _plain(found) for value, found in values.items()}
                for dimension, values in one.slices.items()
            },
            **asdict(self.examples[one.suite]),
        }


def diff(
    home: Home,
    before: str,
    after: str,
    model: str | None,
    metrics: Sequence[str] = (),
    most_examples: int = 3,
) -> Diff:
    """Compare what ``after`` answered with what ``before`` did; see ``find_recorded`` for names.

    Raises LineageError when one cannot be found or verified, or when neither has a metric of
    that name.
    """
    old, new = (find_recorded(home, name, model) for name in (before, after))
    known = dict.fromkeys(
        name for side in (new, old) for record in side.records for name in record.scores
    )
    if unknown := [name for name in metrics if name not in known]:
        raise LineageError(
            f"Neither evaluation has the metric {unknown[0]!r}.",
            f"Choose among {', '.join(known)}.",
        )
    suites = tuple(compare_records(old.records, new.records, metrics))
    examples = {one.suite: _examples(one, most_examples) for one in suites}
    return Diff(old, new, suites, examples)


def _examples(one: Comparison, most: int) -> Examples:
    better, worse = one.better, one.worse
    shown, spoilt = tuple(map(_example, better[:most])), tuple(map(_example, worse[:most]))
    return Examples(shown, spoilt, len(better), len(worse))


def _example(pair: Pair) -> Example:
    return Example(
        item=pair.after.item,
        asked=excerpt_in_one_line(pair.after.input),
        reference=excerpt_in_one_line(pair.after.reference),
        before=excerpt_in_one_line(pair.before.output),
        after=excerpt_in_one_line(pair.after.output),
        changes=pair.changes,
    )


def _side(side: Recorded) -> dict[str, Any]:
    return {"name": side.label, "report": side.report, "records_from": side.source}


def _plain(found: dict[str, Difference]) -> dict[str, Any]:
    return {metric: {"items": one.items} | asdict(one) for metric, one in found.items()}
