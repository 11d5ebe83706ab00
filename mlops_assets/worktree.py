"""A clean checkout of a commit for a while, and the lineage run in it from nothing."""

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home
from mlops_assets.provenance import hash_lock_files
from mlops_assets.termination import ended_by_sigterm

logger = logging.getLogger(__name__)

# Services and records of the run that calls us: the rebuilt lineage has its own.
NOT_PASSED_ON = {"MLFLOW_TRACKING_URI", "MLOPS_LEDGER_URL", "MLOPS_ALERT_WEBHOOK"}
NOT_PASSED_ON |= {"DAGSTER_POSTGRES_URL", "MLOPS_GIT_COMMIT", "MLOPS_LOCK_HASH"}
JOB = "train"


@dataclass(frozen=True)
class Worktree:
    """A checkout of one commit in a temporary directory, with a home of its own."""

    root: Path

    @property
    def tree(self) -> Path:
        return self.root / "tree"

    @property
    def home(self) -> Home:
        return Home(self.root / "home")


@contextmanager
def clean_worktree(project: Path, commit: str) -> Iterator[Worktree]:
    """Yield a checkout of ``commit``; it and its home are gone afterwards, whatever happens.

    Raises LineageError when ``project`` is no git checkout, or does not have the commit.
    """
    if _git(project, "rev-parse", "--git-dir") is None:
        raise LineageError(
            f"{project} is not a git checkout, so there is no commit to go back to.",
            "Clone the project and run the command there.",
        )
    if _git(project, "cat-file", "-e", f"{commit}^{{commit}}") is None:
        raise LineageError(
            f"The commit {commit} is not in the repository {project}.",
            "Fetch it (`git fetch`), if it was ever pushed.",
        )
    made = Worktree(Path(tempfile.mkdtemp(prefix="mlops-reproduce-")))
    try:
        with ended_by_sigterm():
            if _git(project, "worktree", "add", "--detach", str(made.tree), commit) is None:
                raise LineageError(
                    f"git could not check out {commit} in {made.tree}.",
                    "Check the free space there (TMPDIR), and that git may write to the project.",
                )
            yield made
    finally:
        _git(project, "worktree", "remove", "--force", str(made.tree))
        shutil.rmtree(made.root, ignore_errors=True)
        _git(project, "worktree", "prune")


def python_for(worktree: Worktree, project: Path) -> Path:
    """The interpreter of the environment that the worktree's lock files describe.

    Ours where the lock files are the same, else one that `make` builds in the worktree.
    Raises LineageError when it cannot be built.
    """
    if hash_lock_files(worktree.tree) == hash_lock_files(project):
        return Path(sys.executable)
    logger.warning("the lock files differ from ours: building that environment (minutes)")
    major, minor = sys.version_info[:2]
    python = Path(sys.base_prefix) / "bin" / f"python{major}.{minor}"
    command = ["make", "-C", str(worktree.tree), ".venv/ready", f"PYTHON={python}"]
    if _wait(command, worktree.tree, dict(os.environ)):
        raise LineageError(
            "The environment of the version's lock files cannot be built.",
            "`make` says above what it lacked; a package registry has to be in reach.",
        )
    return worktree.tree / ".venv" / "bin" / "python"


def train_again(worktree: Worktree, python: Path, settings: Mapping[str, Any]) -> None:
    """Run the job `train` in the worktree, from nothing, with these settings by asset.

    Raises LineageError when the run fails; what it says goes to standard error.
    """
    config = worktree.root / "settings.yaml"
    content = {
        "execution": {"config": {"in_process": {}}},
        "loggers": {"console": {}},
        "ops": {asset: {"config": dict(values)} for asset, values in settings.items()},
    }
    config.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), "utf-8")
    dagster_home = worktree.home.root / "dagster"
    dagster_home.mkdir(parents=True, mode=0o700)
    shutil.copyfile(worktree.tree / "dagster.yaml", dagster_home / "dagster.yaml")
    environment = {name: os.environ[name] for name in os.environ if name not in NOT_PASSED_ON} | {
        "MLOPS_HOME": str(worktree.home.root),
        "DAGSTER_HOME": str(dagster_home),
        "MLOPS_PROFILE": str(config),
        "PYTHONPATH": str(worktree.tree),
        "PYTHONWARNINGS": "ignore",
    }
    command = [str(python), "-m", "dagster", "job", "execute", "-m", "mlops_assets.definitions"]
    command += ["-j", JOB, "-c", str(config)]
    if code := _wait(command, worktree.tree, environment):
        raise LineageError(
            f"The lineage of that commit failed (exit code {code}).",
            "Its own message stands above.",
        )


def _wait(command: list[str], folder: Path, environment: dict[str, str]) -> int:
    """Run to the end; if we are ended first, so is the command. Its output is not our result."""
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno()
    ) as process:
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
            raise


def _git(folder: Path, *words: str) -> str | None:
    """What git says, or None when it refuses."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout
