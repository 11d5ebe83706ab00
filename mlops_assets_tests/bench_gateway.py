"""What the gateway adds to an engine's answer, beside a bare relay and the LiteLLM proxy.

The engine answers at once, so all that is left is the relay. Ours runs as `mlops serve` does: a
verified release, a key with limits, routing, budgets and prices, request log, access log and
metrics. The proxy runs without a database, with its master key, and does less. Each is one process.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from mlops_assets.home import Home
from mlops_assets.ledger import LedgerEntry
from mlops_assets.profiles import PROJECT
from mlops_assets.serving.gateway.api_keys import CHAT, new_key
from mlops_assets.serving.serving_home import ServingHome
from mlops_assets_tests.commands import environment_for, script
from mlops_assets_tests.engine_server import free_port
from mlops_assets_tests.litellm_venv import program, running
from mlops_assets_tests.releases import MODEL
from mlops_assets_tests.served_homes import promote

CONNECTIONS = (1, 16, 64)
ROUNDS = 4
"""Of which the first is dropped. In each round every server is measured once, in turn."""
SECONDS = 2.0
MOST = 10**6
DIRECT, RELAY, OURS, PROXY = (
    "the engine itself",
    "bare aiohttp relay",
    "mlops serve",
    "LiteLLM proxy",
)
ADDED_MS, TIMES = 1.0, 15.0
"""What is wanted: at most so much added at the median, at least so many times the proxy's speed."""


@dataclass(frozen=True)
class Server:
    """Where to ask, and how."""

    url: str
    model: str = MODEL
    key: str = "none"


@dataclass(frozen=True)
class Figures:
    """Of one server under one load: medians over the rounds."""

    per_second: float
    p50_ms: float
    p99_ms: float


Measured = dict[tuple[bool, int, str], Figures]
"""By whether it streams, connections, and server."""


