"""Files that may hold pickles, which run code when they are read."""

from pathlib import Path

ENDINGS = frozenset(
    {".bin", ".ckpt", ".dill", ".h5", ".joblib", ".keras", ".npy", ".npz"}
    | {".pickle", ".pkl", ".pt", ".pth"}
)


def may_be_pickle(path: Path) -> bool:
    """By the end of its name, however it is written."""
    return path.suffix.lower() in ENDINGS
