"""DVC's projects: which one a file belongs to, and DVC's own command run in it.

DVC needs no git: with ``core.no_scm`` any directory with a ``.dvc`` folder is a project.
"""

import configparser
import os
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

from mlops_assets.artifacts import LineageError
from mlops_assets.file_lock import exclusive_lock


def has_remote(root: Path) -> bool:
    """Whether the project names a default remote, in its own or in its private settings."""
    settings = configparser.ConfigParser(interpolation=None)
    try:
        settings.read([root / ".dvc" / "config", root / ".dvc" / "config.local"], encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise LineageError(
            f"DVC's settings in {root / '.dvc'} cannot be read ({type(error).__name__}).",
            "Correct them with `dvc remote` and `dvc config`.",
        ) from error
    return bool(settings.get("core", "remote", fallback=""))


def one_at_a_time(root: Path) -> AbstractContextManager[None]:
    """Let another run in this checkout finish its rebuild first: DVC would refuse the second."""
    prepare_private_folders(root)
    return exclusive_lock(root / ".dvc" / "tmp" / "rebuild.lock")


def run_dvc(root: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    # The stage's command finds the Python that we run under, whatever the shell's PATH says.
    search = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    environment = os.environ | {
        "PATH": os.pathsep.join(search),
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(root / ".dvc" / "tmp" / "site"),
    }
    command = [sys.executable, "-m", "dvc", *words]
    return subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False
    )


def project_of(folder: Path) -> Path:
    """The folder with ``.dvc`` that ``folder`` belongs to."""
    return next((place for place in (folder, *folder.parents) if (place / ".dvc").is_dir()), folder)


def prepare_private_folders(root: Path) -> None:
    """DVC unpickles what lies in its caches: nobody else may write there."""
    try:
        for private in ("tmp", "cache"):
            (root / ".dvc" / private).mkdir(mode=0o700, parents=True, exist_ok=True)
            (root / ".dvc" / private).chmod(0o700)
    except PermissionError as error:
        raise LineageError(
            f"DVC cannot write to {root / '.dvc'}, so the missing data cannot be rebuilt.",
            f"Run once as the owner of {root}, or build the data into the image (`dvc repro`).",
        ) from error
