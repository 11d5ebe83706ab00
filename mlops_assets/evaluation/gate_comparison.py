"""The candidate beside the champion on the same items; a first one beside base and majority.

The whole test split has to *show* something: that the candidate is better (``superiority``), or
not worse by more than a margin (``non_inferiority``). All criteria of a gate have to pass, so
this one test holds the share of false promotions to alpha, whatever else is asked
(intersection-union, Berger 1982).

Slices and suites have to show nothing: with 30 rows each, nearly every candidate, however good,
would fail to rule out a loss on one of them, and no correction helps, since it only makes
showing harder. They fail when the candidate is *shown to be worse* there by more than the margin
allows, with p values corrected by Holm over all slices and suites: a candidate that nowhere
loses more than the margin is held back by them in at most alpha of all gates. The price is that
a small slice hides a large loss. How large, each one says: the loss that it would have found
with 80% power. Values of a dimension too rare to be judged alone are judged together.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from mlops_assets.evaluation.gate_evidence import CHAMPION, OURS, Evidence, Suite
from mlops_assets.evaluation.gate_floors import decide, suites_of, undecided, unscored
from mlops_assets.evaluation.gate_spec import SUPERIORITY, GateSpec
from mlops_assets.evaluation.paired_tests import Difference, compare
from mlops_assets.multiple_tests import holm
from mlops_assets.verdicts import FAIL, PASS, Criterion

if TYPE_CHECKING:
    from mlops_assets.evaluation.gate_evidence import Positions

RARE = "(rare values)"
ROUNDING = 1e-9  # a gain of just the least effect must not be lost to it


class Part(NamedTuple):
    """Items on which the candidate must not be shown to be worse."""

    name: str
    difference: Difference


def judge_against_champion(evidence: Evidence, spec: GateSpec) -> Iterator[Criterion]:
    """Whether the candidate may take the champion's place, or be the first."""
    test = evidence.test
    if evidence.champion is None:
        yield _superior(test, "base", spec.metric, spec)
        if evidence.report.get("answers") != "text":
            yield _superior(test, "majority", "exact_match", spec)
    elif not evidence.compared:
        yield decide(CHAMPION, True, "the candidate is the champion: there is nothing to compare")
    elif spec.objective == SUPERIORITY:
        yield _superior(test, CHAMPION, spec.metric, spec)
    else:
        yield _not_inferior(test, spec)


def judge_parts(evidence: Evidence, spec: GateSpec) -> tuple[list[Criterion], list[str]]:
    """Slices of the test split, and suites, beside the champion; and notes for people."""
    if not evidence.compared:
        return [], []
    parts: list[Part] = []
    criteria: list[Criterion] = []
    notes = _add_slices(evidence.test, spec, parts)
    for suite in suites_of(evidence):
        _add_suite(suite, spec, parts, criteria)
    corrected = holm([part.difference.p_worse(spec.slice_margin) for part in parts])
    level = spec.alpha / max(1, len(parts))
    judged = [_not_worse(part, p, level, spec) for part, p in zip(parts, corrected, strict=True)]
    return judged + criteria, notes


def _superior(test: Suite, rival: str, metric: str, spec: GateSpec) -> Criterion:
    name = CHAMPION if rival == CHAMPION else f"first/{rival}"
    found = _compared(test, rival, metric, spec)
    if isinstance(found, str):
        return undecided(name, found)
    p, low, high = found.p_better(), *found.interval(spec.alpha)
    large_enough = found.value > 0 and found.value >= spec.minimum_effect - ROUNDING
    detail = (
        f"{metric} {found.ours:.1%} against {found.theirs:.1%} of {rival}:"
        f" {_points(found.value)} ({_range(low, high)}), {_p(p)};"
        f" at least {_points(spec.minimum_effect)} and p below {spec.alpha:g} are needed"
    )
    return Criterion(
        name,
        PASS if large_enough and p < spec.alpha else FAIL,
        detail,
        _numbers(found, low, high) | {"p": p, "minimum_effect": spec.minimum_effect},
    )


def _not_inferior(test: Suite, spec: GateSpec) -> Criterion:
    found = _compared(test, CHAMPION, spec.metric, spec)
    if isinstance(found, str):
        return undecided(CHAMPION, found)
    margin = spec.non_inferiority_margin
    p, low, high = found.p_not_inferior(margin), *found.interval(spec.alpha)
    detail = (
        f"{spec.metric} {found.ours:.1%} against {found.theirs:.1%} of the champion:"
        f" {_points(found.value)} ({_range(low, high)}), {_p(p)};"
        f" a loss of {_points(margin, sign=False)} must be ruled out with p below {spec.alpha:g}"
    )
    verdict = PASS if p < spec.alpha else FAIL
    return Criterion(
        CHAMPION, verdict, detail, _numbers(found, low, high) | {"p": p, "margin": margin}
    )


def _not_worse(part: Part, p: float, level: float, spec: GateSpec) -> Criterion:
    """``p`` is Holm's; ``level`` is what its first step asks of a single part."""
    found, margin = part.difference, spec.slice_margin
    low, high = found.interval(spec.alpha)
    noticed = found.detectable_loss(margin, level)
    detail = (
        f"{found.ours:.1%} against {found.theirs:.1%} on {found.items:,} items:"
        f" {_points(found.value)}, {_p(p)} for a loss beyond {_points(margin, sign=False)};"
        f" one of {_points(noticed, sign=False)} would be noticed"
    )
    verdict = FAIL if p < spec.alpha else PASS
    numbers = _numbers(found, low, high) | {"p_corrected": p, "margin": margin}
    return Criterion(part.name, verdict, detail, numbers | {"detectable_loss": noticed})


def _compared(suite: Suite, rival: str, metric: str, spec: GateSpec) -> Difference | str:
    """The difference to ``rival``, or why there is none."""
    import numpy as np

    ours, theirs = suite.of(OURS, metric), suite.of(rival, metric)
    for system, scores in ((OURS, ours), (rival, theirs)):
        if scores is None or not scores.size or not np.isfinite(scores).all():
            return unscored(suite, system, metric)
    return compare(ours, theirs, spec.resamples, spec.seed)  # type: ignore[arg-type]


def _add_slices(test: Suite, spec: GateSpec, parts: list[Part]) -> list[str]:
    """Add every slice that can be judged; what cannot is told. A score that is missing is the
    whole split's affair: that has no verdict then."""
    import numpy as np

    ours, theirs = test.of(OURS, spec.metric), test.of(CHAMPION, spec.metric)
    if ours is None or theirs is None or not np.isfinite(ours - theirs).all():
        return []
    notes = []
    for dimension, values in test.slices.items():
        judged, left = _pooled(values, spec.minimum_slice_items)
        for value, at in judged.items():
            found = compare(ours[at], theirs[at], spec.resamples, spec.seed)
            parts.append(Part(f"slice/{dimension}={value}", found))
        if left:
            notes.append(
                f"{left} test rows with rare values of {dimension} are too few to be judged as a"
                " slice."
            )
    return notes


def _pooled(values: Mapping[str, "Positions"], least: int) -> tuple[dict[str, "Positions"], int]:
    """The values with enough items, the others together if they are enough, else how many."""
    import numpy as np

    judged = {value: at for value, at in values.items() if len(at) >= least}
    rare = [at for at in values.values() if len(at) < least]
    together = np.concatenate(rare) if rare else np.array([], dtype=np.intp)
    if len(together) >= least:
        return judged | {RARE: together}, 0
    return judged, len(together)


def _add_suite(suite: Suite, spec: GateSpec, parts: list[Part], criteria: list[Criterion]) -> None:
    """Add the suite, or the criterion that says why it has no verdict."""
    name, least = f"{suite.label}/{CHAMPION}", spec.minimum_suite_items
    if suite.items < least:
        why = f"{suite.items} items, at least {least} are needed"
        criteria.append(undecided(name, why, items=suite.items, required_items=least))
        return
    found = _compared(suite, CHAMPION, suite.leading, spec)
    if isinstance(found, str):
        criteria.append(undecided(name, found))
    else:
        parts.append(Part(name, found))


def _numbers(found: Difference, low: float, high: float) -> dict[str, float | int | str]:
    return {
        "items": found.items,
        "candidate": found.ours,
        "other": found.theirs,
        "difference": found.value,
        "low": low,
        "high": high,
        "won": found.won,
        "lost": found.lost,
        "test": found.test,
    }


def _points(value: float, *, sign: bool = True) -> str:
    """A difference of shares in percentage points."""
    return f"{100 * value:+.1f} points" if sign else f"{100 * value:.1f} points"


def _range(low: float, high: float) -> str:
    return f"{100 * low:+.1f} to {100 * high:+.1f}"


def _p(value: float) -> str:
    return "p below 0.0001" if value < 0.0001 else f"p = {value:.4f}"
