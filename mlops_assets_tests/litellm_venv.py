"""LiteLLM and its proxy, which live in an environment of their own: the proxy holds `rich` below
14, LiteLLM `openai` below 3. ``make test`` makes it from ``requirements/litellm.txt``."""

import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mlops_assets.profiles import PROJECT
from mlops_assets_tests.waiting import wait_until

PROGRAMS = PROJECT / ".venv-litellm" / "bin"
START_S = 120.0  # the proxy takes 6 s on an idle machine


def program(name: str) -> str:
    """The path of one of its programs."""
    path = PROGRAMS / name
    assert path.exists(), f"{path} is missing: run `make .venv-litellm/ready`"
    return str(path)


@contextmanager
def running(
    words: Sequence[str], ready: str, log: Path, environment: dict[str, str]
) -> Iterator[None]:
    """Run a server until the block ends; it has started when the address ``ready`` answers."""
    clean = {"PATH": os.environ["PATH"], "HOME": str(log.parent)}
    with log.open("wb") as stream:
        process = subprocess.Popen(
            words, cwd=log.parent, env=clean | environment, stdout=stream, stderr=stream
        )
        try:
            wait_until(lambda: _answers(ready, process, log), ready, START_S)
            yield
        finally:
            process.terminate()
            process.wait(30)


def _answers(address: str, process: "subprocess.Popen[bytes]", log: Path) -> bool:
    assert process.poll() is None, f"It ended: {log.read_text()[-2000:]}"
    try:
        with urllib.request.urlopen(address, timeout=5):  # noqa: S310
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
