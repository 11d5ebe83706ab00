"""Versions of the rows that feedback gave, tracked by DVC in a private directory.

DVC pins ``training.jsonl``, ``regressions.jsonl`` and ``provenance.jsonl`` by content;
``versions.jsonl`` lists what was in force since when, so that each version comes back by its
name, from DVC's cache or its remote. Every step is whole or not at all and may be done again: a
process that was killed in between leaves what the next one completes.

Below ``MLOPS_HOME`` the directory is a DVC project of its own, without git. Elsewhere it belongs to
the project around it, whose remote and git then carry it.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import TypeAdapter, ValidationError

from mlops_assets.artifacts import SHORT, LineageError, atomic_write, digest_json
from mlops_assets.dvc_project import has_remote, prepare_private_folders, project_of, run_dvc
from mlops_assets.home import Home
from mlops_assets.monitoring.feedback.row_files import CASES, SUITE, TRACKED, TRAINING, row_ids
from mlops_assets.profiles import PROJECT

VERSIONS, LOCK, SCRATCH = "versions.jsonl", ".lock", ".restore"
CONFIG = "[core]\n    no_scm = true\n    analytics = false\n    check_update = false\n"


class Pinned(NamedTuple):
    """A file as DVC knows it."""

    md5: str
    size: int
    rows: int


@dataclass(frozen=True)
class Version:
    """What was in force from a time on."""

    version: str
    """64 hex digits over what DVC pins."""
    time: str
    """ISO 8601 in UTC."""
    files: Mapping[str, Pinned]
    added: int
    """Training rows that the version before did not have."""
    removed: int
    """Training rows that it had and this has not."""
    reason: str

    @property
    def training(self) -> Pinned:
        """The rows to learn from."""
        return self.files[TRAINING]

    @property
    def cases(self) -> Pinned:
        """The cases to ask."""
        return self.files[CASES]


_VERSION = TypeAdapter(Version)


def feedback_directory(path: str) -> Path:
    """The absolute path that a setting names. Raises LineageError for an unset variable."""
    filled = os.path.expandvars(Home.fill(path))
    if "$" in filled:
        raise LineageError(
            f"{path!r} names an environment variable that is not set.",
            "Set it, or change the settings of feedback_rows in the profile.",
        )
    return (PROJECT / Path(filled).expanduser()).absolute()


def publish(directory: Path, made: Path, time: str, reason: str) -> Version:
    """Put the files in ``made`` in force, as a version unless they are already.

    Raises LineageError when the directory cannot be written, or when DVC fails.
    """
    with _locked(directory):
        before = row_ids(directory / TRAINING)
        for name in (*TRACKED, SUITE):
            _put(made / name, directory / name)
        _pin(directory)
        return _note(directory, before, time, reason)


def restore(directory: Path, name: str, time: str) -> Version:
    """Bring back the version whose name, or whose rows' or cases' hash, begins with ``name``.

    Raises LineageError when there is none, or more than one, or when neither DVC's cache nor its
    remote holds its files; then everything stays as it was.
    """
    wanted = find_version(directory, name)
    with _locked(directory), _scratch(directory) as scratch:
        for file in TRACKED:
            _write(_pointer(scratch, file), _pointer_text(file, wanted.files[file]))
        if lost := _check_out(directory, scratch, wanted):
            raise LineageError(
                f"{lost[0]} of version {wanted.version[:SHORT]} ({wanted.files[lost[0]].md5}) is"
                " neither in DVC's cache nor to be had from a remote.",
                f"Name the remote with `dvc remote add -d NAME URL` in {_project(directory)}, or"
                " put that cache back.",
            )
        before = row_ids(directory / TRAINING)
        for file in TRACKED:
            _put(scratch / file, directory / file)
            _put(_pointer(scratch, file), _pointer(directory, file))
        return _note(directory, before, time, f"restored {wanted.version[:SHORT]}")


def read_versions(directory: Path) -> list[Version]:
    """Every version, oldest first; none before the first feedback. Raises LineageError."""
    path = directory / VERSIONS
    try:
        lines = path.read_bytes().splitlines() if path.is_file() else []
        return [_VERSION.validate_json(line) for line in lines]
    except (OSError, ValidationError) as error:
        raise LineageError(
            f"{path} cannot be read ({type(error).__name__}).", "Bring it back from a backup."
        ) from error


def find_version(directory: Path, name: str) -> Version:
    """The version that ``name`` names; see ``restore``."""
    found = {
        version.version: version
        for version in read_versions(directory)
        if name
        and any(
            hash.startswith(name)
            for hash in (version.version, version.training.md5, version.cases.md5)
        )
    }
    if len(found) != 1:
        many = f"There are {len(found)} versions" if found else "There is no version"
        raise LineageError(
            f"{many} of feedback in {directory} whose name begins with {name!r}.",
            "`mlops feedback versions` lists them.",
        )
    return next(iter(found.values()))


def new_rows_since(directory: Path, dataset_version: str) -> int:
    """How many training rows are in force that a dataset did not have; reads one small file.

    ``dataset_version`` is ``RawDatasetRef.version``: without feedback, or with some that is not
    listed here, every row is new.
    """
    versions = read_versions(directory)
    seen = dataset_version.partition("+")[2]
    if not versions:
        return 0
    known = [place for place, one in enumerate(versions) if one.training.md5 == seen]
    if not known:
        return versions[-1].training.rows
    return sum(version.added for version in versions[known[-1] + 1 :])


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        directory.chmod(0o700)  # whoever made it: what users wrote lies here
        lock = directory / LOCK
        lock.touch(mode=0o600)
        with lock.open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise LineageError(
            f"Feedback cannot be kept in {directory} ({error.strerror}).",
            "Set feedback_rows' `directory` to one that you may write, or free some space.",
        ) from error


@contextmanager
def _scratch(directory: Path) -> Iterator[Path]:
    """A place for what may not come: what is in force stays until all of it is there."""
    scratch = directory / SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
    scratch.mkdir(mode=0o700)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch)


def _put(source: Path, target: Path) -> None:
    if not target.is_file() or target.read_bytes() != source.read_bytes():
        with atomic_write(target) as temporary:
            shutil.copyfile(source, temporary)
            temporary.chmod(0o600)


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as temporary:
        temporary.touch(mode=0o600)
        temporary.write_bytes(content)


def _project(directory: Path) -> Path:
    """The DVC project that the directory belongs to, made where there is none."""
    ours = directory.is_relative_to(Home.from_environment().root)
    root = directory if ours else project_of(directory)
    config = root / ".dvc" / "config"
    if not config.is_file():
        _write(config, CONFIG.encode())
    prepare_private_folders(root)
    return root


def _pin(directory: Path) -> None:
    """Have DVC take in what it does not know yet."""
    if all(_read_pin(directory, name) == _md5(directory / name) for name in TRACKED):
        return
    done = _dvc(directory, "add", "-q", *(str(directory / name) for name in TRACKED))
    if done or any(_read_pin(directory, name) != _md5(directory / name) for name in TRACKED):
        raise LineageError(
            f"DVC could not take in the feedback in {directory} (exit code {done}).",
            f"Run `dvc add {' '.join(TRACKED)}` there to see why.",
        )


def _check_out(directory: Path, scratch: Path, wanted: Version) -> list[str]:
    """Bring the files that the pointers in ``scratch`` name; which of them did not come."""
    pointers = [str(_pointer(scratch, name)) for name in TRACKED]
    if _dvc(directory, "checkout", "-q", "-f", *pointers) and has_remote(_project(directory)):
        _dvc(directory, "pull", "-q", "-f", *pointers)
    came = {name: scratch / name for name in TRACKED if (scratch / name).is_file()}
    return [
        name for name in TRACKED if name not in came or _md5(came[name]) != wanted.files[name].md5
    ]


def _note(directory: Path, before: set[str], time: str, reason: str) -> Version:
    """The version in force, which becomes the list's last line unless it is."""
    for name in TRACKED:  # DVC gives what it takes in and brings back the mode of any file
        (directory / name).chmod(0o600)
        _pointer(directory, name).chmod(0o600)
    versions = read_versions(directory)
    files = {name: _pinned(directory / name) for name in TRACKED}
    name = digest_json({file: pinned.md5 for file, pinned in files.items()})
    if versions and versions[-1].version == name:
        return versions[-1]
    now = row_ids(directory / TRAINING)
    version = Version(name, time, files, len(now - before), len(before - now), reason)
    _write(directory / VERSIONS, b"".join(_line(one) for one in (*versions, version)))
    return version


def _line(version: Version) -> bytes:
    files = {name: pinned._asdict() for name, pinned in version.files.items()}
    return json.dumps(asdict(version) | {"files": files}).encode() + b"\n"


def _pinned(path: Path) -> Pinned:
    content = path.read_bytes()
    return Pinned(_md5(path), len(content), content.count(b"\n"))


def _pointer(directory: Path, name: str) -> Path:
    return directory / f"{name}.dvc"


def _pointer_text(name: str, pinned: Pinned) -> bytes:
    """A pointer as ``dvc add`` writes it."""
    out = {"md5": pinned.md5, "size": pinned.size, "hash": "md5", "path": name}
    return yaml.safe_dump({"outs": [out]}, sort_keys=False).encode()


def _read_pin(directory: Path, name: str) -> str:
    try:
        pointer: Any = yaml.safe_load(_pointer(directory, name).read_text("utf-8"))
        return str(pointer["outs"][0]["md5"])
    except (OSError, ValueError, yaml.YAMLError, KeyError, IndexError, TypeError):
        return ""


def _md5(path: Path) -> str:
    """As DVC hashes a file."""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def _dvc(directory: Path, *words: str) -> int:
    return run_dvc(_project(directory), *words).returncode
