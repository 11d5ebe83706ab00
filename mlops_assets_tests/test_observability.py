"""Dashboards, compose file and configuration name what there is, and each other rightly."""

import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlops_assets.home import Home
from mlops_assets.profiles import PROJECT
from mlops_assets_tests.commands import run_command
from mlops_assets_tests.prometheus_server import CONFIGURATION, read_yaml, run_program
from mlops_assets_tests.shown_metrics import labels, make_metrics

GRAFANA = CONFIGURATION / "grafana"
DASHBOARDS = {path.name: json.loads(path.read_text()) for path in GRAFANA.glob("dashboards/*.json")}
COMPOSE = read_yaml("compose.yaml")
SERVICES = COMPOSE["services"]
OTHERS = {"up": {"job"}, "alertmanager_notifications_failed_total": {"integration"}}
"""Metrics that are not ours, with the labels that we use."""


def rules() -> list[dict[str, Any]]:
    return [
        rule for group in read_yaml("prometheus", "alerts.yml")["groups"] for rule in group["rules"]
    ]


def queries() -> Iterator[str]:
    """Every PromQL expression of a rule, a panel or an annotation."""
    yield from (rule["expr"] for rule in rules())
    for dashboard in DASHBOARDS.values():
        targets = [target for panel in dashboard["panels"] for target in panel["targets"]]
        for one in (*targets, *dashboard["annotations"]["list"]):
            if one["datasource"]["type"] == "prometheus":
                yield one["expr"].replace("$__rate_interval", "5m")


def test_the_dashboards_are_what_their_tables_say(tmp_path: Path) -> None:
    runpy.run_path(str(GRAFANA / "dashboards.py"))["write"](tmp_path)
    assert {path.name: json.loads(path.read_text()) for path in tmp_path.iterdir()} == DASHBOARDS
    assert len({dashboard["uid"] for dashboard in DASHBOARDS.values()}) == len(DASHBOARDS) == 4


def test_prometheus_takes_every_query(tmp_path: Path) -> None:
    recorded = [{"record": f"query:{i}", "expr": expr} for i, expr in enumerate(queries())]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": recorded}]}))
    assert f"{len(recorded)} rules found" in run_program("promtool", "check", "rules", file)


def test_every_query_asks_for_what_is_shown(home: Home) -> None:
    shown = labels(make_metrics(home)) | OTHERS
    shown |= {rule["record"]: set() for rule in rules() if "record" in rule}
    all_labels = set().union(*shown.values())
    for query in queries():
        bare = re.sub(r'"[^"]*"', '""', query)
        named = set(re.findall(r"\b(?:mlops[_:][a-z0-9_:]+|up\b|alertmanager_\w+)", bare))
        assert named, query
        assert named <= set(shown), query
        for name, inside in re.findall(r"(\w+)\{([^}]*)\}", bare):
            assert set(re.findall(r"(\w+) *(?:=|!)", inside)) <= shown[name], query
        for inside in re.findall(r"by \(([^)]*)\)", bare):
            assert set(re.split(r", *", inside)) <= all_labels, query


def test_every_metric_is_watched_or_shown(home: Home) -> None:
    asked = " ".join(queries())
    unused = {name for name in labels(make_metrics(home)) if not re.search(rf"\b{name}\b", asked)}
    unused -= {name for name in unused if name.endswith(("_sum", "_count"))}  # of histograms
    assert unused == set()


def test_the_datasources_of_panels_are_provisioned() -> None:
    given = read_yaml("grafana", "provisioning", "datasources", "datasources.yml")["datasources"]
    uids = {source["uid"]: source["type"] for source in given}
    for dashboard in DASHBOARDS.values():
        for panel in dashboard["panels"]:
            assert uids[panel["datasource"]["uid"]] == panel["datasource"]["type"]


def test_the_compose_file_is_one(tmp_path: Path) -> None:
    words = ("--builtin-schema", "vendor.compose-spec", str(CONFIGURATION / "compose.yaml"))
    checked = run_command("check-jsonschema", *words, home=tmp_path)
    assert checked.code == 0, checked.output


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "network_mode", "pid", "cap_add", "devices"} & set(service)
    for port in service.get("ports", ()):
        assert port.startswith("127.0.0.1:"), "on loopback alone"
    if service["image"] != "mlops-assets":
        assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), "a pinned tag"
    for volume in service.get("volumes", ()):
        source, *_ = volume.split(":")
        if source.startswith("."):
            assert volume.endswith(":ro"), volume
            assert (CONFIGURATION / source).exists(), volume
        else:
            assert source in COMPOSE["volumes"], volume
    ends, hollow = name == "metrics-key", name == "otel-collector"
    assert ("healthcheck" in service) != (ends or hollow)
    for other in service.get("depends_on", {}):
        assert other in SERVICES


def test_addresses_in_the_configuration_are_services() -> None:
    texts = [path.read_text() for path in CONFIGURATION.rglob("*.y*ml")]
    found = {host for text in texts for host in re.findall(r"https?://([a-z-]+):\d+", text)}
    for job in read_yaml("prometheus", "prometheus.yml")["scrape_configs"]:
        found |= {
            target.split(":")[0] for each in job["static_configs"] for target in each["targets"]
        }
    assert found - {"localhost"} <= set(SERVICES)


def test_secrets_stand_in_files_that_compose_makes_of_the_environment() -> None:
    receivers = read_yaml("alertmanager", "alertmanager.yml")["receivers"]
    named = {slack["api_url_file"] for each in receivers for slack in each["slack_configs"]}
    grafana = SERVICES["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"]
    assert {*named, grafana} == {f"/run/secrets/{name}" for name in COMPOSE["secrets"]}
    assert all(set(secret) == {"environment"} for secret in COMPOSE["secrets"].values())
    gateway = read_yaml("prometheus", "prometheus.yml")["scrape_configs"][0]
    key = gateway["authorization"]["credentials_file"]
    assert key in SERVICES["metrics-key"]["command"][-1]


def test_the_collectors_pipelines_use_what_is_defined_and_all_of_it() -> None:
    collector = read_yaml("otel", "collector.yaml")
    pipelines = collector["service"]["pipelines"].values()
    for kind in ("receivers", "processors", "exporters"):
        used = {name for pipeline in pipelines for name in pipeline[kind]}
        assert used == set(collector[kind])


def test_the_page_names_every_service_and_dashboard() -> None:
    page = (PROJECT / "docs/observability.md").read_text()
    table = page.split("| service |", 1)[1].split("\n\n", 1)[0]
    first = [line.split("|")[1] for line in table.splitlines()[2:]]
    assert {name for cell in first for name in re.findall("`([^`]+)`", cell)} == set(SERVICES)
    for dashboard in DASHBOARDS.values():
        assert dashboard["title"] in table
