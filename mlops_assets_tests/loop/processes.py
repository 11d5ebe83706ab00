"""The processes of the loop: `mlops serve` and Dagster's daemon, started, watched and ended."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import psutil

from mlops_assets.profiles import PROJECT
from mlops_assets_tests.commands import environment_for, script
from mlops_assets_tests.loop.waiting import NotSeenError

GRACE_S = 30.0
"""Between SIGTERM and SIGKILL: a gateway lets its requests finish, a daemon its runs."""
TAIL = 12
"""Lines of a log in an error."""
SENSOR_SECONDS = "5"
MARK = "loop"
"""Folder of logs and of slices to label, by which a home of the loop is known."""


class Process:
    """One process with everything that it starts; its output goes to a file."""

    def __init__(self, name: str, log: Path, words: Sequence[str], home: Path, profile: Path):
        self.name, self.log = name, log
        environment = environment_for(home) | {
            "MLOPS_PROFILE": str(profile),
            "MLOPS_SENSOR_SECONDS": SENSOR_SECONDS,
        }
        with log.open("ab") as output:
            # A session of its own: Ctrl-C on the terminal is ours to pass on, in order.
            self._process = subprocess.Popen(
                [script(words[0]), *words[1:]],
                cwd=PROJECT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def check(self) -> None:
        """Raises NotSeenError when it has ended by itself."""
        if (code := self._process.poll()) is not None:
            raise NotSeenError(f"{self.name} ended by itself with code {code}.\n{self.tail()}")

    def tail(self) -> str:
        """The last lines that it said."""
        said = self.log.read_text(errors="replace").splitlines() if self.log.is_file() else []
        return "\n".join([f"The end of {self.log}:", *said[-TAIL:]])

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        """End it and what it has started: asked first, then made to."""
        group = self._process.pid
        self._signal(group, signal.SIGTERM)
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._signal(group, signal.SIGKILL)
            self._process.wait()
        end = time.monotonic() + GRACE_S
        while alive := _alive(group):  # runs of the daemon, which end a moment after it
            if time.monotonic() > end:
                self._signal(group, signal.SIGKILL)
                psutil.wait_procs(alive, GRACE_S)
                return
            time.sleep(0.05)

    @staticmethod
    def _signal(group: int, number: signal.Signals) -> None:
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            return


def _alive(group: int) -> list[psutil.Process]:
    """The processes of a group; one that has ended and that nobody asked after does not count."""
    found = []
    for process in psutil.process_iter(["status"]):
        try:
            ours = os.getpgid(process.pid) == group
        except ProcessLookupError:
            continue
        if ours and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


class Processes:
    """The gateway and the daemon of one home."""

    def __init__(self, home: Path, profile: Path) -> None:
        self._home, self._profile = home, profile
        self._stack = ExitStack()
        self._started: list[Process] = []

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start_gateway(self, port: int = 0) -> Process:
        """`mlops serve`, which starts the engines."""
        return self._start("mlops serve", "gateway.log", ("mlops", "serve", "--port", str(port)))

    def start_daemon(self) -> Process:
        """`dagster-daemon`, which ticks the sensors and starts the runs that they ask for."""
        workspace = str(PROJECT / "workspace.yaml")
        return self._start(
            "dagster-daemon", "daemon.log", ("dagster-daemon", "run", "-w", workspace)
        )

    def check(self) -> None:
        """Raises NotSeenError when one of them has ended by itself."""
        for process in self._started:
            process.check()

    def tails(self) -> str:
        """What each of them said last."""
        return "\n".join(process.tail() for process in self._started)

    def _start(self, name: str, log: str, words: Sequence[str]) -> Process:
        folder = self._home / MARK
        folder.mkdir(mode=0o700, exist_ok=True)
        process = Process(name, folder / log, words, self._home, self._profile)
        self._started.append(self._stack.enter_context(process))
        return process
