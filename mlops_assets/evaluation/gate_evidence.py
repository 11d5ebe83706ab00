"""What the gate decides on: the scores of single items, paired by item, and the report.

Means are taken here from the records, item by item, and must be those that the report shows.
Whatever is missing, not finite or at odds with itself is a fault, and a gate with a fault gives
no verdict.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlops_assets.artifacts import Artifact, ArtifactStore
from mlops_assets.evaluation.records import RECORDS, TEST, Record, read_records
from mlops_assets.evaluation.report import read_report

if TYPE_CHECKING:
    import numpy as np

    from mlops_assets.evaluation.paired_tests import Scores

    Positions = np.ndarray[Any, np.dtype[np.intp]]

OURS, CHAMPION = "tuned", "champion"
JUDGE = "judge"
"""The section of the report, and the metric in the records of the answers that a judge saw."""
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Suite:
    """The scores of every system on the items of one suite, or of the test split."""

    name: str
    kind: str
    """``test``, else the kind that the suite's YAML gives it."""
    items: int
    leading: str
    """The metric that stands for the suite."""
    scores: Mapping[str, Mapping[str, "Scores"]] = field(default_factory=dict)
    """By metric and system, in the order of the items; NaN where an item has no score."""
    slices: Mapping[str, Mapping[str, "Positions"]] = field(default_factory=dict)
    """Positions of the items of each value of a slicing dimension."""
    tokens: Mapping[str, "Scores"] = field(default_factory=dict)
    """Tokens generated for each item, by system that generates any."""

    @property
    def label(self) -> str:
        """The beginning of the names of its criteria."""
        return self.kind if self.kind in (TEST, JUDGE) else f"suite/{self.name}"

    def of(self, system: str, metric: str = "") -> "Scores | None":
        """The system's scores by ``metric``, the leading one by default; None without any."""
        return self.scores.get(metric or self.leading, {}).get(system)


@dataclass(frozen=True)
class Evidence:
    """Everything that the gate reads of one report."""

    candidate: str
    champion: str | None
    report: Mapping[str, Any]
    suites: Mapping[str, Suite]
    """By name; the test split is among them."""
    faults: tuple[str, ...] = ()
    """Why the numbers cannot be relied on."""

    @property
    def test(self) -> Suite:
        """The test split."""
        return self.suites.get(TEST, Suite(TEST, TEST, 0, ""))

    @property
    def not_applied(self) -> dict[str, str]:
        """Why suites were not put to the models, by suite."""
        found = _mapping(self.report.get("suites")).items()
        said = {name: _mapping(suite) for name, suite in found}
        return {name: str(one.get("reason")) for name, one in said.items() if _unfit(one)}

    @property
    def compared(self) -> bool:
        """Whether there is a champion that is not the candidate itself."""
        return self.champion not in (None, self.candidate)


def read_evidence(store: ArtifactStore, artifact: Artifact) -> Evidence:
    """The evidence in a report's artifact.

    Raises LineageError when it is missing, was changed, or holds no report.
    """
    report = read_report(store, artifact)
    path = store.root / artifact.kind / artifact.key / RECORDS
    try:
        records = read_records(path)
    except (OSError, ValueError, TypeError, KeyError) as error:
        faults = (f"{RECORDS} cannot be read ({type(error).__name__})",)
        return Evidence(str(report.get("candidate")), report.get("champion"), report, {}, faults)
    return make_evidence(report, records)


def make_evidence(report: Mapping[str, Any], records: Iterable[Record]) -> Evidence:
    """The evidence in a report and its records, with every fault that was found."""
    by_suite: dict[str, list[Record]] = {}
    for record in records:
        by_suite.setdefault(record.suite, []).append(record)
    described = _mapping(report.get("suites"))
    faults = [f"{path} is not finite" for path in _not_finite(report)]
    suites = {}
    for name, found in by_suite.items():
        if name != TEST and name not in described:
            faults.append(f"the report does not know the suite {name}")
        kind = TEST if name == TEST else str(_mapping(described.get(name)).get("kind"))
        suites[name] = _make_suite(name, kind, found, faults)
    for name in sorted(described.keys() - suites.keys()):
        said = _mapping(described[name])
        if not _unfit(said):
            suites[name] = Suite(name, str(said.get("kind")), 0, "")
    faults += _contradictions(report, suites)
    candidate = str(report.get("candidate"))
    return Evidence(candidate, report.get("champion"), report, suites, tuple(faults))


