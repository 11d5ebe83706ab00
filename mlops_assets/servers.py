"""The development servers as child processes: all of them run, or none does."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import typer

from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home
from mlops_assets.profiles import PROJECT

LOOPBACK = "127.0.0.1"  # Dagster and MLflow have no authentication of their own
GRACE_SECONDS = 20


def run_servers(home: Home, dagster_port: int, mlflow_port: int, approvals_port: int) -> None:
    """Start Dagster (UI and daemon), MLflow and the approval page; return when one of them ends
    or on Ctrl-C.

    Raises LineageError when a port is taken or a server ends by itself.
    """
    home.prepare()
    for stop in (signal.SIGINT, signal.SIGTERM):
        # Also where a shell started us in the background, which ignores Ctrl-C.
        signal.signal(stop, signal.default_int_handler)
    ports = {"Dagster": dagster_port, "MLflow": mlflow_port, "Approvals": approvals_port}
    for name, port in ports.items():
        _require_free(name, port)
    commands = (_dagster(dagster_port), _mlflow(home, mlflow_port), _approvals(approvals_port))
    servers = [_start(command, home) for command in commands]
    for name, port in ports.items():
        typer.echo(f"{name:<10} http://{LOOPBACK}:{port}")
    try:
        _wait_for_any(servers)
    except KeyboardInterrupt:
        return
    finally:
        _stop(servers)


def _dagster(port: int) -> list[str]:
    options = ["-h", LOOPBACK, "-p", str(port), "-w", str(PROJECT / "workspace.yaml")]
    return [_script("dagster"), "dev", *options]


def _mlflow(home: Home, port: int) -> list[str]:
    options = ["--host", LOOPBACK, "--port", str(port), "--workers", "1"]
    return [_script("mlflow"), "ui", "--backend-store-uri", home.mlflow_uri, *options]


def _approvals(port: int) -> list[str]:
    return [_script("mlops"), "approvals", "--port", str(port)]


def _script(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _start(command: Sequence[str], home: Home) -> subprocess.Popen[bytes]:
    # MLflow's background jobs are workers of 240 MB each for features that we do not use.
    ours = {"MLOPS_HOME": str(home.root), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment = os.environ | ours
    # A group of its own, so that one signal reaches the workers that a server starts.
    return subprocess.Popen(command, env=environment, start_new_session=True)


def _require_free(name: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise LineageError(
                f"Port {port} for {name} is taken.",
                "Stop the program that uses it, or choose another: mlops dev --help.",
            ) from error


def _wait_for_any(servers: Sequence[subprocess.Popen[bytes]]) -> None:
    while all(server.poll() is None for server in servers):
        time.sleep(0.5)
    ended = next(server for server in servers if server.poll() is not None)
    raise LineageError(
        f"{Path(str(ended.args[0])).name} ended by itself with code {ended.returncode}.",  # type: ignore[index]
        "Its last lines above say why.",
    )


def _stop(servers: Sequence[subprocess.Popen[bytes]]) -> None:
    for server in servers:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
    for server in servers:
        try:
            server.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
