"""The metrics of a gateway to which everything has happened once, and how a scrape reads them."""

import asyncio
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from mlops_assets.artifacts import Recipe
from mlops_assets.feedback_record import FeedbackRecord
from mlops_assets.home import Home
from mlops_assets.ledger import ROLLED_BACK
from mlops_assets.monitoring.drift.findings import DATA, PREDICTION, Finding, decide
from mlops_assets.monitoring.drift.spec import DriftSpec
from mlops_assets.monitoring.drift.verdict import REPORT, as_report
from mlops_assets.monitoring_refs import DriftReportRef
from mlops_assets.ref_json import dump_ref
from mlops_assets.serving.gateway.home_metrics import HomeMetrics
from mlops_assets.serving.gateway.server_metrics import ServerMetrics
from mlops_assets.serving.gateway.state_metrics import EngineHealth
from mlops_assets.serving.traffic.shadow import OUTCOMES
from mlops_assets_tests.conftest import VERSIONS

RELEASE = "ab" * 32


def finding(name: str, layer: str, effect: float, p: float = 0.5) -> Finding:
    """What a comparison of 1,000 records with 1,000 rows found."""
    return Finding(name, layer, "numeric", effect, 0.1, p, 1000, 1000)


DRIFTED = (finding("words", DATA, 0.4, 1e-9), finding("queue", PREDICTION, math.nan))
CALM = (finding("words", DATA, 0.01), finding("queue", PREDICTION, 0.02))


def make_metrics(home: Home) -> ServerMetrics:
    """Every metric has a sample."""
    metrics = ServerMetrics()
    metrics.count(RELEASE, "champion", 200, "team")
    metrics.observe(RELEASE, "champion", 0.2, 0.1, (30, 5), 0.25)
    metrics.cache_hit("exact")
    metrics.serving({"champion": RELEASE})
    metrics.observe_shadow(dict.fromkeys(OUTCOMES, 0))
    metrics.vote(vote())
    state = metrics.state
    state.budgets = lambda: {("team", "tokens"): 0.5}
    state.engines = lambda: (EngineHealth(RELEASE, up=True, restarts=2),)
    state.outcomes = lambda: ("promoted", ROLLED_BACK, ROLLED_BACK)
    report_drift(home)
    metrics.watch_home(HomeMetrics(home, home.root / "serving/requests"))
    return metrics


def vote(**changes: Any) -> FeedbackRecord:
    """Somebody liked an answer and still knew a better one."""
    told = {"id": "v", "timestamp": "", "request": "r", "score": 1.0, "correction": "Hardware."}
    return FeedbackRecord(**told | {"release": RELEASE, "arm": "champion"} | changes)


def report_drift(home: Home, findings: Sequence[Finding] = DRIFTED) -> DriftReportRef:
    """As if the job `monitor` had found this."""
    verdict, spec = decide(findings, alpha=0.01), DriftSpec()
    report = as_report(findings, verdict, spec, psi={})

    def produce(directory: Path) -> dict[str, Any]:
        (directory / REPORT).write_text(json.dumps(report, allow_nan=False))
        return {}

    artifact = home.store.build(Recipe("drift_report", {}, {"report": report}, "1"), produce)
    layers = {name: layer.verdict for name, layer in verdict.layers.items()}
    ref = DriftReportRef(artifact, verdict.verdict, verdict.drifted, 1000, VERSIONS, layers)
    home.write_ref("drift_report", "a-run", dump_ref(ref))
    return ref


def families(metrics: ServerMetrics) -> Iterator[Any]:
    """What a scrape gives."""
    return text_string_to_metric_families(asyncio.run(metrics.render()).decode())


def samples(metrics: ServerMetrics) -> dict[tuple[str, ...], float]:
    """Values of a scrape by name and labels' values."""
    return {
        (one.name, *one.labels.values()): one.value
        for family in families(metrics)
        for one in family.samples
    }


def labels(metrics: ServerMetrics) -> dict[str, set[str]]:
    """Labels by the names under which Prometheus knows what it has read."""
    return {one.name: set(one.labels) for family in families(metrics) for one in family.samples}
