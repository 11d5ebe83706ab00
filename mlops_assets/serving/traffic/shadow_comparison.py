"""What the pairs of a shadow say: how often both releases agree, and how each of them fared.

Numbers alone, from pairs alone; what decides is the verdict of ``rollout``.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from mlops_assets.artifacts import canonical_json
from mlops_assets.metrics import paired_difference, parse_object, percentile, share, wilson
from mlops_assets.refusals import is_refusal
from mlops_assets.serving.traffic.shadow_pairs import ShadowPair, Side

LIVE, SHADOW = "live", "shadow"
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
MISSING = {"": "no such field"}
BINS_PER_DECADE = 16
"""Of the latency's histogram, on a logarithmic scale."""


def compare(pairs: Sequence[ShadowPair]) -> dict[str, Any]:
    """Everything about these pairs that people look at, as JSON values."""
    answered = [pair for pair in pairs if not pair.live.error and not pair.shadow.error]
    return {
        "pairs": len(pairs),
        "first": min((pair.timestamp for pair in pairs), default=""),
        "last": max((pair.timestamp for pair in pairs), default=""),
        "tokens": sum(pair.tokens for pair in pairs),
        "agreement": _agreement(answered),
        "json": _json_agreement(answered),
        "rates": {name: _rates(pairs, found) for name, found in MEASURES.items()},
        "errors": {
            side: dict(Counter(one.error for one in _side(pairs, side) if one.error))
            for side in (LIVE, SHADOW)
        },
        "latency": {side: _latency(_side(answered, side)) for side in (LIVE, SHADOW)},
        "histogram": _histogram(answered),
    }


def agree(pair: ShadowPair) -> bool:
    """Whether both gave the same answer, whatever its spaces and, of JSON, the order of keys."""
    one, other = parse_object(pair.live.output), parse_object(pair.shadow.output)
    if one is not None and other is not None:
        return canonical_json(one) == canonical_json(other)
    return pair.live.output.strip() == pair.shadow.output.strip()


def is_empty(side: Side) -> bool:
    """An answer without text or tool call."""
    return not side.error and not side.tool_calls and not side.output.strip()


MEASURES = {
    "errors": lambda side: bool(side.error),
    "empty": is_empty,
    "refusals": lambda side: not side.error and is_refusal(side.output),
}


def _agreement(answered: Sequence[ShadowPair]) -> dict[str, Any]:
    """Of the pairs in which both answered."""
    same = [agree(pair) for pair in answered]
    return _same(same)


def _same(same: Sequence[bool]) -> dict[str, Any]:
    return {"pairs": len(same), "same": share(same), "interval": wilson(sum(same), len(same))}


def _json_agreement(answered: Sequence[ShadowPair]) -> dict[str, Any]:
    """Field by field, of the pairs in which both answers are JSON objects."""
    parsed = [(parse_object(p.live.output), parse_object(p.shadow.output)) for p in answered]
    both = [(one, other) for one, other in parsed if one is not None and other is not None]
    fields = sorted({name for one, other in both for name in (*one, *other)})
    found = {}
    for name in fields:
        same = [
            name in one
            and name in other
            and canonical_json(one[name]) == canonical_json(other[name])
            for one, other in both
            if name in one or name in other
        ]
        found[name] = {
            "pairs": len(same),
            "same": share(same),
            "interval": wilson(sum(same), len(same)),
        }
    return {
        "pairs": len(both),
        "valid": {
            LIVE: share([one is not None for one, _ in parsed]),
            SHADOW: share([other is not None for _, other in parsed]),
        },
        "fields": found,
    }


def _rates(pairs: Sequence[ShadowPair], found: Any) -> dict[str, Any]:
    """How often something was found on each side, and the paired difference, with intervals."""
    counts = {side: [bool(found(one)) for one in _side(pairs, side)] for side in (LIVE, SHADOW)}
    difference = paired_difference(*(list(map(float, counts[side])) for side in (SHADOW, LIVE)))
    return {
        **{
            side: {
                "count": sum(hits),
                "share": share(hits),
                "interval": wilson(sum(hits), len(hits)),
            }
            for side, hits in counts.items()
        },
        "difference": difference and difference[0],
        "interval": difference and difference[1],
    }


def _latency(sides: Sequence[Side]) -> dict[str, float | None]:
    """Milliseconds."""
    times = [side.latency_ms for side in sides if math.isfinite(side.latency_ms)]
    return {name: percentile(times, at) for name, at in QUANTILES.items()}


def _histogram(answered: Sequence[ShadowPair]) -> dict[str, Any]:
    """Counts of both sides over the same bins; ``edges`` are in milliseconds."""
    bins = {side: Counter(map(_bin, _side(answered, side))) for side in (LIVE, SHADOW)}
    seen = bins[LIVE].keys() | bins[SHADOW].keys()
    if not seen:
        return {"edges": [], LIVE: [], SHADOW: []}
    places = range(min(seen), max(seen) + 1)
    edges = [10 ** (place / BINS_PER_DECADE) for place in (*places, places[-1] + 1)]
    return {"edges": edges, **{side: [bins[side][place] for place in places] for side in bins}}


def _bin(side: Side) -> int:
    return math.floor(BINS_PER_DECADE * math.log10(max(side.latency_ms, 0.1)))


def _side(pairs: Sequence[ShadowPair], name: str) -> list[Side]:
    return [pair.live if name == LIVE else pair.shadow for pair in pairs]
