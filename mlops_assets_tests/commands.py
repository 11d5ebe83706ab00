"""Our commands, run as a user runs them: in processes of their own."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_assets.profiles import PROJECT

OURS = (
    "MLOPS_HOME",
    "MLOPS_PROFILE",
    "MLOPS_LEDGER_URL",
    "MLOPS_ALERT_WEBHOOK",
    "MLOPS_JUDGE_API_KEY",
    "MLOPS_APPROVAL_URL",
    "MLOPS_LINK_KEY",
    "MLOPS_API_KEY",
)
SERVICES = ("MLFLOW_TRACKING_URI", "DAGSTER_HOME", "DAGSTER_POSTGRES_URL")


@dataclass(frozen=True)
class Finished:
    """A command that ended."""

    code: int
    output: str
    """Standard output and error, as a person sees them."""
    seconds: float

    @property
    def json(self) -> Any:
        return json.loads(self.output)


def run_command(*words: str, home: Path, **environment: str) -> Finished:
    """Run one of our commands in a process of its own, as a user does."""
    started = time.monotonic()
    ended = subprocess.run(
        [script(words[0]), *words[1:]],
        cwd=PROJECT,
        env=environment_for(home) | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=900,
    )
    return Finished(ended.returncode, ended.stdout, time.monotonic() - started)


def execute_job(job: str, *options: str, home: Path, **environment: str) -> Finished:
    """``dagster job execute`` as `make run` calls it."""
    words = ("dagster", "job", "execute", "-m", "mlops_assets.definitions", "-j", job, *options)
    return run_command(*words, home=home, **environment)


def script(name: str) -> str:
    """The path of a command that the environment installed."""
    return str(Path(sys.executable).with_name(name))


def environment_for(home: Path) -> dict[str, str]:
    """What the Makefile exports, for a home of the test's own."""
    dagster_home = home / "dagster"
    dagster_home.mkdir(parents=True, exist_ok=True, mode=0o700)
    settings = dagster_home / "dagster.yaml"
    if not settings.exists():  # others may be reading it now
        settings.write_bytes((PROJECT / "dagster.yaml").read_bytes())
    clean = {name: value for name, value in os.environ.items() if name not in (*OURS, *SERVICES)}
    ours = {"MLOPS_HOME": str(home), "DAGSTER_HOME": str(dagster_home)}
    return clean | ours | {"PYTHONWARNINGS": "ignore"}
