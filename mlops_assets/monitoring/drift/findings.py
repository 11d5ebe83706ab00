"""What was compared, what came of it, and the verdict of each layer and over all of them.

A finding has drifted when its distance is large enough to matter AND too large for chance,
corrected across every finding of every layer. Either alone misleads: significance finds a shift
of no consequence in a million records, and a distance alone is mostly noise in two hundred.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from operator import itemgetter
from typing import Any

from mlops_assets.multiple_tests import holm

DATA, PREDICTION, BUSINESS, CONCEPT = "data", "prediction", "business", "concept"
LAYERS = (DATA, PREDICTION, BUSINESS, CONCEPT)
"""What users ask, what they are answered, what they think of it, and whether it is right."""
NEEDED = (DATA, PREDICTION)
"""Layers without whose verdict nobody can say that nothing drifted. The others need people who
vote or label, and there may be none."""

DRIFT, NO_DRIFT, NO_VERDICT = "drift", "no_drift", "no_verdict"


@dataclass(frozen=True)
class Finding:
    """One comparison of production with its reference; NaN where it could not be computed."""

    name: str
    """Unique over all layers."""
    layer: str
    kind: str
    """What was compared: ``numeric``, ``categorical``, ``embedding``, ``rate``."""
    effect: float
    """Distance from the reference, 0 to 1. One-sided in the layers business and concept: 0 when
    production is no worse."""
    min_effect: float
    """Smallest effect that counts."""
    p: float
    """Of a test that is right however many records there are; not corrected."""
    reference_n: int
    current_n: int
    detail: str = ""
    """A phrase for people, such as ``exact match 0.82, was 0.91``."""
    left_out: str = ""
    """Why the finding takes no part in the verdict, such as ``12 labels, 50 are needed``. It must
    not depend on what was found, or the correction is no longer right."""
    effective_n: int | None = None
    """How many requests, each of another user, production's count as; None where that plays no
    part."""

    @property
    def counts(self) -> bool:
        """Whether it takes part in the verdict."""
        return not self.left_out

    @property
    def missing(self) -> bool:
        """Whether it takes part and has no value."""
        return self.counts and not math.isfinite(self.effect + self.p)


@dataclass(frozen=True)
class LayerVerdict:
    """The outcome of one layer, in a word and in a sentence."""

    verdict: str
    reason: str
    columns: tuple[str, ...] = ()
    """Names of the findings that drifted."""


@dataclass(frozen=True)
class Verdict:
    """The outcome over all layers."""

    verdict: str
    reason: str
    drifted: tuple[str, ...]
    layers: Mapping[str, LayerVerdict] = field(default_factory=dict)
    corrected: Mapping[str, float] = field(default_factory=dict)
    """Holm-corrected p by finding, of those that take part."""


def too_few(found: int, needed: int, what: str = "records") -> str:
    """Why a finding on ``found`` of something is left out; empty where that is enough."""
    return f"{found:,} {what}, {needed:,} are needed" if found < needed else ""


def few_users(findings: Sequence[Finding]) -> str:
    """As how many requests those of few users count, where it is fewest; empty from half on."""
    counted = [(each.effective_n, each) for each in findings if each.effective_n is not None]
    fewest, where = min(counted, key=itemgetter(0), default=(0, None))
    if where is None or fewest > where.current_n / 2:
        return ""
    return f"; {where.current_n:,} requests of few users count as {fewest:,} in {where.name}"


def decide(findings: Sequence[Finding], alpha: float) -> Verdict:
    """The verdict of each layer and over all. Too few records or a missing value give none.

    ``alpha`` is the chance of a false alarm over all findings together. Raises ValueError when
    two findings share a name.
    """
    if len({finding.name for finding in findings}) < len(findings):
        raise ValueError("two findings have the same name")
    counting = [finding for finding in findings if finding.counts]
    # A value that is missing must not shrink the family: it counts as p = 1 here, and its
    # layer's verdict is withheld in any case.
    corrected = holm([1.0 if finding.missing else finding.p for finding in counting])
    by_name = {finding.name: p for finding, p in zip(counting, corrected, strict=True)}
    drifted = [
        finding.name
        for finding in counting
        if finding.effect >= finding.min_effect and by_name[finding.name] < alpha
    ]
    layers = {
        layer: _of_layer([finding for finding in findings if finding.layer == layer], drifted)
        for layer in LAYERS
    }
    return _overall(layers, by_name, few_users(counting))


def as_json(finding: Finding, verdict: Verdict, **more: Any) -> dict[str, Any]:
    """A finding in ``drift.json``, with the corrected p; a missing number is null."""
    values = asdict(finding) | {
        **more,
        "p_corrected": verdict.corrected.get(finding.name, math.nan),
        "drifted": finding.name in verdict.drifted,
    }
    return {key: _number(value) for key, value in values.items()}


def _of_layer(findings: Sequence[Finding], drifted: Sequence[str]) -> LayerVerdict:
    counting = [finding for finding in findings if finding.counts]
    if not counting:
        reasons = dict.fromkeys(finding.left_out for finding in findings)
        return LayerVerdict(NO_VERDICT, "; ".join(reasons) or "nothing was compared")
    if missing := [finding.name for finding in counting if finding.missing]:
        return LayerVerdict(NO_VERDICT, f"no value for {', '.join(missing)}")
    names = tuple(finding.name for finding in counting if finding.name in drifted)
    if names:
        reason = f"{len(names)} of {_columns(len(counting))} drifted"
        return LayerVerdict(DRIFT, reason, names)
    reason = f"none of {_columns(len(counting))} drifted{few_users(counting)}"
    return LayerVerdict(NO_DRIFT, reason)


def _overall(
    layers: Mapping[str, LayerVerdict], corrected: Mapping[str, float], few: str
) -> Verdict:
    drifted = tuple(name for layer in layers.values() for name in layer.columns)
    if drifted:
        where = [name for name, layer in layers.items() if layer.verdict == DRIFT]
        reason = f"{len(drifted)} of {_columns(len(corrected))} drifted ({', '.join(where)})"
        return Verdict(DRIFT, reason, drifted, layers, corrected)
    without = [name for name in NEEDED if layers[name].verdict == NO_VERDICT]
    if without:
        reasons = dict.fromkeys(layers[name].reason for name in without)
        return Verdict(NO_VERDICT, "; ".join(reasons), (), layers, corrected)
    reason = f"none of {_columns(len(corrected))} drifted{few}"
    return Verdict(NO_DRIFT, reason, (), layers, corrected)


def _columns(count: int) -> str:
    return f"{count} column" if count == 1 else f"{count} columns"


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
