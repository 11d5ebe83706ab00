"""Debian's Prometheus and Alertmanager as processes on loopback, with the files of observability/.

They run copies of these files in which seconds are what minutes are in production and addresses
are the test's own; rules, routes, inhibitions and texts are those that are shipped.
"""

import json
import re
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlops_assets.profiles import PROJECT
from mlops_assets_tests.engine_server import free_port
from mlops_assets_tests.waiting import PATIENT, wait_until

CONFIGURATION = PROJECT / "observability"
RULES = CONFIGURATION / "prometheus/alerts.yml"
FETCHED = PROJECT / ".prometheus/usr/bin"
"""Where `make test` puts them on a machine that has none."""
TEMPLATES = FETCHED.parent / "share/prometheus/alertmanager"
"""The working directory of an Alertmanager that was fetched; see the script that fetches it."""
TICK = "250ms"


def program(name: str) -> str:
    """The path of one of their programs. Skips the test where nobody can have it."""
    if (found := shutil.which(name) or shutil.which(name, path=FETCHED)) is not None:
        return found
    if shutil.which("apt-get") is None:
        pytest.skip(f"{name} is not installed, and there is no apt to fetch it with")
    pytest.fail(f"{name} is missing: `make test` fetches it, observability/fetch_prometheus.sh")


def run_program(name: str, *words: str | Path) -> str:
    """Run one to its end; what it said. Fails the test when it found a fault."""
    command = [program(name), *map(str, words)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def read_yaml(*names: str) -> Any:
    """One of the files."""
    return yaml.safe_load(CONFIGURATION.joinpath(*names).read_text())


@contextmanager
def alertmanager(folder: Path, webhook: str) -> Iterator[str]:
    """Alertmanager's address, while it runs; ``webhook`` is the URL that people gave it."""
    folder.mkdir()
    (folder / "webhook").write_text(webhook)
    config = read_yaml("alertmanager", "alertmanager.yml")
    for route in (config["route"], *config["route"]["routes"]):
        route |= {"group_wait": "100ms", "group_interval": "500ms"}
    for receiver in config["receivers"]:
        for slack in receiver["slack_configs"]:
            slack["api_url_file"] = str(folder / "webhook")
    words = [f"--storage.path={folder / 'data'}", "--cluster.listen-address="]
    with _running("prometheus-alertmanager", folder, config, words) as url:
        yield url


@contextmanager
def prometheus(folder: Path, key: str, **targets: str) -> Iterator[str]:
    """Prometheus's address, while it runs; ``targets`` are the addresses of its jobs."""
    folder.mkdir()
    (folder / "key").write_text(key)
    # GatewayDown alone keeps its minute: Prometheus looks at nothing in its first five seconds.
    (folder / "alerts.yml").write_text(re.sub(r"\bfor: (?!1m)\w+", "for: 1s", RULES.read_text()))
    config = read_yaml("prometheus", "prometheus.yml")
    config["global"] = dict.fromkeys(config["global"], TICK)
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    config["scrape_configs"] = [jobs[name] for name in targets]
    for name, target in targets.items():
        jobs[name]["static_configs"] = [{"targets": [_host(target)]}]
    jobs["gateway"]["authorization"]["credentials_file"] = str(folder / "key")
    (manager,) = config["alerting"]["alertmanagers"]
    manager["static_configs"] = [{"targets": [_host(targets["alertmanager"])]}]
    words = [f"--storage.tsdb.path={folder / 'data'}"]
    with _running("prometheus", folder, config, words) as url:
        yield url


def query(url: str, expression: str) -> list[dict[str, Any]]:
    """What Prometheus finds. Raises AssertionError for an expression that it does not take."""
    asked = urllib.parse.urlencode({"query": expression})
    try:
        with urllib.request.urlopen(f"{url}/api/v1/query?{asked}", timeout=10) as answer:  # noqa: S310
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    except urllib.error.HTTPError as refused:
        raise AssertionError(f"{expression}: {refused.read().decode()}") from None
    return found


@contextmanager
def _running(name: str, folder: Path, config: Any, words: list[str]) -> Iterator[str]:
    port = free_port()
    (folder / "config.yml").write_text(yaml.safe_dump(config))
    own = [f"--config.file={folder / 'config.yml'}", f"--web.listen-address=127.0.0.1:{port}"]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [program(name), *own, *words],
            stdout=output,
            stderr=output,
            cwd=TEMPLATES if TEMPLATES.is_dir() else None,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _is_ready(process, folder, url), name)
        yield url
    finally:
        process.terminate()
        process.wait(PATIENT)


def _is_ready(process: subprocess.Popen[bytes], folder: Path, url: str) -> bool:
    assert process.poll() is None, (folder / "output").read_text()
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=10):  # noqa: S310
            return True
    except (urllib.error.URLError, ConnectionError):
        return False


def _host(url: str) -> str:
    return urllib.parse.urlsplit(url).netloc
