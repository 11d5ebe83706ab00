"""The real `mlops serve` as a process on a home, and what it leaves on disk."""

import asyncio
import json
import signal
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from mlops_assets.home import Home
from mlops_assets.profiles import PROJECT
from mlops_assets.release_state import STEPS
from mlops_assets.serving.gateway import api_keys
from mlops_assets_tests.commands import environment_for, script
from mlops_assets_tests.engine_server import EngineProcess, EngineServer, free_port
from mlops_assets_tests.releases import MODEL
from mlops_assets_tests.serving_client import PATIENCE, Answer, Crowd, ask
from mlops_assets_tests.waiting import wait_until

START = 120.0
"""Seconds in which a gateway is ready, on a machine that does other things too."""
IMPATIENT = {"first_byte_timeout": 1.0, "chunk_timeout": 1.0, "total_timeout": 3.0}
V1, V2, V3 = "release-1", "release-2", "release-3"
"""How engines are called that answer for a version."""
QUICK = {
    "shadow_share": 1.0,
    "shadow_minimum_pairs": 10,
    "canary_steps": [20, 50],
    "hold_s": 0.0,
    "minimum_requests": 50,
    "error_margin": 0.5,
    "latency_margin": 10.0,
    "quality_margin": 0.5,
}
"""A release in seconds: what is sought here is a wrong step, not a small difference."""
ROLLBACK_S = 5.0
"""From the decision to the last answer of what is taken back."""


