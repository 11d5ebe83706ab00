"""A training that is killed or interrupted ends as if it had not been."""

import json
import logging
import os
import random
import shutil
import signal
from collections.abc import Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import dagster as dg
import mlflow
import pytest

from mlops_assets.artifacts import Artifact, ArtifactStore, LineageError
from mlops_assets.console import INTERRUPTED
from mlops_assets.cost import Meter, Usage
from mlops_assets.home import Home, translate_disk_full
from mlops_assets.ref_json import dump_ref
from mlops_assets.refs import AdapterRef
from mlops_assets.training import resume
from mlops_assets.training.checkpoints import Checkpoints
from mlops_assets.training.spec import FinetuneSpec
from mlops_assets_tests.commands import environment_for
from mlops_assets_tests.small_training import (
    RARELY,
    SPEC,
    STEPS,
    Stopped,
    acting_at_step,
    make_inputs,
    saved_steps,
    stop,
    train,
    train_until_killed,
)
from mlops_assets_tests.waiting import wait_until
from mlops_assets_tests.warm_process import fork, run_words

pytestmark = pytest.mark.slow

TRAINING_JOB = "mlops_assets_tests.training_job"


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
    artifact = train(root, RARELY)
    assert artifact.summary["steps"] == STEPS
    return artifact


def kill(root: Path, where: str) -> None:
    """Train in a process of its own until it is killed."""
    process = fork(train_until_killed, root, where)
    process.join(120)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("deaths", "resumed"),
    [
        # Before the first checkpoint; the last at an epoch's end.
        (["1", "2", "5"], 4),
        (["3", "_seal", "_publish"], 2),  # no manifest yet; all written, but not in its place
    ],
)
def test_killed_training_ends_with_the_same_bytes(
    root: Path,
    uninterrupted: Artifact,
    deaths: list[str],
    resumed: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for where in deaths:
        kill(root, where)
    caplog.set_level(logging.INFO, "mlops_assets")
    artifact = train(root)
    assert f"resuming at step {resumed} of {STEPS}" in caplog.text
    assert artifact.digest == uninterrupted.digest
    assert saved_steps(root) == []


@pytest.fixture(scope="module")
def begun(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which the training stopped after step 7, with checkpoints of 6 and 7."""
    root = shutil.copytree(inputs, tmp_path_factory.mktemp("begun") / "artifacts")
    with acting_at_step(8, stop), pytest.raises(Stopped):
        train(root)
    assert saved_steps(root) == [6, 7]
    return root


@pytest.mark.parametrize(("method", "adapter"), [("dpo", "lora"), ("sft", "full")])
def test_every_method_goes_on_to_the_same_bytes(
    root: Path, tmp_path: Path, method: str, adapter: str
) -> None:
    spec = FinetuneSpec(
        method=method,
        adapter=adapter,
        epochs=1,
        rows_per_step=16 if method == "dpo" else 8,
        pack_tokens=192 if method == "sft" else 512,
        learning_rate=1e-2,
        checkpoint_seconds=0,
    )
    whole = train(Path(shutil.copytree(root, tmp_path / "whole")), spec)
    with acting_at_step(3, stop), pytest.raises(Stopped):
        train(root, spec)
    assert saved_steps(root) == [1, 2]
    assert train(root, spec).digest == whole.digest


@pytest.mark.parametrize(("damaged", "told"), [("step-*7", "at step 6"), ("step-*", "")])
def test_damaged_checkpoints_do_not_change_the_bytes(
    begun: Path,
    tmp_path: Path,
    uninterrupted: Artifact,
    damaged: str,
    told: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "mlops_assets")
    root = Path(shutil.copytree(begun, tmp_path / "artifacts"))
    for state in (found := list(root.glob(f"checkpoints/*/{damaged}/state.json"))):
        os.truncate(state, state.stat().st_size - 1)
    assert train(root).digest == uninterrupted.digest
    assert caplog.text.count("CHECKPOINT SKIPPED") == len(found) > 0
    assert f"resuming {told}" in caplog.text if told else "resuming" not in caplog.text


def test_other_work_in_the_process_changes_nothing(root: Path, uninterrupted: Artifact) -> None:
    import numpy as np
    import torch

    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    torch.nn.Linear(3, 3)
    assert train(root).digest == uninterrupted.digest


@pytest.fixture
def stopped_by_signals() -> Iterator[None]:
    """Handlers like Dagster's: they raise."""
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        assert signal.signal(number, handler) is stop, "the previous handler was not put back"


@pytest.mark.usefixtures("stopped_by_signals")
@pytest.mark.parametrize(("number", "step"), [(signal.SIGTERM, 5), (signal.SIGINT, STEPS)])
def test_an_interrupted_training_saves_its_step(
    root: Path,
    uninterrupted: Artifact,
    number: signal.Signals,
    step: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def interrupt() -> None:
        for _ in range(2):  # the second, as of a whole group of processes, changes nothing
            os.kill(os.getpid(), number)

    with acting_at_step(step, interrupt), pytest.raises(Stopped):
        train(root, RARELY)
    assert saved_steps(root) == [step]
    assert f"saved at step {step} of {STEPS}" in caplog.text
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


def test_checkpoints_that_take_long_become_rare(
    root: Path, uninterrupted: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, write = [], Checkpoints.write

    def count(self: Checkpoints, step: int, produce: Any) -> None:
        written.append(step)
        write(self, step, produce)

    monkeypatch.setattr(Checkpoints, "write", count)
    monkeypatch.setattr(resume, "LARGEST_SHARE", 1e-9)
    assert train(root, SPEC.model_copy(update={"checkpoint_seconds": 1e-9})) == uninterrupted
    assert written == [1]


def test_what_the_parts_took_adds_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Meter, "read", lambda _: Usage(3600.0))
        with acting_at_step(2, stop), pytest.raises(Stopped):
            train(root)
    [newest] = root.glob("checkpoints/*/step-*")
    saved = json.loads((newest / "state.json").read_text())["log"]
    summary = train(root).summary
    assert summary["tokens"] > saved["tokens"] > 0
    assert saved["seconds"] > 0
    assert summary["train_seconds"] >= round(saved["seconds"], 1)
    assert 3600 < summary["usage"]["seconds"] < 3660


def run_training_job(home: Path, output: Path) -> ForkServerProcess:
    """`dagster job execute` of a job that trains; hashes are in another order than in here."""
    words = ("dagster", "job", "execute", "-m", TRAINING_JOB, "-j", "train")
    return fork(run_words, words, environment_for(home), output)


def test_a_job_that_is_taken_away_goes_on_when_it_is_run_again(
    tracked_home: Home,
    tmp_path: Path,
    inputs: Path,
    uninterrupted: Artifact,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SIGTERM, as spot machines send it: exit code 75, then the same command to the same bytes."""
    home = tracked_home
    monkeypatch.setenv("DAGSTER_HOME", str(home.root / "dagster"))
    shutil.copytree(inputs, home.store.root)
    for asset, ref in zip(("dataset_splits", "base_model"), make_inputs(home.store), strict=True):
        home.write_ref(asset, "earlier-run", dump_ref(ref))

    said, begun = tmp_path / "output", home.store.checkpoints
    first = run_training_job(home.root, said)
    wait_until(lambda: not first.is_alive() or any(begun.glob("*/step-*")), "a checkpoint", 120)
    first.terminate()
    first.join(120)
    output = said.read_text()
    assert first.exitcode == INTERRUPTED == 75, output
    assert "saved at step" in output
    assert "run the same command again to go on" in output
    assert "Traceback" not in output
    assert statuses(home) == (["FAILED"], ["FAILURE"])

    second = run_training_job(home.root, said)
    second.join(120)
    output = said.read_text()
    assert second.exitcode == 0, output
    assert "resuming at step" in output
    assert statuses(home) == (["FAILED", "FINISHED"], ["FAILURE", "SUCCESS"])
    adapter = home.latest("lora_adapter")
    assert isinstance(adapter, AdapterRef)
    assert adapter.artifact.digest == uninterrupted.digest


def statuses(home: Home) -> tuple[list[str], list[str]]:
    """What MLflow and Dagster say of the runs in this home."""
    client = mlflow.MlflowClient(home.mlflow_uri)
    experiments = [item.experiment_id for item in client.search_experiments()]
    with dg.DagsterInstance.get() as instance:
        runs = [run.status.value for run in instance.get_runs()]
    return sorted(run.info.status for run in client.search_runs(experiments)), sorted(runs)