def gateway() -> None:
    """Print the figures of all four, and the two ratios that matter."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        servers = start_servers(Path(folder), stack)
        measured = measure(servers, CONNECTIONS, ROUNDS, SECONDS)
    print_figures(measured)
    print_ratios(measured)
    print(f"\n{time.perf_counter() - started:.0f} s, {os.cpu_count()} cores")


def start_servers(folder: Path, stack: ExitStack) -> dict[str, Server]:
    """Start all four; the stack stops them."""
    engine = stack.enter_context(printed("instant_engine"))
    relay = stack.enter_context(printed("bare_relay", engine))
    return {
        DIRECT: Server(engine),
        RELAY: Server(relay),
        OURS: stack.enter_context(our_gateway(folder, engine)),
        PROXY: stack.enter_context(litellm_proxy(folder, engine)),
    }


def measure(
    servers: dict[str, Server], connections: Sequence[int], rounds: int, seconds: float
) -> Measured:
    """Load each server with each number of connections, plain and streamed, in every round."""
    taken: dict[tuple[bool, int, str], list[Figures]] = defaultdict(list)
    for number in range(rounds):
        for stream in (False, True):
            for count in connections:
                for name, server in servers.items():
                    found = load(server, count, seconds, stream=stream)
                    if number:
                        taken[stream, count, name].append(found)
    return {case: _medians(found) for case, found in taken.items()}


def load(server: Server, connections: int, seconds: float, *, stream: bool) -> Figures:
    """What one client process gets. Exits when an answer is not right."""
    words = [sys.executable, "-m", "mlops_assets_tests.load_client", server.url]
    words += ["--model", server.model, "--connections", str(connections)]
    words += ["--seconds", str(seconds), *(["--stream"] if stream else [])]
    environment = os.environ | {"LOAD_CLIENT_KEY": server.key}
    ended = subprocess.run(words, cwd=PROJECT, env=environment, capture_output=True, text=True)
    if ended.returncode:
        sys.exit(f"{server.url}: the client failed.\n{ended.stderr}")
    told = json.loads(ended.stdout)
    if told["failed"] or not told["requests"]:
        sys.exit(f"{server.url}: {told['failed']} of {told['requests']} answers were not right.")
    return Figures(told["requests"] / told["seconds"], told["p50_ms"], told["p99_ms"])


def _medians(found: Sequence[Figures]) -> Figures:
    return Figures(*(statistics.median(column) for column in zip(*map(_row, found), strict=True)))


def _row(figures: Figures) -> tuple[float, float, float]:
    return figures.per_second, figures.p50_ms, figures.p99_ms


@contextmanager
def printed(module: str, *words: str) -> Iterator[str]:
    """A server of ours that prints its URL, in a process of its own."""
    command = [sys.executable, "-m", f"mlops_assets_tests.{module}", *words]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@contextmanager
def our_gateway(folder: Path, engine: str) -> Iterator[Server]:
    """`mlops serve` over the engine, on a home with a release that was approved."""
    home, profile, port = Home(folder / "home"), folder / "bench.yaml", free_port()
    home.prepare()
    release = promote(home, 1, "a")
    profile.write_text(yaml.safe_dump({"ops": {"gateway": {"config": settings(engine)}}}))
    limits = {"requests_per_minute": MOST, "tokens_per_minute": 1000 * MOST}
    _, key = new_key(ServingHome.of(home).keys, "bench", [CHAT], **limits)
    words, url = [script("mlops"), "serve", "--port", str(port)], f"http://127.0.0.1:{port}"
    environment = environment_for(home.root) | {"MLOPS_PROFILE": str(profile)}
    with running(words, f"{url}/health", folder / "gateway.log", environment):
        yield Server(f"{url}/v1", key=key)
    _check_log(home, release)


def settings(engine: str) -> dict[str, object]:
    """Everything that a production gateway has on."""
    limits = {f"daily_tokens_per_{scope}": MOST**2 for scope in SCOPES}
    limits |= {f"daily_money_per_{scope}": MOST for scope in SCOPES}
    prices = {"price_input": 0.5, "price_output": 1.5}
    asked = {"engine": "openai", "engine_url": engine, "engine_model": "instant"}
    return {**asked, **limits, **prices}


SCOPES = ("key", "user", "feature", "prompt")


def _check_log(home: Home, release: LedgerEntry) -> None:
    """Every answer is in the request log: nothing was faster for being left out."""
    segments = ServingHome.of(home).requests.glob("*.jsonl")
    digest = release.decision.bundle.digest.encode()
    logged = sum(segment.read_bytes().count(digest) for segment in segments)
    print(f"\n{logged:,} answers of ours stand in the request log")


@contextmanager
def litellm_proxy(folder: Path, engine: str) -> Iterator[Server]:
    """The proxy over the same engine, as its documentation has it for production."""
    params = {"model": "openai/instant", "api_base": engine, "api_key": "none"}
    config = {
        "model_list": [{"model_name": MODEL, "litellm_params": params}],
        "general_settings": {"master_key": "os.environ/LITELLM_MASTER_KEY"},
    }
    (folder / "proxy.yaml").write_text(yaml.safe_dump(config))
    port, key = free_port(), "sk-bench"
    words = [program("litellm"), "--config", str(folder / "proxy.yaml"), "--host", "127.0.0.1"]
    environment = {"LITELLM_MASTER_KEY": key, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    environment |= {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR"}
    url = f"http://127.0.0.1:{port}"
    ready, log = f"{url}/health/liveliness", folder / "proxy.log"
    with running([*words, "--port", str(port)], ready, log, environment):
        yield Server(f"{url}/v1", key=key)


def print_figures(measured: Measured) -> None:
    """A row for each server under each load."""
    print("\n| answers | connections | server | requests/s | p50 ms | p99 ms"
          " | added p50 ms | added p99 ms |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
    for (stream, connections, name), found in measured.items():
        direct = measured[stream, connections, DIRECT]
        added = ""
        if name != DIRECT:
            p50, p99 = found.p50_ms - direct.p50_ms, found.p99_ms - direct.p99_ms
            added = f"{p50:.2f} | {p99:.2f}"
        kind = "streamed" if stream else "plain"
        print(f"| {kind} | {connections} | {name} | {found.per_second:,.0f} | {found.p50_ms:.2f}"
              f" | {found.p99_ms:.2f} | {added or ' | '} |")  # fmt: skip


def print_ratios(measured: Measured) -> None:
    """The two that matter, plain and streamed."""
    print()
    for stream, kind in ((False, "plain"), (True, "streamed")):
        counts = sorted({count for streams, count, _ in measured if streams == stream})
        one = counts[0]
        added = measured[stream, one, OURS].p50_ms - measured[stream, one, DIRECT].p50_ms
        print(f"{kind}: {added:.2f} ms added at p50 with {one} connection (wanted: at most"
              f" {ADDED_MS:g})")  # fmt: skip
        for peer in (PROXY, RELAY):
            times = [
                measured[stream, count, OURS].per_second / measured[stream, count, peer].per_second
                for count in counts
            ]
            wanted = f" (wanted: at least {TIMES:g})" if peer == PROXY else ""
            told = ", ".join(f"{each:.2g}" for each in times)
            names = ", ".join(map(str, counts))
            print(f"{kind}: {told} times the requests/s of the {peer} at {names}"
                  f" connections{wanted}")  # fmt: skip
