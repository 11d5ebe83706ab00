"""A child process of the gateway: its log, its last words, its port, a token of it; settings."""

import asyncio
import socket
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mlops_assets.serving.engines.engine_probe import has_token
from mlops_assets.serving.engines.engine_process import EngineProcess, reserve_port
from mlops_assets.serving.engines.engine_spec import EngineSpec


def run(command: list[str], log: Path) -> EngineProcess:
    """A process that has ended."""
    process = EngineProcess(command, log, {})

    async def scenario() -> None:
        await process.start(log.parent)
        await process.wait()
        await process.stop(1)

    asyncio.run(scenario())
    process.close()
    return process


def test_its_last_words_are_told(tmp_path: Path) -> None:
    words = [sys.executable, "-c", "print('one'); print('out of memory\\n')"]
    assert run(words, tmp_path / "engine.log").last_words() == "out of memory"
    assert run(["true"], tmp_path / "silent.log").last_words() == "no output"


def test_its_log_is_private_and_bounded(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    process = run([sys.executable, "-c", "print('x' * 5000)"], log)
    process.trim_log(10_000)
    assert log.stat().st_size > 5000
    process.trim_log(4000)
    assert log.stat().st_size == 0
    kept = tmp_path / "engine.log.1"
    assert kept.stat().st_size > 5000
    assert {stat.S_IMODE(path.stat().st_mode) for path in (log, kept)} == {0o600}


def test_its_port_is_kept_for_it() -> None:
    reserved = reserve_port()
    address = reserved.getsockname()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(address)
    with socket.socket() as child:
        child.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        child.bind(address)
        child.listen()
        with socket.create_connection(address, timeout=5):
            pass
    reserved.close()


@pytest.mark.parametrize(
    "settings",
    [
        {"engine": "tgi"},
        {"engine": "openai"},
        {"engine": "openai", "engine_url": "http://127.0.0.1:8000/v1"},
        {"engine": "openai", "engine_url": "ftp://models", "engine_model": "m"},
        {"engine_url": "http://127.0.0.1:8000/v1"},
        {"engine_device": "tpu"},
        {"engine_threads": 0},
        {"engine_probe_s": 0},
        {"engine_gpu_memory": 1.1},
        {"engine_adapter_rank": 100},
        {"engine_pasword": "x"},
    ],
)
def test_settings_out_of_bounds_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        EngineSpec(**settings)


@pytest.mark.parametrize(
    ("content", "stream", "found"),
    [
        ('{"choices": [{"message": {"content": "Hi"}}]}', False, True),
        ('{"choices": [{"message": {"content": ""}, "finish_reason": "stop"}]}', False, True),
        ('{"choices": [{"message": {"content": ""}}]}', False, False),
        ('{"choices": [], "usage": {"completion_tokens": 0}}', False, False),
        ('{"choices": []}', False, False),
        ('{"detail": "no"}', False, False),
        ("[]", False, False),
        ("<html>", False, False),
        ('data: {"choices": [{"delta": {"content": "Hi"}}]}\n\ndata: [DONE]\n\n', True, True),
        ('data: {"choices": [{"delta": {"role": "assistant"}}]}\n\n', True, False),
        ('data: {"choices": [{"delta": {"content": "H"}}]}\n\ndata: {"error": "x"}\n', True, False),
        ("", True, False),
    ],
)
def test_what_counts_as_a_token(content: str, stream: bool, found: bool) -> None:
    assert has_token(content.encode(), stream=stream) is found
