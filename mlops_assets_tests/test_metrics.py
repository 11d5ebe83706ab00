"""What Prometheus reads of the gateway: the table in its docs, votes, the ledger, drift."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mlops_assets.artifacts import Recipe
from mlops_assets.feedback_record import FeedbackRecord
from mlops_assets.home import Home
from mlops_assets.ledger import ROLLED_BACK
from mlops_assets.profiles import PROJECT
from mlops_assets.ref_json import dump_ref
from mlops_assets.refs import DriftReportRef
from mlops_assets.serving.gateway.home_metrics import HomeMetrics
from mlops_assets.serving.gateway.server_metrics import ServerMetrics
from mlops_assets.serving.gateway.state_metrics import EngineHealth
from mlops_assets_tests.conftest import VERSIONS

RELEASE = "ab" * 32
DRIFT = {
    "words": {"layer": "data", "effect": 0.4, "drifted": True},
    "queue": {"layer": "prediction", "effect": None, "drifted": False},
}


def report_drift(home: Home, columns: dict[str, Any] = DRIFT) -> DriftReportRef:
    """As if the job `monitor` had found this."""

    def produce(directory: Path) -> dict[str, Any]:
        (directory / "drift.json").write_text(json.dumps({"columns": columns}))
        return {}

    artifact = home.store.build(Recipe("drift_report", {}, {"columns": columns}, "1"), produce)
    layers = {"data": "drift", "prediction": "no_verdict"}
    ref = DriftReportRef(artifact, "drift", ("words",), 1000, VERSIONS, layers)
    home.write_ref("drift_report", "a-run", dump_ref(ref))
    return ref


@pytest.fixture
def metrics(home: Home) -> ServerMetrics:
    """Those of a gateway to which everything has happened once."""
    metrics = ServerMetrics()
    metrics.count(RELEASE, "champion", 200, "team")
    metrics.observe(RELEASE, "champion", 0.2, 0.1, (30, 5), 0.25)
    metrics.cache_hit("exact")
    metrics.serving({"champion": RELEASE})
    metrics.observe_shadow(
        dict.fromkeys(("pairs", "queue_full", "budget", "no_spare_capacity", "log"), 0)
    )
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


def described(metrics: ServerMetrics) -> list[list[str]]:
    """The table of the docs, made from a scrape."""
    rows = []
    for family in families(metrics):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for one in family.samples for label in one.labels} - {"le"}
        shown = ", ".join(f"`{label}`" for label in sorted(labels))
        rows.append([f"`{name}`", family.type, shown, family.documentation])
    return sorted(rows)


def test_the_table_in_the_docs_is_what_is_shown(metrics: ServerMetrics) -> None:
    table = (PROJECT / "docs/gateway.md").read_text().split("| metric |", 1)[1].split("\n\n", 1)[0]
    told = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]
    ]
    assert told == described(metrics)


def test_nothing_is_shown_that_nobody_reads(metrics: ServerMetrics) -> None:
    assert not [name for name, *_ in samples(metrics) if name.endswith("_created")]


def test_votes_are_counted_by_what_they_say(metrics: ServerMetrics) -> None:
    for change in (
        {"score": 0.0, "correction": ""},
        {"score": 0.7, "correction": ""},
        {"metric": "resolved-by-a-caller", "correction": ""},
    ):
        metrics.vote(vote(**change))
    found = samples(metrics)
    short = RELEASE[:12]
    votes = {
        key[-1]: value for key, value in found.items() if key[0] == "mlops_feedback_votes_total"
    }
    assert votes == {"up": 1, "down": 1, "between": 1, "other": 1}
    assert found["mlops_feedback_corrections_total", "champion", short] == 1
    assert "resolved-by-a-caller" not in str(found)


def test_the_ledgers_rows_are_shown_from_the_first_on(metrics: ServerMetrics) -> None:
    """A rollback that comes first is an increase from 0, which alerts look for."""
    found = samples(metrics)
    assert found["mlops_decisions_total", ROLLED_BACK] == 2
    assert found["mlops_decisions_total", "rejected"] == 0


def test_the_latest_drift_report_is_shown(metrics: ServerMetrics, home: Home) -> None:
    found = samples(metrics)
    assert found["mlops_drift_verdict", "overall", "drift"] == 1
    assert found["mlops_drift_verdict", "overall", "no_drift"] == 0
    assert found["mlops_drift_verdict", "prediction", "no_verdict"] == 1
    assert found["mlops_drift_effect", "words", "data"] == 0.4
    assert ("mlops_drift_effect", "queue", "prediction") not in found, "a missing number is none"
    assert found["mlops_drift_report_timestamp_seconds",] == home.materialised("drift_report")
    report_drift(home, {"words": {"layer": "data", "effect": 0.1, "drifted": False}})
    assert samples(metrics)["mlops_drift_effect", "words", "data"] == 0.1


def test_a_report_that_cannot_be_read_says_nothing(
    metrics: ServerMetrics, home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    asyncio.run(metrics.render())
    ref = report_drift(home)
    gone = replace(ref, artifact=replace(ref.artifact, key="0" * 64))
    home.write_ref("drift_report", "a-run", dump_ref(gone))
    for _ in range(2):
        names = {name for name, *_ in samples(metrics)}
        assert not [name for name in names if name.startswith("mlops_drift_")]
        assert "mlops_disk_free_bytes" in names
    assert len(caplog.records) == 1, "told once"


def test_before_the_first_report_there_is_no_verdict(home: Home) -> None:
    metrics = ServerMetrics()
    metrics.watch_home(HomeMetrics(home, home.root / "serving/requests"))
    assert not [name for name, *_ in samples(metrics) if name.startswith("mlops_drift_")]
