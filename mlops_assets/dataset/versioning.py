"""Data versions: DVC's own hashes, what DVC has pinned, and rebuilding what is missing.

Hashing uses DVC's data library directly. It needs no repository and writes nothing, so it
works on any path, in a read-only checkout, and in a sensor every thirty seconds.
"""

import fcntl
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mlops_assets.artifacts import LineageError

logger = logging.getLogger(__name__)

CHECKOUT = Path(__file__).resolve().parents[2]
LOCK, PIPELINE = "dvc.lock", "dvc.yaml"

Fingerprint = tuple[tuple[str, int, int, int], ...]
_versions: dict[Path, tuple[Fingerprint, str]] = {}


class Pin(NamedTuple):
    """An output that DVC has pinned."""

    version: str
    lock: Path
    stage: str


def resolve(path: str) -> Path:
    """The absolute path, ``${VARIABLES}`` filled in; relative ones from here, else our checkout.

    Raises LineageError when a variable is unset.
    """
    filled = re.sub(r"\$\{(\w+)\}", lambda match: _variable(match.group(1), path), path)
    here = Path(filled).expanduser().absolute()
    known_here = here.exists() or pin(here) is not None
    return here if known_here or not (CHECKOUT / ".dvc").is_dir() else CHECKOUT / filled


def dvc_hash(path: Path) -> str:
    """The hash that ``dvc add`` would record: md5 of a file, of a directory with ``.dir``."""
    from dvc_data.hashfile.hash import hash_file
    from dvc_data.hashfile.tree import Tree
    from dvc_objects.fs.local import LocalFileSystem

    system: Any = LocalFileSystem()  # type: ignore[no-untyped-call]
    if path.is_file():
        return str(hash_file(str(path), system, "md5")[1].value)
    tree = Tree()
    for file in _files(path):
        meta, info = hash_file(str(file), system, "md5")
        tree.add(file.relative_to(path).parts, meta, info)
    tree.digest()
    return str(tree.hash_info.value)


def current_version(path: str | Path) -> str:
    """``dvc_hash`` of ``path``, remembered until a size, time or inode changes.

    For data that is not there yet but pinned, the pinned hash: it is what a rebuild gives.
    Raises LineageError for data that is neither.
    """
    place = resolve(str(path))
    if not place.exists():
        if (pinned := pin(place)) is None:
            raise _missing(place)
        return pinned.version
    fingerprint = tuple(_fingerprint(file) for file in _files(place))
    if place not in _versions or _versions[place][0] != fingerprint:
        _versions[place] = (fingerprint, dvc_hash(place))
    return _versions[place][1]


def pin(path: Path) -> Pin | None:
    """What a ``dvc.lock`` or ``.dvc`` file beside or above ``path`` says of it."""
    pointer = path.with_name(f"{path.name}.dvc")
    if pointer.is_file():
        try:
            return Pin(str(_read_yaml(pointer)["outs"][0]["md5"]), pointer, "")
        except (KeyError, IndexError, TypeError) as error:
            raise _unreadable(pointer, error) from error
    for folder in path.parents:
        if (folder / LOCK).is_file():
            for found, pinned in _pinned_outputs(folder):
                if found == path:
                    return pinned
        if (folder / ".dvc").is_dir():
            break
    return None


def rebuild_missing(path: Path) -> None:
    """Let DVC rebuild ``path``, and whatever else its pipeline makes that is missing.

    Data that is there is never touched. Raises LineageError when nothing can rebuild ``path``,
    when DVC fails, or when the result is not what the lock file pins.
    """
    pinned = pin(path)
    if pinned is None or not pinned.stage:
        if not path.exists():
            raise _missing(path)
        return
    if all(out.exists() for out, _ in _pinned_outputs(pinned.lock.parent)):
        return
    with _one_at_a_time(_project(pinned.lock.parent)):
        outputs = _pinned_outputs(pinned.lock.parent)
        for out, lost in {p.stage: (out, p) for out, p in outputs if not out.exists()}.values():
            logger.info("%s is missing: rebuilding it with `dvc repro`", out)
            _reproduce(out, lost)


@contextmanager
def _one_at_a_time(root: Path) -> Iterator[None]:
    """Let another run in this checkout finish its rebuild first: DVC would refuse the second."""
    _prepare_private_folders(root)
    with (root / ".dvc" / "tmp" / "rebuild.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _reproduce(out: Path, pinned: Pin) -> None:
    lock = pinned.lock.read_bytes()
    result = _run_dvc(pinned.lock.parent, pinned.stage)
    if result.returncode != 0 or not out.exists():
        said = re.search(r"^ERROR: .*", result.stderr, re.MULTILINE)
        detail = said.group() if said else f"exit code {result.returncode}"
        raise LineageError(
            f"`dvc repro` could not rebuild {out} ({detail}).",
            f"Run `dvc repro {pinned.lock.with_name(PIPELINE)}` to see why.",
        )
    if (version := dvc_hash(out)) != pinned.version:
        shutil.rmtree(out) if out.is_dir() else out.unlink()
        pinned.lock.write_bytes(lock)
        raise LineageError(
            f"The rebuilt {out} has the hash {version}, but {pinned.lock} pins {pinned.version}.",
            "If its generator was changed on purpose, run `dvc repro"
            f" {pinned.lock.with_name(PIPELINE)}` and commit the new {LOCK}.",
        )


def _run_dvc(folder: Path, stage: str) -> "subprocess.CompletedProcess[str]":
    root = _project(folder)
    # The stage's command finds the Python that we run under, whatever the shell's PATH says.
    search = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    environment = os.environ | {
        "PATH": os.pathsep.join(search),
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(root / ".dvc" / "tmp" / "site"),
    }
    command = [sys.executable, "-m", "dvc", "repro", f"{folder / PIPELINE}:{stage}"]
    return subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False
    )


def _project(folder: Path) -> Path:
    """The folder with ``.dvc`` that ``folder`` belongs to."""
    return next((parent for parent in folder.parents if (parent / ".dvc").is_dir()), folder)


def _prepare_private_folders(root: Path) -> None:
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


def _pinned_outputs(folder: Path) -> list[tuple[Path, Pin]]:
    pipeline, locked = _read_yaml(folder / PIPELINE), _read_yaml(folder / LOCK)
    outputs = []
    try:
        for name, stage in locked["stages"].items():
            base = folder / pipeline["stages"].get(name, {}).get("wdir", ".")
            for out in stage.get("outs", ()):
                place = Path(os.path.normpath(base / out["path"]))
                outputs.append((place, Pin(str(out["md5"]), folder / LOCK, name)))
    except (KeyError, TypeError, AttributeError) as error:
        raise _unreadable(folder / LOCK, error) from error
    return outputs


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise _unreadable(path, error) from error
    return content


def _unreadable(path: Path, error: Exception) -> LineageError:
    return LineageError(f"{path} cannot be read ({type(error).__name__}).", "Restore it from git.")


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())


def _fingerprint(file: Path) -> tuple[str, int, int, int]:
    status = file.stat()
    return str(file), status.st_size, status.st_mtime_ns, status.st_ino


def _variable(name: str, path: str) -> str:
    if not (value := os.environ.get(name)):
        raise LineageError(
            f"The data path {path} needs the environment variable {name}, which is not set.",
            f"Set {name} to the directory with the data; the README says where to get it.",
        )
    return value


def _missing(path: Path) -> LineageError:
    return LineageError(
        f"There is no data at {path}.",
        "Put it there, or set `path` of the op raw_dataset in the profile.",
    )
