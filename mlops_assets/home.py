"""The state on disk under ``MLOPS_HOME``: where everything lies, and who may write now."""

import errno
import fcntl
import json
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mlops_assets.artifacts import ArtifactStore, LineageError, atomic_write
from mlops_assets.ledger import Ledger
from mlops_assets.ref_json import Ref, load_ref

MINIMUM_FREE_BYTES = 256 * 1024**2  # what one run of the tiny profile writes, twice over
LATEST = "latest"
PROCESS_END_S = 60.0
"""In which the process of a run that is over has ended; one or two on an idle machine."""


@dataclass(frozen=True)
class Home:
    """Paths and stores below one directory."""

    root: Path

    @classmethod
    def from_environment(cls) -> "Home":
        """The home that ``MLOPS_HOME`` names, default ``.mlops`` in the working directory."""
        return cls(Path(os.environ.get("MLOPS_HOME") or ".mlops").resolve())

    @property
    def store(self) -> ArtifactStore:
        return ArtifactStore(self.root / "artifacts", self.root / "checkpoints")

    @property
    def ceilings(self) -> Path:
        """What this machine computes at best, measured once."""
        return self.root / "compute_ceilings.json"

    @property
    def checks(self) -> Path:
        """What asset checks said of artifacts: see ``checks``."""
        return self.root / "checks"

    @property
    def gate(self) -> Path:
        """The latest gate's summary and JUnit XML, for whoever comments on a change."""
        return self.root / "gate"

    @property
    def feedback(self) -> Path:
        """Segments of what users said of answers, as the gateway appends them."""
        return self.root / "serving" / "feedback"

    @property
    def ledger(self) -> Ledger:
        url = os.environ.get("MLOPS_LEDGER_URL") or f"sqlite:///{self.root / 'ledger.db'}"
        return Ledger(url)

    @property
    def mlflow_database(self) -> Path:
        return self.root / "mlflow.db"

    @property
    def mlflow_artifacts(self) -> Path:
        return self.root / "mlartifacts"

    @property
    def mlflow_is_local(self) -> bool:
        # MLflow writes its URI into the environment: compare it, do not ask whether it is set.
        return self.mlflow_uri == f"sqlite:///{self.mlflow_database}"

    @property
    def mlflow_uri(self) -> str:
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.mlflow_database}"

    @property
    def mlflow_label(self) -> str:
        """The tracking server's name for messages, without a password."""
        return str(self.mlflow_database) if self.mlflow_is_local else "MLFLOW_TRACKING_URI"

    @staticmethod
    def fill(path: str) -> str:
        """``path`` with the home in place of ``${MLOPS_HOME}``, which need not be set."""
        root = str(Home.from_environment().root)
        return re.sub(r"\$\{MLOPS_HOME\}|\$MLOPS_HOME\b", lambda _: root, path)

    def prepare(self) -> None:
        """Create the directory, private to its owner. Raises LineageError when it is full."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self.root.chmod(0o700)  # whoever made it: customers' texts lie below
        except OSError as error:
            raise LineageError(
                f"MLOPS_HOME {self.root} cannot be created ({error.strerror}).",
                "Point MLOPS_HOME at a directory that you may write.",
            ) from error
        free = shutil.disk_usage(self.root).free
        if free < MINIMUM_FREE_BYTES:
            raise _disk_full(self.root, free)

    def write_ref(self, asset: str, run_id: str, data: bytes) -> None:
        """Keep an asset's ref for its run, and as the latest."""
        for name in (run_id, LATEST):
            with atomic_write(self._ref_path(asset, name)) as temporary:
                temporary.write_bytes(data)

    def read_ref(self, asset: str, run_id: str = LATEST) -> bytes:
        """The ref that the run wrote, else the latest. Raises LineageError without any."""
        for name in (run_id, LATEST):
            if (path := self._ref_path(asset, name)).is_file():
                return path.read_bytes()
        raise LineageError(
            f"The asset {asset} was never materialised in {self.root}.",
            "Run the job `lineage` first.",
        )

    def latest(self, asset: str) -> Ref | None:
        """The asset's latest ref, or None before its first materialisation."""
        return self.of_run(asset, LATEST)

    def of_run(self, asset: str, run_id: str) -> Ref | None:
        """The ref that this very run wrote, or None if it wrote none."""
        path = self._ref_path(asset, run_id)
        return load_ref(path.read_bytes()) if path.is_file() else None

    def materialised(self, asset: str) -> float | None:
        """When the latest ref was written, in seconds since the epoch; None before the first."""
        try:
            return self._ref_path(asset, LATEST).stat().st_mtime
        except FileNotFoundError:
            return None

    def _ref_path(self, asset: str, name: str) -> Path:
        return self.root / "refs" / asset / f"{name}.json"


