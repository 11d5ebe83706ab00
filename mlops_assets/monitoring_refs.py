"""What the assets of monitoring hand to each other; see ``refs`` for those of the other stages."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mlops_assets.artifacts import Artifact
from mlops_assets.refs import Versions


@dataclass(frozen=True)
class PredictionLogRef:
    """``parts.json``: the Parquet parts of production's log, oldest first."""

    artifact: Artifact
    records: int
    """Answered requests among the newest, as many as are looked at."""
    unreadable: int
    """Lines that were skipped: torn, unreadable, or with an id that was there before."""


@dataclass(frozen=True)
class FeedbackRowsRef:
    """``training.jsonl``, ``regressions.jsonl``, ``provenance.jsonl`` and ``quarantine.jsonl``."""

    artifact: Artifact
    training: int
    """Rows to learn from."""
    cases: int
    """Cases to ask every candidate."""
    version: str
    """Name of the version in force; empty before there is any."""


@dataclass(frozen=True)
class AnswerQualityRef:
    """``quality.json``, its page and its plot."""

    artifact: Artifact
    release: str
    """Digest of the bundle in force whose answers were measured; empty before the first."""
    requests: int
    """In the current window."""


@dataclass(frozen=True)
class DriftReferenceRef:
    """What production is compared with: rows, sketches and vocabulary of a train split."""

    artifact: Artifact
    rows: int
    """Train rows that are compared."""
    release: str
    """Digest of the release in force, whose answers are looked at; empty before the first."""
    versions: Versions
    """Of the train split."""


@dataclass(frozen=True)
class DriftReportRef:
    """``drift.json`` and ``drift.html``."""

    artifact: Artifact
    verdict: str
    """``drift``, ``no_drift`` or ``no_verdict`` (too few records, or a value missing)."""
    columns: tuple[str, ...]
    """The columns that drifted."""
    records: int
    versions: Versions
    """Of the train split that production was compared with."""
    layers: Mapping[str, str] = field(default_factory=dict)
    """Verdict of each layer: data, prediction, business, concept."""
