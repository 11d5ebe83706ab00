"""A training that is killed or interrupted ends as if it had not been."""

import json
import logging
import multiprocessing
import os
import random
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from mlops_assets.artifacts import Artifact, ArtifactStore, LineageError
from mlops_assets.home import translate_disk_full
from mlops_assets.training.checkpoints import KEPT, Checkpoints
from mlops_assets_tests.small_training import (
    SPEC,
    STEPS,
    acting_at_step,
    make_inputs,
    train,
    train_until_killed,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that holds the inputs of the training, and nothing else."""
    root = tmp_path_factory.mktemp("inputs") / "artifacts"
    make_inputs(ArtifactStore(root))
    return root


@pytest.fixture
def root(inputs: Path, tmp_path: Path) -> Path:
    """A store of the test's own."""
    return Path(shutil.copytree(inputs, tmp_path / "artifacts"))


@pytest.fixture(scope="module")
def uninterrupted(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """What the training makes when nothing happens and no checkpoint is written."""
    root = shutil.copytree(inputs, tmp_path_factory.mktemp("whole") / "artifacts")
    artifact = train(root, checkpoint_seconds=3600)
    assert artifact.summary["steps"] == STEPS
    return artifact


@pytest.fixture(scope="module")
def processes() -> Any:
    """Starts processes by forking one that has imported the libraries: they take seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["trl.trainer.sft_trainer", train.__module__])
    return context


def kill(processes: Any, root: Path, where: str) -> None:
    """Train in a process of its own until it is killed."""
    process = processes.Process(target=train_until_killed, args=(root, where))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL


def saved_steps(root: Path) -> list[int]:
    """The steps of the checkpoints that lie in the store."""
    found = ArtifactStore(root).checkpoints.glob("*/step-*")
    return sorted(int(path.name.removeprefix("step-")) for path in found)


@pytest.mark.parametrize(
    ("deaths", "resumed"),
    [
        (["1"], None),  # before the first checkpoint
        (["2", "4", "7"], 6),  # three times; the second ends an epoch, and the checkpoint of it
        (["5"], 4),  # the first checkpoint in use is that of an epoch's end
        ([str(STEPS)], STEPS - 1),
        (["6", "_seal"], 5),  # the files are there, their manifest is not
        (["6", "_publish"], 5),  # all is written, and not yet in its place
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_killed_training_ends_with_the_same_bytes(
    root: Path,
    uninterrupted: Artifact,
    processes: Any,
    deaths: list[str],
    resumed: int | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for where in deaths:
        kill(processes, root, where)
    caplog.set_level(logging.INFO, "mlops_assets")
    artifact = train(root)
    assert ("resuming at step" in caplog.text) == (resumed is not None)
    assert resumed is None or f"resuming at step {resumed} of {STEPS}" in caplog.text
    assert artifact.digest == uninterrupted.digest
    assert saved_steps(root) == []


@pytest.fixture(scope="module")
def begun(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which the training stopped after step 7, with checkpoints of 6 and 7."""

    class Stop(Exception):
        pass

    def stop() -> None:
        raise Stop

    root = shutil.copytree(inputs, tmp_path_factory.mktemp("begun") / "artifacts")
    with acting_at_step(8, stop), pytest.raises(Stop):
        train(root)
    assert saved_steps(root) == [6, 7]
    return root


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def add_another(path: Path) -> None:
    path.write_text("x")


DAMAGES: list[tuple[Callable[[Path], object], str, str]] = [
    (truncate, "weights.safetensors", r"weights.safetensors has [\d,]+ bytes instead of [\d,]+"),
    (flip_a_bit, "weights.safetensors", "weights.safetensors has another SHA-256"),
    (flip_a_bit, "optimizer.safetensors", "optimizer.safetensors has another SHA-256"),
    (flip_a_bit, "state.json", "state.json has another SHA-256"),
    (Path.unlink, "trainer_state.json", "trainer_state.json is missing"),
    (Path.unlink, "manifest.json", "manifest.json is missing"),
    (truncate, "manifest.json", "manifest.json is not valid JSON"),
    (flip_a_bit, "manifest.json", "manifest.json is"),
    (add_another, "optimizer.pt", "optimizer.pt was added"),
]


@pytest.mark.parametrize(("damage", "file", "reason"), DAMAGES)
def test_a_damaged_checkpoint_is_passed_over(
    begun: Path,
    tmp_path: Path,
    damage: Callable[[Path], object],
    file: str,
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (directory,) = ArtifactStore(begun).checkpoints.iterdir()
    checkpoints = Checkpoints(Path(shutil.copytree(directory, tmp_path / "copy")))
    older, newer = sorted(checkpoints.directory.iterdir())
    assert checkpoints.newest_complete() == newer
    damage(newer / file)
    assert checkpoints.newest_complete() == older
    (line,) = caplog.records
    assert line.levelno == logging.WARNING
    assert "CHECKPOINT SKIPPED" in line.message
    assert str(newer) in line.message
    assert line.message.count(file) >= 1
    assert re.search(reason, line.message)


def test_an_older_checkpoint_gives_the_same_bytes(
    begun: Path, tmp_path: Path, uninterrupted: Artifact, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mlops_assets")
    root = Path(shutil.copytree(begun, tmp_path / "artifacts"))
    truncate(next(root.glob("checkpoints/*/step-*7/state.json")))
    assert train(root).digest == uninterrupted.digest
    assert f"resuming at step 6 of {STEPS}" in caplog.text


def test_without_a_complete_checkpoint_training_starts_anew(
    begun: Path, tmp_path: Path, uninterrupted: Artifact, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mlops_assets")
    root = Path(shutil.copytree(begun, tmp_path / "artifacts"))
    for manifest in root.glob("checkpoints/*/*/manifest.json"):
        manifest.unlink()
    assert train(root).digest == uninterrupted.digest
    assert caplog.text.count("CHECKPOINT SKIPPED") == KEPT
    assert "resuming" not in caplog.text


def test_other_work_in_the_process_changes_nothing(root: Path, uninterrupted: Artifact) -> None:
    import numpy as np
    import torch

    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    torch.nn.Linear(3, 3)
    assert train(root).digest == uninterrupted.digest


def test_what_checkpoints_cost_is_no_part_of_the_recipe() -> None:
    assert "checkpoint_seconds" not in SPEC.read()


@pytest.fixture
def stopped_by_signals() -> Iterator[type[BaseException]]:
    """A handler like Dagster's: it raises."""

    class Stopped(BaseException):
        pass

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise Stopped

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    yield Stopped
    for number, handler in before.items():
        assert signal.signal(number, handler) is stop, "the previous handler was not put back"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_training_saves_its_step(
    root: Path,
    uninterrupted: Artifact,
    stopped_by_signals: type[BaseException],
    number: signal.Signals,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def interrupt() -> None:
        for _ in range(2):  # the second, as of a whole group of processes, changes nothing
            os.kill(os.getpid(), number)

    with acting_at_step(5, interrupt), pytest.raises(stopped_by_signals):
        train(root, checkpoint_seconds=3600)
    assert saved_steps(root) == [5]
    assert f"step 5 of {STEPS} is saved, run the same command again" in caplog.text
    assert train(root).digest == uninterrupted.digest


def test_a_full_disk_leaves_the_earlier_checkpoint(
    begun: Path, tmp_path: Path, uninterrupted: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(shutil.copytree(begun, tmp_path / "artifacts"))

    def write(path: Path, _text: str, **_: Any) -> int:
        with Path("/dev/full").open("wb", buffering=0) as full:
            return full.write(b"x")

    with monkeypatch.context() as disk:
        disk.setattr(Path, "write_text", write)
        with pytest.raises(LineageError, match=r"is full"), translate_disk_full(root):
            train(root)
    assert saved_steps(root) == [6, 7]
    assert not list(root.rglob("*/.step-*"))
    assert train(root).digest == uninterrupted.digest


def test_times_of_the_parts_add_up(begun: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(begun, tmp_path / "artifacts"))
    newest = max(root.glob("checkpoints/*/step-*"))
    saved = json.loads((newest / "state.json").read_text())["log"]
    artifact = train(root)
    assert artifact.summary["tokens"] > saved["tokens"] > 0
    assert artifact.summary["train_seconds"] >= round(saved["seconds"], 1) > 0
