"""What may stand in a registered package: weights as safetensors, and plain text beside them.

A file has to be what its name says. A pickle runs code when it is read, whatever it is called:
one under another name is no safetensors file, no JSON, no UTF-8 text and no PNG, and is refused
like one under its own.
"""

import json
from collections.abc import Callable
from pathlib import Path

from mlops_assets.artifacts import LineageError
from mlops_assets.pickle_files import may_be_pickle

MIB = 1024**2
PNG = b"\x89PNG\r\n\x1a\n"
REMEDY = "Save weights with safetensors, leave everything else out, and materialise again."


def check_files(directory: Path) -> None:
    """Refuse a directory that holds anything but safetensors, JSON, text and PNG pictures.

    Raises LineageError that names the file.
    """
    for path in sorted(directory.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise LineageError(f"{path} is no plain file.", REMEDY)
        if path.is_file():
            _check_file(path)


def check_size(directory: Path, limit_mib: int, what: str) -> None:
    """Refuse a directory of more than ``limit_mib`` MiB. Raises LineageError."""
    size = directory_size(directory)
    if size > limit_mib * MIB:
        raise LineageError(
            f"{what} has {size / MIB:,.1f} MiB, more than the {limit_mib:,} MiB that a registered"
            " package may have.",
            "Train a smaller adapter, or raise registered_model's max_package_mib.",
        )


def directory_size(directory: Path) -> int:
    """Bytes of all files below ``directory``."""
    return sum(path.lstat().st_size for path in directory.rglob("*") if not path.is_dir())


def _check_file(path: Path) -> None:
    if may_be_pickle(path):
        raise LineageError(f"{path} may hold a pickle, which runs code when it is read.", REMEDY)
    check = CHECKS.get(path.suffix.lower())
    if check is None and path.name != "MLmodel":
        raise LineageError(f"{path} is of no kind that a registered package may hold.", REMEDY)
    if not (check or _is_text)(path):
        raise LineageError(
            f"{path} is not what its name says; it may be a pickle, which runs code when it is"
            " read.",
            REMEDY,
        )


def _is_safetensors(path: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as tensors:
            return bool(tensors.keys())
    except (SafetensorError, OSError):
        return False


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except ValueError:
        return False
    return True


def _is_text(path: Path) -> bool:
    try:
        return "\0" not in path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return False


def _is_png(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(len(PNG)) == PNG


CHECKS: dict[str, Callable[[Path], bool]] = {
    ".safetensors": _is_safetensors,
    ".json": _is_json,
    ".png": _is_png,
    **dict.fromkeys((".md", ".txt", ".jinja", ".yaml"), _is_text),
}
