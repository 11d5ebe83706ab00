"""Data versions: DVC's own hashes, and what DVC has pinned.

Hashing uses DVC's data library directly. It needs no repository and writes nothing, so it
works on any path, in a read-only checkout, and in a sensor every thirty seconds.
"""

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mlops_assets.artifacts import LineageError
from mlops_assets.dataset import pinned_sources
from mlops_assets.home import Home

CHECKOUT = Path(__file__).resolve().parents[2]
LOCK, PIPELINE = "dvc.lock", "dvc.yaml"
JOIN = "+"  # between the versions of source and feedback

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
    filled = fill(path)
    here = Path(filled).expanduser().absolute()
    known_here = here.exists() or pin(here) is not None
    return here if known_here or not (CHECKOUT / ".dvc").is_dir() else CHECKOUT / filled


def fill(path: str) -> str:
    """``path`` with its ``${VARIABLES}`` filled in. Raises LineageError when one is unset."""
    known = Home.fill(path)
    return re.sub(r"\$\{(\w+)\}", lambda match: _variable(match.group(1), path), known)


def joined(source: str, feedback: str) -> str:
    """The version of a source and the feedback that stands after it, if any does."""
    return f"{source}{JOIN}{feedback}" if feedback else source


def parts(version: str) -> tuple[str, str]:
    """The inverse of ``joined``: the source's version, and feedback's or an empty text."""
    source, _, feedback = version.partition(JOIN)
    return source, feedback


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

    For data that is not there yet but pinned, the pinned hash: it is what a rebuild gives. For
    a pinned source that was never fetched, its address: looking must not download.
    Raises LineageError for data that is neither.
    """
    if source := pinned_sources.parse(fill(str(path))):
        fetched = pinned_sources.find(Home.from_environment().store, source)
        if fetched is None:
            return str(source)
        path = fetched
    place = resolve(str(path))
    if not place.exists():
        if (pinned := pin(place)) is None:
            raise missing(place)
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
            for found, pinned in pinned_outputs(folder):
                if found == path:
                    return pinned
        if (folder / ".dvc").is_dir():
            break
    return None


def pinned_outputs(folder: Path) -> list[tuple[Path, Pin]]:
    """What the pipeline in ``folder`` makes, and what its lock file says of it."""
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


def missing(path: Path) -> LineageError:
    """The error for data that is nowhere."""
    return LineageError(
        f"There is no data at {path}.",
        "Put it there, or set `path` of the op raw_dataset in the profile.",
    )
