"""What Prometheus reads of the gateway: the table in its docs, votes, the ledger, drift."""

import asyncio
from dataclasses import replace

import pytest

from mlops_assets.home import Home
from mlops_assets.ledger import ROLLED_BACK
from mlops_assets.profiles import PROJECT
from mlops_assets.ref_json import dump_ref
from mlops_assets.serving.gateway.home_metrics import HomeMetrics
from mlops_assets.serving.gateway.server_metrics import ServerMetrics
from mlops_assets_tests.shown_metrics import (
    CALM,
    RELEASE,
    families,
    make_metrics,
    report_drift,
    samples,
    vote,
)


@pytest.fixture
def metrics(home: Home) -> ServerMetrics:
    return make_metrics(home)


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
    report_drift(home, CALM)
    found = samples(metrics)
    assert found["mlops_drift_effect", "words", "data"] == 0.01
    assert found["mlops_drift_verdict", "overall", "no_drift"] == 1


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
