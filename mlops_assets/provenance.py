"""Which code and which libraries made a version: git commit, lock files, source hash.

Every value is always known. Inside a git checkout that tracks the package, git says the
commit. An image has no checkout: its build writes ``MLOPS_GIT_COMMIT`` (with suffix
``-dirty`` where the tree was) and ``MLOPS_LOCK_HASH``. Where there is neither (a tarball, a
repository without a commit) nothing is guessed and nothing is left empty: the tag then holds
a hash of the sources, or of the installed distributions, says so in its prefix, and a
warning is logged.

The author is whose change it is, so that nobody approves their own work alone: ``MLOPS_AUTHOR``
where it is set (an image, or a job that runs for somebody), else the e-mail address of the
commit's author, else ``unknown``. What is not committed is no commit's: then it is the address
with which git here would commit it. Git takes an author's word for it, and so do we.
"""

import hashlib
import importlib.metadata
import logging
import os
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mlops_assets.artifacts import digest_file, digest_json

logger = logging.getLogger(__name__)

DIRTY = "-dirty"
NOBODY_KNOWN = "unknown"


@dataclass(frozen=True)
class Provenance:
    """Where the code came from. No field is ever empty."""

    git_commit: str
    """40 hex digits, or ``sources-sha256:`` and a hash outside version control."""
    git_dirty: bool
    """Whether the tree held changes that the commit does not have."""
    lock_file_hash: str
    """SHA-256 over the lock files, or ``environment-sha256:`` and one over what is installed."""
    code_version: str
    """SHA-256 over the package's source files as they were run."""
    author: str = NOBODY_KNOWN
    """The commit's e-mail address (of changes without one: git's own), what ``MLOPS_AUTHOR`` says,
    or ``unknown``."""


def find_provenance(package: Path) -> Provenance:
    """The provenance of the code in ``package``, whose parent is the project."""
    sources = hash_sources(package)
    checkout = _git(package)
    commit, dirty = checkout or _built_in() or _sources_only(sources)
    author = _author(package.parent, checkout)
    return Provenance(commit, dirty, _lock_hash(package.parent), sources, author)


def find_author(package: Path) -> str:
    """Whose change it is: an e-mail address or a name; empty where nobody is known."""
    known = _author(package.parent, _git(package))
    return "" if known == NOBODY_KNOWN else known


def hash_sources(package: Path) -> str:
    """SHA-256 over the package's source files: the tag ``code_version``."""
    return hash_files(package, _source_files(package))


def hash_lock_files(project: Path) -> str | None:
    """SHA-256 over the project's lock files, or None where it has none."""
    folder = project / "requirements"
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    return hash_files(folder, files) if files else None


def hash_files(root: Path, files: Iterable[Path]) -> str:
    """SHA-256 over names and contents, whatever order the files come in."""
    return digest_json({path.relative_to(root).as_posix(): digest_file(path) for path in files})


def _source_files(package: Path) -> Iterator[Path]:
    return (
        path for pattern in ("*.py", "*.jinja") for path in package.rglob(pattern) if path.is_file()
    )


def _git(package: Path) -> tuple[str, bool] | None:
    """Commit and dirtiness, or None unless git tracks the package and has a commit."""
    project = package.parent
    tracked = _run(project, "ls-files", "--error-unmatch", "--", package.name + "/__init__.py")
    commit, status = _run(project, "rev-parse", "HEAD"), _run(project, "status", "--porcelain")
    if tracked is None or commit is None or status is None:
        return None
    return commit.strip(), bool(status.strip())


def _author(project: Path, checkout: tuple[str, bool] | None) -> str:
    """``checkout`` is commit and dirtiness, or None where the code is in none."""
    if stated := os.environ.get("MLOPS_AUTHOR", "").strip():
        return stated
    if checkout is None:
        return NOBODY_KNOWN
    if checkout[1]:
        written = _run(project, "config", "user.email")
    else:
        written = _run(project, "log", "-1", "--format=%aE")
    return (written or "").strip() or NOBODY_KNOWN


def _run(directory: Path, *command: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *command],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            # Looking must not take the index lock from someone who is committing.
            env=os.environ | {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _built_in() -> tuple[str, bool] | None:
    commit = os.environ.get("MLOPS_GIT_COMMIT", "").strip()
    if not commit.removesuffix(DIRTY):
        return None
    return commit.removesuffix(DIRTY), commit.endswith(DIRTY)


def _sources_only(sources: str) -> tuple[str, bool]:
    logger.warning(
        "the code is not under version control and MLOPS_GIT_COMMIT is not set: the version's"
        " tag git_commit holds a hash of the sources instead"
    )
    return f"sources-sha256:{sources}", True


def _lock_hash(project: Path) -> str:
    if built_in := os.environ.get("MLOPS_LOCK_HASH", "").strip():
        return built_in
    if locked := hash_lock_files(project):
        return locked
    logger.warning("there is no lock file: the tag lock_file_hash is made of what is installed")
    installed = sorted({f"{d.name}=={d.version}" for d in importlib.metadata.distributions()})
    return "environment-sha256:" + hashlib.sha256("\n".join(installed).encode()).hexdigest()