class ServingProcess:
    """A gateway. ``settings`` are those of the profile by asset, such as ``gateway``."""

    def __init__(self, home: Home, environment: Mapping[str, str] | None = None, **settings: Any):
        self.home, self.key, self.url = home, "", ""
        self.environment = dict(environment or {})
        self.settings = settings
        self.wrapper: tuple[str, ...] = ()
        """Words before the command."""
        self.command: tuple[str, ...] = ()
        """Instead of `mlops serve`, with its options."""
        self.output = home.root / "serve.out"
        """What it said on the terminal, of every start."""
        self.log = home.root / "serving/requests"
        """The request log, as this process sees it."""
        self.port = free_port()

    def __enter__(self) -> "ServingProcess":
        return self

    def __exit__(self, *_: object) -> None:
        """Leave no process behind."""
        if hasattr(self, "process"):
            self.stop()

    def start(self, *, ready: bool = True) -> None:
        """Start it; return when it is ready to answer, or at once."""
        self._address.unlink(missing_ok=True)
        environment = environment_for(self.home.root) | self.environment
        command = self.command or (script("mlops"), "serve")
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [*self.wrapper, *command, "--port", str(self.port)],
                cwd=PROJECT,
                env=environment | {"MLOPS_PROFILE": str(self._write_profile())},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        if ready:
            self.wait_ready()

    def wait_listening(self) -> None:
        """Wait until it says something of itself."""
        self.key = self.key or self.new_key("tests")
        self.url = wait_until(self._read_url, "the gateway's address", START)
        wait_until(lambda: self.health()[0], "the gateway", START)

    def wait_ready(self) -> None:
        """Wait until it answers."""
        self.wait_listening()
        wait_until(lambda: self.health()[0] == 200, "a ready gateway", START)

    def new_key(self, name: str, *scopes: str) -> str:
        """A key for this gateway."""
        path = self.home.root / "serving/keys.json"
        return api_keys.new_key(path, name, scopes or (api_keys.CHAT,))[1]

    def kill(self) -> None:
        """As the kernel does when memory runs out: its engines lose their parent."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """End it in good order; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(START)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def health(self) -> tuple[int, dict[str, Any]]:
        """``/health``: its status and what it says; 0 while nobody listens."""

        async def get() -> tuple[int, dict[str, Any]]:
            url = self.url.removesuffix("/v1") + "/health"
            async with aiohttp.ClientSession(timeout=PATIENCE) as session, session.get(url) as got:
                return got.status, await got.json()

        try:
            return asyncio.run(get())
        except aiohttp.ClientConnectionError:
            return 0, {}

    def ask(self, *questions: str, **body: Any) -> list[Answer]:
        """Ask these questions at the same time; the answers in the same order."""

        async def get() -> list[Answer]:
            headers = {"Authorization": f"Bearer {self.key}"}
            async with aiohttp.ClientSession(headers=headers, timeout=PATIENCE) as session:
                asked = (ask(session, self.url, question, **body) for question in questions)
                return list(await asyncio.gather(*asked))

        return asyncio.run(get())

    def crowd(self, clients: int) -> Crowd:
        """So many users of this gateway."""
        return Crowd(self.url, self.key, clients)

    def records(self) -> dict[str, dict[str, Any]]:
        """The request log by id; what a kill tore off counts as not written."""
        found = {}
        for segment in sorted(self.log.glob("*.jsonl")):
            for line in segment.read_bytes().splitlines():
                try:
                    record = json.loads(line)
                except ValueError:
                    continue
                assert record["id"] not in found, "one record for a request"
                found[record["id"]] = record
        return found

    def log_bytes(self) -> int:
        """The size of the request log."""
        return sum(segment.stat().st_size for segment in self.log.glob("*.jsonl"))

    def unlogged(self, answers: Iterable[Answer]) -> list[Answer]:
        """Acknowledged answers that the request log does not hold as they were given."""
        records = self.records()
        return [
            one
            for one in answers
            if one.acknowledged and records.get(one.id, {}).get("output") != one.text
        ]

    def reads_ledger(self) -> bool:
        """Whether it can, as it says itself."""
        return bool(self.health()[1]["ledger"]["reachable"])

    def steps(self) -> list[str]:
        """The steps of releases that the ledger holds, oldest first."""
        outcomes = [row.decision.outcome for row in self.home.ledger.entries()]
        return [outcome for outcome in outcomes if outcome in STEPS]

    def serves(self, version: int) -> bool:
        """Whether this version is what all users get."""
        told = self.health()[1]
        return (told["version"], told["candidate"]) == (version, None)

    @property
    def _address(self) -> Path:
        return self.home.root / "serving/gateway.json"

    def _read_url(self) -> str | None:
        assert self.process.poll() is None, self.output.read_text()
        if not self._address.is_file():
            return None
        return str(json.loads(self._address.read_bytes())["url"]) + "/v1"

    def _write_profile(self) -> Path:
        """The profile of this gateway, beside its home."""
        content = {
            "resources": {"workspace": {"config": {"model": MODEL}}},
            "ops": {asset: {"config": given} for asset, given in self.settings.items()},
        }
        path = self.home.root.parent / "serving-profile.yaml"
        path.write_text(yaml.safe_dump(content))
        return path


@contextmanager
def serving(
    home: Home, environment: Mapping[str, str] | None = None, **settings: Any
) -> Iterator[ServingProcess]:
    """A ready gateway on a home until the block ends."""
    with ServingProcess(home, environment, **settings) as gateway:
        gateway.start()
        yield gateway


def hosted(engine: EngineProcess | EngineServer) -> dict[str, Any]:
    """Settings of a gateway without patience, over an engine that runs already."""
    return IMPATIENT | {
        "engine": "openai",
        "engine_url": engine.url,
        "engine_model": "release-{version}",
        "engine_probe_s": 0.2,
        "engine_probe_timeout_s": 1.0,
    }


@contextmanager
def hammering(gateway: ServingProcess, clients: int = 64) -> Iterator[Crowd]:
    """Users that ask without pause until the block ends."""
    crowd, ended = gateway.crowd(clients), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(crowd.run(ended.is_set)))
    thread.start()
    try:
        yield crowd
    finally:
        ended.set()
        thread.join()


def since(crowd: Crowd) -> list[Answer]:
    """What users get in the next moments, questions that were under way left out."""
    begun = len(crowd.answers)
    wait_until(lambda: len(crowd.answers) > begun + 2 * crowd.clients, "more answers")
    return crowd.answers[begun + crowd.clients :]


def who(answers: list[Answer]) -> set[str]:
    return {one.answered_by for one in answers if one.acknowledged}
