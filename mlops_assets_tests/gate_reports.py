"""Reports and records written by hand, so that every verdict of the gate can be asked for."""

from collections.abc import Mapping, Sequence
from typing import Any

from mlops_assets.evaluation.gate_evidence import Evidence, make_evidence
from mlops_assets.evaluation.records import TEST, Record

CANDIDATE, CHAMPION = "c" * 64, "d" * 64
ITEMS = 400
Scores = Sequence[float | None]


def rights(count: int, items: int = ITEMS) -> list[float]:
    """The first ``count`` items are right."""
    return [1.0] * count + [0.0] * (items - count)


def make_records(
    suite: str,
    metric: str,
    systems: Mapping[str, Scores],
    slices: Sequence[Mapping[str, str]] = (),
    more: Mapping[str, Mapping[str, Scores]] | None = None,
    tokens: Mapping[str, int] | None = None,
) -> list[Record]:
    """A record for each item and system. ``more`` holds scores by further metric and system."""
    return [
        Record(
            suite,
            f"{suite}-{item}",
            f"hash-{item}",
            system,
            "{}",
            tokens=(tokens or {}).get(system),
            slices=slices[item] if slices else {},
            scores={metric: score}
            | {name: by[system][item] for name, by in (more or {}).items() if system in by},
        )
        for system, scores in systems.items()
        for item, score in enumerate(scores)
    ]


def share(scores: Scores) -> float | None:
    """The mean of the scores that there are."""
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known else None


def make_report(
    systems: Mapping[str, Scores],
    champion: str | None,
    suites: Mapping[str, tuple[str, Mapping[str, Scores]]] | None = None,
) -> dict[str, Any]:
    """A report that agrees with the records; ``suites`` gives kind and scores by system."""
    models = [name for name in ("base", "tuned", "champion") if name in systems]
    return {
        "items": len(systems["tuned"]),
        "answers": "json",
        "candidate": CANDIDATE,
        "champion": champion,
        "exact_match": {name: share(scores) for name, scores in systems.items()},
        "latency": {name: {"p50_ms": 8.0, "p95_ms": 10.0, "requests": 50} for name in models},
        "suites": {
            name: {
                "kind": kind,
                "applies": True,
                "items": len(scores["tuned"]),
                "metrics": {"score": {system: share(by) for system, by in scores.items()}},
            }
            for name, (kind, scores) in (suites or {}).items()
        },
        "judge": {"configured": False, "vote": False, "complete": False, "reason": "none"},
    }


def make_case(
    tuned: Scores | None = None,
    champion: Scores | None = None,
    base: Scores | None = None,
    majority: Scores | None = None,
    slices: Sequence[Mapping[str, str]] = (),
    suites: Mapping[str, tuple[str, Mapping[str, Scores]]] | None = None,
    metrics: Mapping[str, Mapping[str, Scores]] | None = None,
    tokens: Mapping[str, int] | None = None,
) -> tuple[dict[str, Any], list[Record]]:
    """A good candidate, 300 of 400 right beside a base of 40, but for what is said.

    With ``champion`` there is one to compare with.
    """
    found = {
        "base": base or rights(40),
        "tuned": tuned or rights(300),
        "majority": majority or rights(80),
    }
    if champion is not None:
        found["champion"] = champion
    models = [name for name in found if name != "majority"]
    valid = {"valid_json": {name: [1.0] * len(found[name]) for name in found}}
    known = tokens or dict.fromkeys(models, 12)
    records = make_records(TEST, "exact_match", found, slices, valid | dict(metrics or {}), known)
    for name, (_, scores) in (suites or {}).items():
        records += make_records(name, "score", scores)
    return make_report(found, CHAMPION if champion is not None else None, suites), records


def make_gate_evidence(**options: Any) -> Evidence:
    """The evidence of ``make_case``."""
    return make_evidence(*make_case(**options))
