"""Grafana's dashboards, from the tables below: run this file to write ``dashboards/*.json``.

A panel is a title, a unit of Grafana's, what is shown and how, and its queries by legend. The
JSON beside this file is what Grafana is given; a test compares the two, has Prometheus parse
every query and checks that the gateway shows what they name.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "dashboards"
PROMETHEUS = {"type": "prometheus", "uid": "prometheus"}
LOKI = {"type": "loki", "uid": "loki"}
COLUMNS, HEIGHT = 3, 8
STATES = "state-timeline"
P95 = "histogram_quantile(0.95, sum by (le, arm) (rate(mlops_{}_bucket[$__rate_interval])))"


@dataclass(frozen=True)
class Panel:
    """One panel of a dashboard."""

    title: str
    queries: Mapping[str, str]
    """By legend."""
    unit: str = "short"
    kind: str = "timeseries"
    what: str = ""
    """For people who ask what this is."""

    def as_json(self, number: int) -> dict[str, Any]:
        """The panel at its place in the grid."""
        source = LOKI if self.kind == "logs" else PROMETHEUS
        row, column = divmod(number, COLUMNS)
        width = 24 // COLUMNS
        return {
            "id": number + 1,
            "type": self.kind,
            "title": self.title,
            "description": self.what,
            "datasource": source,
            "gridPos": {"h": HEIGHT, "w": width, "x": column * width, "y": row * HEIGHT},
            "fieldConfig": {"defaults": {"unit": self.unit}, "overrides": []},
            "options": {},
            "targets": [
                {"refId": chr(65 + i), "datasource": source, "expr": expr, "legendFormat": legend}
                for i, (legend, expr) in enumerate(self.queries.items())
            ],
        }


SERVICE = (
    Panel(
        "Requests by status",
        {"{{status}}": "sum by (status) (rate(mlops_requests_total[$__rate_interval]))"},
        "reqps",
    ),
    Panel(
        "Requests without an answer",
        {"5 minutes": "mlops:errors:ratio_rate5m", "1 hour": "mlops:errors:ratio_rate1h"},
        "percentunit",
        what="The objective is at most 1%.",
    ),
    Panel(
        "Latency, 95 of 100",
        {
            "{{arm}}": P95.format("request_seconds"),
            "first byte {{arm}}": P95.format("first_byte_seconds"),
        },
        "s",
    ),
    Panel(
        "Places",
        {"in flight": "mlops_requests_in_flight", "waiting": "mlops_requests_waiting"},
        what="Requests that are answered now, and that wait for their turn.",
    ),
    Panel("Engines", {"{{release}}": "mlops_engine_up"}, kind=STATES, what="1 is ready."),
    Panel(
        "Engines taken down in an hour",
        {"{{release}}": "increase(mlops_engine_restarts_total[1h])"},
    ),
    Panel(
        "Records lost in an hour",
        {"records": "increase(mlops_request_log_errors_total[1h])"},
        kind="stat",
    ),
    Panel("Age of the ledger's state", {"age": "mlops_ledger_age_seconds"}, "s"),
    Panel(
        "Disk",
        {"free": "mlops_disk_free_bytes", "request log": "mlops_request_log_bytes"},
        "bytes",
    ),
    Panel("Access log", {"": '{service_name="gateway"} | json'}, kind="logs"),
)
RELEASE = (
    Panel("Stage", {"{{stage}}": "mlops_release_stage == 1"}, kind=STATES),
    Panel("Users of the candidate", {"percent": "mlops_release_percent"}, "percent"),
    Panel("Releases that are served", {"{{arm}} {{release}}": "mlops_release_info"}, kind=STATES),
    Panel(
        "Failures by arm",
        {
            "{{arm}}": 'sum by (arm) (rate(mlops_requests_total{status=~"5.."}[$__rate_interval]))'
            " / sum by (arm) (rate(mlops_requests_total[$__rate_interval]))"
        },
        "percentunit",
    ),
    Panel("Latency by arm, 95 of 100", {"{{arm}}": P95.format("request_seconds")}, "s"),
    Panel(
        "Thumbs up by arm, of a day",
        {
            "{{arm}}": 'sum by (arm) (increase(mlops_feedback_votes_total{vote="up"}[1d]))'
            ' / sum by (arm) (increase(mlops_feedback_votes_total{vote=~"up|down"}[1d]))'
        },
        "percentunit",
    ),
    Panel(
        "Mirrored requests",
        {"{{outcome}}": "mlops_shadow_requests"},
        what="Answered by the candidate beside the users' answer, or dropped and why.",
    ),
    Panel(
        "Decisions of a day",
        {"{{outcome}}": "increase(mlops_decisions_total[1d])"},
        what="Rows of the ledger: verdicts of the gate, approvals, steps of releases.",
    ),
    Panel(
        "Rollbacks of a week",
        {"rollbacks": 'increase(mlops_decisions_total{outcome="rolled_back"}[7d])'},
        kind="stat",
    ),
)
QUALITY = (
    Panel(
        "Verdict",
        {"{{layer}}: {{verdict}}": "mlops_drift_verdict == 1"},
        kind=STATES,
        what="Of the latest drift report, over all and by layer.",
    ),
    Panel(
        "Effect by column",
        {"{{layer}} {{column}}": "mlops_drift_effect"},
        what="Distance from the reference, 0 to 1.",
    ),
    Panel(
        "Columns that drifted",
        {"{{layer}} {{column}}": "mlops_drift_column_drifted == 1"},
        kind=STATES,
    ),
    Panel(
        "Age of the report",
        {"age": "time() - mlops_drift_report_timestamp_seconds"},
        "s",
        kind="stat",
    ),
    Panel("Records in the report", {"records": "mlops_drift_report_records"}, kind="stat"),
    Panel(
        "Votes of an hour",
        {"{{vote}}": "sum by (vote) (increase(mlops_feedback_votes_total[1h]))"},
    ),
    Panel(
        "Corrected answers",
        {
            "of all": "sum(increase(mlops_feedback_corrections_total[1d]))"
            ' / sum(increase(mlops_requests_total{status="200"}[1d]))'
        },
        "percentunit",
    ),
    Panel(
        "Candidates judged in a week",
        {
            "{{outcome}}": "increase(mlops_decisions_total"
            '{outcome=~"passed|failed|inconclusive"}[7d])'
        },
        what="Each retraining ends in a verdict of the gate.",
    ),
    Panel("Request log", {"size": "mlops_request_log_bytes"}, "bytes"),
)
COST = (
    Panel(
        "Cost of an hour",
        {"{{arm}} {{release}}": "sum by (arm, release) (increase(mlops_cost_total[1h]))"},
        what="In the currency of the gateway's settings.",
    ),
    Panel("Cost of 30 days", {"cost": "sum(increase(mlops_cost_total[30d]))"}, kind="stat"),
    Panel(
        "Cost of 1,000 answers",
        {
            "{{arm}}": "1000 * sum by (arm) (increase(mlops_cost_total[1d]))"
            ' / sum by (arm) (increase(mlops_requests_total{status="200"}[1d]))'
        },
    ),
    Panel(
        "Tokens",
        {"{{direction}}": "sum by (direction) (rate(mlops_tokens_total[$__rate_interval]))"},
        what="A second, read and written.",
    ),
    Panel(
        "Tokens of a day by release",
        {"{{release}}": "sum by (release) (increase(mlops_tokens_total[1d]))"},
    ),
    Panel(
        "Budgets",
        {"{{key}} {{unit}}": "mlops_budget_used_ratio"},
        "percentunit",
        kind="bargauge",
        what="Part of its daily limit that each key has used.",
    ),
    Panel(
        "Answers from the cache",
        {
            "{{kind}}": "sum by (kind) (rate(mlops_cache_hits_total[$__rate_interval]))"
            ' / scalar(sum(rate(mlops_requests_total{status="200"}[$__rate_interval])))'
        },
        "percentunit",
    ),
    Panel(
        "Requests of a day by key",
        {"{{key}}": "sum by (key) (increase(mlops_requests_total[1d]))"},
    ),
)
DASHBOARDS = {
    "Service": SERVICE,
    "Release": RELEASE,
    "Drift and quality": QUALITY,
    "Cost": COST,
}


def dashboard(title: str, panels: Sequence[Panel]) -> dict[str, Any]:
    """A dashboard as Grafana imports it; releases and rollbacks are marked on every graph."""
    return {
        "uid": f"mlops-{file_name(title)}",
        "title": title,
        "tags": ["mlops"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "timezone": "utc",
        "refresh": "30s",
        "time": {"from": "now-24h", "to": "now"},
        "annotations": {
            "list": [
                {
                    "name": "Releases",
                    "datasource": PROMETHEUS,
                    "enable": True,
                    "iconColor": "blue",
                    "expr": 'increase(mlops_decisions_total{outcome=~"canary|released|rolled_back"}'
                    "[1m]) > 0",
                    "titleFormat": "{{outcome}}",
                }
            ]
        },
        "templating": {"list": []},
        "panels": [panel.as_json(number) for number, panel in enumerate(panels)],
    }


def file_name(title: str) -> str:
    """``Drift and quality`` as ``drift-and-quality``."""
    return title.lower().replace(" ", "-")


def write(folder: Path) -> None:
    """Write one file for each dashboard."""
    for title, panels in DASHBOARDS.items():
        text = json.dumps(dashboard(title, panels), indent=1) + "\n"
        (folder / f"{file_name(title)}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