def _make_suite(name: str, kind: str, records: Sequence[Record], faults: list[str]) -> Suite:
    import numpy as np

    systems: dict[str, dict[str, Record]] = {}
    for record in records:
        if record.item in systems.setdefault(record.system, {}):
            faults.append(f"{name}: item {record.item} stands twice for {record.system}")
        systems[record.system][record.item] = record
    asked = {item: record.input_hash for item, record in systems.get(OURS, {}).items()}
    if not asked:
        faults.append(f"{name}: there is no answer of {OURS}")
        return Suite(name, kind, 0, "")
    ordered: dict[str, list[Record]] = {}
    for system, found in systems.items():
        if {item: record.input_hash for item, record in found.items()} != asked:
            faults.append(f"{name}: {system} was not asked the same as {OURS}")
            continue
        ordered[system] = [found[item] for item in asked]
    # The judge's metrics stand in the records that it saw alone.
    metrics = list(dict.fromkeys(key for record in ordered[OURS] for key in record.scores))
    return Suite(
        name,
        kind,
        len(asked),
        metrics[0] if metrics else "",
        {
            metric: {
                system: np.array([_number(record.scores.get(metric)) for record in found])
                for system, found in ordered.items()
            }
            for metric in metrics
        },
        _slices(ordered[OURS]),
        {
            system: np.array([_number(record.tokens) for record in found])
            for system, found in ordered.items()
            if any(record.tokens is not None for record in found)
        },
    )


def _slices(records: Sequence[Record]) -> dict[str, dict[str, "Positions"]]:
    import numpy as np

    found: dict[str, dict[str, list[int]]] = {}
    for position, record in enumerate(records):
        for dimension, value in record.slices.items():
            found.setdefault(dimension, {}).setdefault(str(value), []).append(position)
    return {
        dimension: {value: np.array(at) for value, at in sorted(values.items())}
        for dimension, values in sorted(found.items())
    }


def _contradictions(report: Mapping[str, Any], suites: Mapping[str, Suite]) -> Iterator[str]:
    """Where the report shows another number than its own records come to."""
    test = suites.get(TEST, Suite(TEST, TEST, 0, ""))
    if report.get("items") != test.items:
        yield f"the report has {report.get('items')} test rows and {test.items} records of them"
    exact_match = _mapping(report.get("exact_match"))
    shown: dict[str, Mapping[str, Any]] = {TEST: {"exact_match": exact_match}}
    for name, described in _mapping(report.get("suites")).items():
        if name in suites and _mapping(described).get("items") != suites[name].items:
            yield f"the report and the records differ in the number of items of {name}"
        shown[name] = _mapping(_mapping(described).get("metrics"))
    for name, by_metric in shown.items():
        for metric, by_system in by_metric.items():
            for system, mean in _mapping(by_system).items():
                scores = suites[name].of(system, metric) if name in suites else None
                if mean is not None and not _agrees(mean, scores):
                    yield f"{name}: {metric} of {system} is not that of its records"


def _agrees(mean: Any, scores: "Scores | None") -> bool:
    import numpy as np

    if scores is None or not np.isfinite(scores).any():
        return False
    known = float(scores[np.isfinite(scores)].mean())
    return math.isclose(_number(mean), known, abs_tol=TOLERANCE)


def _not_finite(value: Any, path: str = "report") -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _not_finite(item, f"{path}.{key}")
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from _not_finite(item, f"{path}[{position}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield path


def _unfit(suite: Mapping[str, Any]) -> bool:
    """Whether the report says that the suite does not apply to these models."""
    return suite.get("applies") is False


def _number(value: Any) -> float:
    """The number, or NaN for anything else."""
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if usable else math.nan


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