class RunLock:
    """One run at a time in a home; the kernel frees the lock when its process ends.

    The steps of one run share it, whichever executor runs them.
    """

    def __init__(self) -> None:
        self._held: dict[Path, tuple[str, IO[str]]] = {}

    def hold(
        self,
        home: Home,
        run_id: str,
        *,
        needs_space: bool = True,
        is_over: Callable[[str], bool] = lambda _run: False,
    ) -> bool:
        """Take the lock for ``run_id``; returns whether this process did not have it yet.

        A run that ``is_over`` frees it as soon as its process has ended, which is waited for: the
        next run in a queue is started before that. Raises LineageError while another run has it,
        or when there is no room for one that needs some.
        """
        holder, stream = self._held.get(home.root, ("", None))
        if holder == run_id:
            return False
        if needs_space:
            home.prepare()
        if stream is not None:
            stream.close()  # an earlier run in this process is over
            del self._held[home.root]
        self._held[home.root] = (run_id, _lock(home.root / "run.lock", run_id, is_over))
        return True

    def release(self) -> None:
        """Let go of every lock that this process holds."""
        for _, stream in self._held.values():
            stream.close()
        self._held.clear()


run_lock = RunLock()


def _lock(path: Path, run_id: str, is_over: Callable[[str], bool]) -> IO[str]:
    stream = path.open("a+", encoding="utf-8")
    end = time.monotonic() + PROCESS_END_S
    while not _locked(stream):
        stream.seek(0)
        owner = _owner(stream.read())
        if owner.get("run") == run_id:
            break
        if time.monotonic() < end and is_over(str(owner.get("run"))):
            time.sleep(PROCESS_END_S / 600)
        else:
            stream.close()
            raise LineageError(
                f"Run {str(owner.get('run'))[:8]} (process {owner.get('pid')}) is at work in"
                f" {path.parent}.",
                "Wait until it ends or stop it, or give this run an MLOPS_HOME of its own.",
            )
    else:
        stream.truncate(0)
        stream.write(json.dumps({"run": run_id, "pid": os.getpid()}))
        stream.flush()
    # Steps of the same run in other processes may now take it too.
    fcntl.flock(stream, fcntl.LOCK_SH)
    return stream


def _locked(stream: IO[str]) -> bool:
    """Whether we have the lock now, and nobody else."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _owner(text: str) -> dict[str, object]:
    try:
        owner: dict[str, object] = json.loads(text)
    except ValueError:  # read between the owner's truncation and its write
        return {}
    return owner


def _disk_full(root: Path, free: int) -> LineageError:
    return LineageError(
        f"The disk under {root} is full ({free / 1024**2:.0f} MiB free,"
        f" {MINIMUM_FREE_BYTES // 1024**2} needed).",
        "Free some space, or point MLOPS_HOME elsewhere; earlier results are intact.",
    )


@contextmanager
def translate_disk_full(root: Path) -> Iterator[None]:
    """Turn every way in which a full disk shows itself into one LineageError."""
    try:
        yield
    except Exception as error:
        if _says_disk_full(error):
            raise _disk_full(root, shutil.disk_usage(root).free) from error
        raise


def _says_disk_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if isinstance(error, sqlite3.OperationalError) and "disk is full" in str(error):
            return True
        # safetensors writes in Rust, whose errors carry the number in their text.
        if type(error).__name__ == "SafetensorError" and f"(os error {errno.ENOSPC})" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
