"""Checkpoints on disk: only whole ones are used, and only the last two are kept."""

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mlops_assets.training.checkpoints import Checkpoints

WEIGHTS, STATE, MANIFEST = "weights.safetensors", "state.json", "manifest.json"


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    """Three were written."""
    checkpoints = Checkpoints(tmp_path / "recipe")
    for step in (8, 9, 10):
        checkpoints.write(step, write_files)
    return checkpoints


def write_files(directory: Path) -> None:
    (directory / WEIGHTS).write_bytes(bytes(1000))
    (directory / STATE).write_text("{}")


def steps(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in checkpoints.directory.iterdir())


def test_the_last_two_are_kept(checkpoints: Checkpoints) -> None:
    assert steps(checkpoints) == ["step-00000009", "step-00000010"]


def test_without_any_there_is_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "recipe").newest_complete() is None


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def add(path: Path) -> None:
    path.write_text("x")


@pytest.mark.parametrize(
    ("damage", "file", "reason"),
    [
        (truncate, WEIGHTS, "weights.safetensors has 999 bytes instead of 1,000"),
        (flip_a_bit, WEIGHTS, "weights.safetensors has another SHA-256"),
        (flip_a_bit, STATE, "state.json has another SHA-256"),
        (Path.unlink, STATE, "state.json is missing"),
        (Path.unlink, MANIFEST, "manifest.json is missing"),
        (truncate, MANIFEST, "manifest.json is not valid JSON"),
        (flip_a_bit, MANIFEST, "manifest.json is damaged"),
        (add, "optimizer.pt", "optimizer.pt was added"),
    ],
)
def test_a_damaged_one_is_passed_over_loudly(
    checkpoints: Checkpoints,
    damage: Callable[[Path], object],
    file: str,
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    older, newer = sorted(checkpoints.directory.iterdir())
    assert checkpoints.newest_complete() == newer
    damage(newer / file)
    assert checkpoints.newest_complete() == older
    (line,) = caplog.records
    assert line.levelno == logging.WARNING
    assert re.search(f"CHECKPOINT SKIPPED: {newer} .*{reason}", line.message)


def test_one_that_was_passed_over_is_written_again(checkpoints: Checkpoints) -> None:
    flip_a_bit(checkpoints.directory / "step-00000010" / WEIGHTS)
    checkpoints.write(10, write_files)
    assert checkpoints.newest_complete() == checkpoints.directory / "step-00000010"


def test_a_half_written_one_is_named_and_deleted(
    checkpoints: Checkpoints, caplog: pytest.LogCaptureFixture
) -> None:
    half = checkpoints.directory / ".step-0000001-0123abcd"
    half.mkdir()
    write_files(half)
    assert checkpoints.newest_complete() == checkpoints.directory / "step-00000010"
    assert f"{half} cannot be used: its writing was interrupted" in caplog.text
    assert not half.exists()


def test_a_failed_one_leaves_the_earlier_ones(checkpoints: Checkpoints) -> None:
    def fail(directory: Path) -> None:
        write_files(directory)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        checkpoints.write(11, fail)
    assert steps(checkpoints) == ["step-00000009", "step-00000010"]
