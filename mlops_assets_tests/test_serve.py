"""`mlops serve` and `mlops chat` as processes: the first start, one gateway a home, a clean end."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests
import yaml

from mlops_assets.home import Home
from mlops_assets.profiles import PROJECT
from mlops_assets_tests.commands import environment_for, run_command, script
from mlops_assets_tests.engine_server import serve_engine
from mlops_assets_tests.gateway_server import read_log
from mlops_assets_tests.releases import MODEL
from mlops_assets_tests.served_homes import promote
from mlops_assets_tests.waiting import wait_until

pytestmark = pytest.mark.slow


@contextmanager
def serving(home: Home, engine: str, **settings: Any) -> Iterator[subprocess.Popen[str]]:
    """The command on a home, with a server that runs already for its engine."""
    hosted = {"engine": "openai", "engine_url": engine, "engine_model": "engine", **settings}
    profile = home.root.parent / "profile.yaml"
    workspace = {"workspace": {"config": {"model": MODEL}}}
    profile.write_text(
        yaml.safe_dump({"resources": workspace, "ops": {"gateway": {"config": hosted}}})
    )
    process = subprocess.Popen(
        [script("mlops"), "serve", "--port", "0"],
        cwd=PROJECT,
        env=environment_for(home.root) | {"MLOPS_PROFILE": str(profile)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_until_ready(home: Home) -> str:
    """The gateway's address, once it answers."""

    def look() -> str:
        try:
            url = str(json.loads((home.root / "serving/gateway.json").read_bytes())["url"])
            return url if requests.get(f"{url}/health", timeout=60).status_code == 200 else ""
        except (FileNotFoundError, requests.ConnectionError):
            return ""

    return wait_until(look, "a ready gateway")


def test_from_the_first_start_to_a_clean_end(home: Home) -> None:
    promoted = promote(home, 1, "a")
    with serve_engine() as engine, serving(home, engine.url) as process:
        url = wait_until_ready(home)
        assert url.startswith("http://127.0.0.1:")
        health = requests.get(f"{url}/health", timeout=60).json()
        assert health["release"] == promoted.decision.bundle.digest
        assert (health["version"], health["ledger"]["reachable"]) == (1, True)

        key = home.root / "serving/default.key"
        assert key.stat().st_mode & 0o777 == 0o600
        said = run_command("mlops", "chat", "Is anybody there?", home=home.root)
        assert (said.code, said.output) == (0, "engine: Is anybody there?\n")
        [record] = read_log(home.root / "serving/requests")
        assert (record["status"], record["tenant"]) == (200, "default")

        second = run_command("mlops", "serve", "--port", "0", home=home.root)
        assert second.code == 1
        assert second.output == (
            f"Error: A gateway of this home runs already, on {url}. Stop it first, or serve another"
            " MLOPS_HOME.\n"
        )

        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=20)
        assert process.returncode == 0, output
        assert f"A first API key lies in {key}" in output
        assert key.read_text().strip() not in output
        assert not (home.root / "serving/gateway.json").exists()

    said = run_command("mlops", "chat", "And now?", home=home.root)
    assert said.code == 1
    assert "No gateway of this home runs" in said.output


def test_settings_that_are_wrong_end_it_at_once(home: Home) -> None:
    home.prepare()
    with serving(home, "http://127.0.0.1:9/v1", maximum_in_flight=0) as process:
        output, _ = process.communicate(timeout=30)
        assert process.returncode == 1
        assert output.startswith("Error: The settings of gateway are not valid: maximum_in_flight:")
        assert "Traceback" not in output
