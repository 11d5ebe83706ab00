"""Alert rules and routes, checked by Prometheus's and Alertmanager's own tools."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.profiles import PROJECT
from mlops_assets_tests.prometheus_server import CONFIGURATION, RULES, read_yaml, run_program

CASES = ("alerts.test.yml", "alerts_of_days.test.yml")
ALERTS = {
    rule["alert"]: rule
    for group in read_yaml("prometheus", "alerts.yml")["groups"]
    for rule in group["rules"]
    if "alert" in rule
}


def cases() -> list[dict[str, Any]]:
    """What promtool's tests expect of each alert."""
    tests = (test for name in CASES for test in read_yaml("prometheus", name)["tests"])
    return [case for test in tests for case in test["alert_rule_test"]]


def test_prometheus_takes_its_configuration_and_rules() -> None:
    prometheus = CONFIGURATION / "prometheus/prometheus.yml"
    run_program("promtool", "check", "config", "--syntax-only", prometheus)
    run_program("promtool", "check", "rules", "--lint-fatal", RULES)


@pytest.mark.parametrize("name", CASES)
def test_every_alert_fires_when_it_should(name: str) -> None:
    assert "SUCCESS" in run_program("promtool", "test", "rules", RULES.with_name(name))


def test_every_alert_has_a_case_for_and_one_against() -> None:
    fires = {case["alertname"] for case in cases() if case["exp_alerts"]}
    silent = {case["alertname"] for case in cases() if not case["exp_alerts"]}
    assert fires == silent == set(ALERTS)


def test_the_table_of_alerts_is_the_rules() -> None:
    page = (PROJECT / "docs/observability.md").read_text()
    table = page.split("| alert |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    told = [(name.strip("`"), severity, remedy) for name, severity, _, remedy in cells]
    assert told == [
        (name, rule["labels"]["severity"], rule["annotations"]["remedy"])
        for name, rule in ALERTS.items()
    ]


def test_alertmanager_takes_its_configuration() -> None:
    config = CONFIGURATION / "alertmanager/alertmanager.yml"
    assert "SUCCESS" in run_program("amtool", "check-config", config)
    for severity in ("critical", "warning", "info"):
        words = ("config", "routes", "test", f"--config.file={config}", f"severity={severity}")
        assert run_program("amtool", *words).splitlines()[0] == "people"


def test_what_is_kept_back_and_why_are_alerts() -> None:
    for rule in read_yaml("alertmanager", "alertmanager.yml")["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            named = matcher.partition("=")[2].strip('~"').split("|")
            assert set(named) <= set(ALERTS), matcher


def test_without_apt_nothing_is_fetched_and_nothing_fails(tmp_path: Path) -> None:
    script = CONFIGURATION / "fetch_prometheus.sh"
    ended = subprocess.run(
        ["/bin/sh", script, tmp_path / "fetched"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.search("Without apt .* promtool .* skipped", ended.stdout)
    assert not (tmp_path / "fetched").exists()
