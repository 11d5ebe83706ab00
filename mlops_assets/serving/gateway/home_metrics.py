"""Metrics of what lies in MLOPS_HOME: the latest drift report, the request log, the disk.

The report is made by a job in another process, days before or minutes ago. It is read again only
when there is another one; its files are not hashed for that: nothing is decided on these numbers.
"""

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home
from mlops_assets.monitoring_refs import DriftReportRef

logger = logging.getLogger(__name__)

OVERALL = "overall"
VERDICTS = ("drift", "no_drift", "no_verdict")
REPORT = "drift.json"


@dataclass(frozen=True)
class DriftSeen:
    """What the latest report says."""

    made: float | None = None
    """Seconds since the epoch."""
    records: int = 0
    verdicts: Mapping[str, str] = field(default_factory=dict)
    """By layer, and over all."""
    columns: Mapping[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    """What was found, by layer and column."""


class HomeMetrics(Collector):
    """What was seen at the last look."""

    def __init__(self, home: Home, requests: Path) -> None:
        """``requests`` is the directory of the request log."""
        self._home, self._requests = home, requests
        self._seen: float | None = None
        self._drift = DriftSeen()
        self._log_bytes, self._free, self._size = 0, 0, 0

    def look(self) -> None:
        """See what is there now. Waits for the disk."""
        try:
            self._log_bytes = sum(path.stat().st_size for path in self._requests.glob("*.jsonl"))
            usage = shutil.disk_usage(self._home.root)
            self._free, self._size = usage.free, usage.total
            made = self._home.materialised("drift_report")
        except OSError as error:
            logger.warning("the home cannot be shown in metrics: %s", error)
            return
        if made is not None and made != self._seen:
            self._seen, self._drift = made, self._read_drift(made)

    def _read_drift(self, made: float) -> DriftSeen:
        """A report that cannot be read says nothing: neither does the one before it any more."""
        try:
            ref = self._home.latest("drift_report")
            if not isinstance(ref, DriftReportRef):
                return DriftSeen()
            directory = self._home.store.root / ref.artifact.kind / ref.artifact.key
            columns = json.loads((directory / REPORT).read_bytes())["columns"]
            found = {(values["layer"], name): values for name, values in columns.items()}
        except (OSError, LineageError, ValueError, LookupError) as error:
            logger.warning("the latest drift report cannot be shown in metrics: %r", error)
            return DriftSeen()
        return DriftSeen(made, ref.records, {OVERALL: ref.verdict, **ref.layers}, found)

    def collect(self) -> Iterator[Metric]:
        """Every family, with or without samples."""
        yield GaugeMetricFamily(
            "mlops_request_log_bytes", "Size of the request log.", self._log_bytes
        )
        yield GaugeMetricFamily(
            "mlops_disk_free_bytes", "Free space on the disk of MLOPS_HOME.", self._free
        )
        yield GaugeMetricFamily(
            "mlops_disk_size_bytes", "Size of the disk of MLOPS_HOME.", self._size
        )
        yield from self._verdicts()
        yield from self._columns()

    def _verdicts(self) -> Iterator[Metric]:
        drift = self._drift
        made = GaugeMetricFamily(
            "mlops_drift_report_timestamp_seconds",
            "When the latest drift report was made, since the epoch; none before the first.",
            labels=(),
        )
        records = GaugeMetricFamily(
            "mlops_drift_report_records",
            "Records that the latest drift report looked at.",
            labels=(),
        )
        if drift.made is not None:
            made.add_metric((), drift.made)
            records.add_metric((), drift.records)
        verdict = GaugeMetricFamily(
            "mlops_drift_verdict",
            "1 for the latest report's verdict, over all and of each layer.",
            labels=("layer", "verdict"),
        )
        for layer, said in drift.verdicts.items():
            for name in VERDICTS:
                verdict.add_metric((layer, name), said == name)
        yield from (made, records, verdict)

    def _columns(self) -> Iterator[Metric]:
        effect = GaugeMetricFamily(
            "mlops_drift_effect",
            "Distance of a column from its reference, 0 to 1.",
            labels=("layer", "column"),
        )
        drifted = GaugeMetricFamily(
            "mlops_drift_column_drifted",
            "Whether a column has drifted: its distance matters and is too large for chance.",
            labels=("layer", "column"),
        )
        for labels, values in self._drift.columns.items():
            if values["effect"] is not None:
                effect.add_metric(labels, values["effect"])
            drifted.add_metric(labels, values["drifted"])
        yield from (effect, drifted)
