"""A child process of the gateway: its environment, its port, its log, its end.

It gets no secret that it does not need, listens on loopback, writes to a log of bounded size and
dies with us.
"""

import asyncio
import os
import shutil
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

LOOPBACK = "127.0.0.1"  # engines have no authentication of their own
LAUNCHER = Path(__file__).with_name("child_launcher.py")
PASSED = (
    *("PATH", "PYTHONPATH", "VIRTUAL_ENV", "HOME", "TMPDIR", "LANG", "LC_ALL"),
    *("LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"),
    *("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"),
)
"""All that a child sees of our environment: no key, no token, no database's address."""
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
LAST_BYTES = 4096


def child_environment(threads: int) -> dict[str, str]:
    """What a child sees: see ``PASSED``; no hub, no telemetry, so many CPU threads."""
    passed = {name: os.environ[name] for name in PASSED if name in os.environ}
    return passed | QUIET | dict.fromkeys(THREADS, str(threads))


def launched(command: Sequence[str]) -> list[str]:
    """The command as one that dies with this process."""
    return [sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), *command]


def reserve_port() -> socket.socket:
    """A port on loopback that nobody else gets while the socket is open.

    It is bound and never listens. The child may bind it too, since both say SO_REUSEADDR; the
    kernel gives it to no other program, also not in the seconds until the child listens.
    """
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind((LOOPBACK, 0))
    return reserved


class EngineProcess:
    """A server that takes ``--host`` and ``--port``; it may be started again after it ended."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.command, self.log, self.environment = command, log, environment
        self._reserved = reserve_port()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def address(self) -> str:
        """``http://127.0.0.1:PORT``, the same after a restart."""
        return f"http://{LOOPBACK}:{self._reserved.getsockname()[1]}"

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process else None

    @property
    def cpu_s(self) -> float:
        """CPU seconds that it has used; 0 where nobody can say."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")  # utime, stime: proc(5)

    async def start(self, directory: Path) -> None:
        """Start it in ``directory``; returns before it listens."""
        port = str(self._reserved.getsockname()[1])
        with self._open_log() as log:
            self._process = await asyncio.create_subprocess_exec(
                *launched([*self.command, "--host", LOOPBACK, "--port", port]),
                cwd=directory,
                env=dict(self.environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # one signal reaches the workers that it starts
            )

    async def wait(self) -> int:
        """Its exit code, when it has ended."""
        assert self._process is not None  # noqa: S101 (it was started)
        return await self._process.wait()

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, so many seconds, SIGKILL; at once with 0. Returns when it has ended."""
        if self._process is None:
            return
        if grace_s:
            self._signal(signal.SIGTERM)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), grace_s)
        self._signal(signal.SIGKILL)  # also the workers of one that ended
        await self._process.wait()

    def close(self) -> None:
        """Give the port back."""
        self._reserved.close()

    def trim_log(self, limit: int) -> None:
        """Move a log of more than ``limit`` bytes aside, over the one before."""
        if self.log.stat().st_size > limit:
            shutil.copyfile(self.log, self.log.with_suffix(".log.1"))
            self.log.with_suffix(".log.1").chmod(0o600)
            os.truncate(self.log, 0)  # the child appends, so it goes on at the start

    def last_words(self) -> str:
        """The last line of its log."""
        with self.log.open("rb") as stream:
            stream.seek(max(0, self.log.stat().st_size - LAST_BYTES))
            lines = stream.read().decode("utf-8", "replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "no output")

    def _open_log(self) -> IO[bytes]:
        self.log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return os.fdopen(descriptor, "ab")

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)  # type: ignore[union-attr]
