"""`mlops sweep`: real trainings on a tiny base, pruned, killed, resumed, and the winner."""

import json
import os
import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from mlops_assets.artifacts import LineageError
from mlops_assets.cli import app
from mlops_assets.home import Home
from mlops_assets.profiles import asset_config, check_settings, load_profile
from mlops_assets.ref_json import dump_ref
from mlops_assets.refs import Row
from mlops_assets.training import finetune
from mlops_assets.training.base_model import provide
from mlops_assets.training.finetune import KIND, adapter_recipe
from mlops_assets.training.spec import BaseModelSpec, FinetuneSpec
from mlops_assets.training.sweep import run_sweep
from mlops_assets.training.sweep_result import SweepResult
from mlops_assets_tests.commands import environment_for
from mlops_assets_tests.small_training import Stopped, acting_at_step, put_splits, stop
from mlops_assets_tests.waiting import wait_until
from mlops_assets_tests.warm_process import fork, run_words

LABELS = {"queue": ("billing", "shipping", "login")}
WORDS = {"billing": "invoice charged twice", "shipping": "parcel late", "login": "password"}
SETTINGS = {"rank": 4, "alpha": 4, "epochs": 2, "pack_tokens": 128, "learning_rate": 1e-2}
SWEEP: dict[str, Any] = {
    "trials": 5,
    "startup_trials": 2,
    "space": {"learning_rate": {"low": 1e-5, "high": 0.05, "log": True}},
}


def _row(number: int) -> Row:
    queue = list(WORDS)[number % 3]
    answer = json.dumps({"queue": queue}, separators=(",", ":"))
    text = f"Hello, {WORDS[queue]} number {number % 7}, {number} of so many; do answer, will you?"
    messages = ({"role": "user", "content": text}, {"role": "assistant", "content": answer})
    return Row(f"r{number}", "", f"g{number}", messages, {})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Path:
    """A home in which splits and base model were made."""
    home = Home(tmp_path_factory.mktemp("made") / "home")
    home.prepare()
    shutil.copyfile(migrated_database, home.mlflow_database)
    numbers = {"train": range(60), "validation": range(100, 115), "test": range(200, 210)}
    rows = {name: [_row(number) for number in some] for name, some in numbers.items()}
    splits = put_splits(home.store, rows, LABELS)
    tiny = BaseModelSpec(vocabulary=300, hidden_size=16, mlp_size=32, layers=1, heads=1)
    base = provide(home.store, splits, tiny)
    home.write_ref("dataset_splits", "run", dump_ref(splits))
    home.write_ref("base_model", "run", dump_ref(base))
    return home.root


@pytest.fixture
def ready(made: Path, tmp_path: Path) -> Home:
    """A copy of it, for one test's sweep."""
    return Home(shutil.copytree(made, tmp_path / "home"))


@pytest.fixture(scope="module")
def ended(made: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, SweepResult]:
    """A sweep that nobody interrupted."""
    folder = tmp_path_factory.mktemp("ended")
    home = Home(shutil.copytree(made, folder / "home"))
    opened: set[str] = set()
    read_rows = finetune.read_rows
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune, "read_rows", lambda path: opened.add(path.name) or read_rows(path))
        result = run_sweep(home, write_sweep(folder), None, lambda _: None)
    assert opened == {"train.jsonl", "validation.jsonl"}  # never the test split
    return home, result


def write_sweep(folder: Path, settings: Any = SETTINGS, **changes: Any) -> Path:
    """A sweep over the profile beside it; ``changes`` are of the sweep."""
    profile, file = folder / "profile.yaml", folder / "tiny.yaml"
    ops = {KIND: {"config": settings}, "gate_verdict": {"config": {"minimum_exact_match": 0.5}}}
    profile.write_text(yaml.safe_dump({"ops": ops}))
    file.write_text(yaml.safe_dump(SWEEP | {"profile": str(profile)} | changes))
    return file


def adapters(home: Home) -> set[str]:
    return {path.name for path in (home.store.root / KIND).iterdir()}


def runs(home: Home, parent: str) -> Any:
    """The sweep's run, and those of its trials by state and status."""
    import mlflow

    client = mlflow.MlflowClient(home.mlflow_uri)
    everything = client.search_runs([e.experiment_id for e in client.search_experiments()])
    nested = [run for run in everything if run.data.tags.get("mlflow.parentRunId") == parent]
    states = Counter((run.data.tags["mlops.trial"], run.info.status) for run in nested)
    return client.get_run(parent), states, nested


def test_a_sweep_wants_the_lineage_first(home: Home, tmp_path: Path) -> None:
    with pytest.raises(LineageError, match=r"dataset_splits was never.*Run the job `lineage`"):
        run_sweep(home, write_sweep(tmp_path), None, lambda _: None)


# --- trials -----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_hopeless_trial_is_pruned_and_leaves_nothing(ended: tuple[Home, SweepResult]) -> None:
    home, result = ended
    states = Counter(trial.state for trial in result.trials)
    assert states.keys() == {"complete", "pruned"}
    assert states.total() == 5
    pruned = [trial for trial in result.trials if trial.state == "pruned"]
    assert max(trial.params["learning_rate"] for trial in pruned) < 1e-3
    complete = [trial for trial in result.trials if trial.state == "complete"]
    assert len(adapters(home)) == len(complete)
    assert result.best == min(complete, key=lambda trial: trial.value)


@pytest.mark.slow
def test_mlflow_tells_the_truth(ended: tuple[Home, SweepResult]) -> None:
    home, result = ended
    parent, states, nested = runs(home, result.mlflow_run)
    counted = Counter(trial.state for trial in result.trials)
    assert parent.info.status == "FINISHED"
    assert states[("complete", "FINISHED")] == counted["complete"]
    assert states[("pruned", "KILLED")] == counted["pruned"]
    assert sum(states.values()) == 5
    assert {run.info.experiment_id for run in nested} == {parent.info.experiment_id}
    assert all(str(home.root) in run.info.artifact_uri for run in nested)
    best = next(run for run in nested if run.info.run_name == f"trial {result.best.number}")
    assert best.data.metrics["validation_loss"] == pytest.approx(result.best.value)
    assert float(best.data.params["learning_rate"]) == result.best.params["learning_rate"]
    assert parent.data.metrics["best_validation_loss"] == pytest.approx(result.best.value)


@pytest.mark.slow
def test_the_winner_is_a_profile_whose_adapter_lies_in_the_store(
    ended: tuple[Home, SweepResult],
) -> None:
    from mlops_assets.definitions import lineage_assets
    from mlops_assets.resources import settings_of

    home, result = ended
    profile = load_profile(result.profile)
    check_settings(profile, settings_of(lineage_assets()))
    assert asset_config("gate_verdict", profile) == {"minimum_exact_match": 0.5}
    winner = FinetuneSpec(**asset_config(KIND, profile))
    assert winner == FinetuneSpec(**SETTINGS | result.best.params)
    splits, base = home.latest("dataset_splits"), home.latest("base_model")
    found = home.store.find(KIND, adapter_recipe(splits, base, winner).key)
    assert found.summary["validation_loss"] == result.best.value
    assert result.plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_lineage_takes_the_winner_from_the_store(
    ended: tuple[Home, SweepResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    import dagster as dg

    from mlops_assets.resources import RESOURCES
    from mlops_assets.training.defs import lora_adapter

    home, result = ended
    monkeypatch.setenv("MLOPS_HOME", str(home.root))
    config = {"ops": {KIND: {"config": asset_config(KIND, load_profile(result.profile))}}}
    upstream = [dg.AssetSpec(name) for name in ("dataset_splits", "base_model")]
    done = dg.materialize([*upstream, lora_adapter], resources=RESOURCES, run_config=config)
    metadata = done.asset_materializations_for_node(KIND)[0].metadata
    assert metadata["from_store"].value is True
    assert metadata["trained_by_run"].value == f"sweep {result.name}"


@pytest.mark.slow
def test_an_ended_sweep_trains_nothing_and_guards_its_winner(
    ended: tuple[Home, SweepResult], tmp_path: Path
) -> None:
    home, result = ended
    before = adapters(home)
    again = run_sweep(home, write_sweep(tmp_path), None, lambda _: None)
    assert (again.trials, again.profile) == (result.trials, result.profile)
    assert adapters(home) == before
    text = result.profile.read_text()
    result.profile.write_text(text + "# mine\n")
    with pytest.raises(LineageError, match="was changed since the sweep wrote it"):
        run_sweep(home, write_sweep(tmp_path), None, lambda _: None)
    result.profile.write_text(text)


@pytest.mark.slow
def test_a_failed_trial_is_named_and_a_done_one_is_found(ready: Home, tmp_path: Path) -> None:
    """Rows do not fit into 32 tokens; of two packings, four trials try one twice."""
    space = {"pack_tokens": {"choices": [32, 128]}}
    file = write_sweep(tmp_path, space=space, trials=4, startup_trials=4, pruner="none")
    result = run_sweep(ready, file, None, lambda _: None)
    failed = [trial for trial in result.trials if trial.state == "failed"]
    done = [trial for trial in result.trials if trial.state == "complete"]
    assert {trial.params["pack_tokens"] for trial in failed} == {32}
    assert all("longer than 32 tokens" in trial.reason for trial in failed)
    assert [trial.reused for trial in done] == [False] + [True] * (len(done) - 1)
    assert len(done) > 1
    _, states, _ = runs(ready, result.mlflow_run)
    assert states[("failed", "FAILED")] == len(failed)


@pytest.mark.slow
def test_a_sweep_that_only_fails_ends(ready: Home, tmp_path: Path) -> None:
    space = {"seed": {"choices": [1, 2]}}
    file = write_sweep(tmp_path, SETTINGS | {"pack_tokens": 32}, space=space)
    with pytest.raises(LineageError, match=r"None of the first 2 trials succeeded: All \d+ rows"):
        run_sweep(ready, file, None, lambda _: None)


# --- interruptions ----------------------------------------------------------------------


def first_trial(output: Path) -> str:
    """What the sweep said when its first trial ended."""
    lines = output.read_text().splitlines() if output.exists() else []
    return next((line for line in lines if line.startswith("1 of 5")), "")


@pytest.mark.slow
def test_a_killed_sweep_goes_on_as_if_nothing_had_been(
    ended: tuple[Home, SweepResult], ready: Home, tmp_path: Path
) -> None:
    """The command is killed while it trains; the same sweep then ends with the same trials."""
    file = write_sweep(tmp_path)
    output = tmp_path / "output"
    process = fork(run_words, ("mlops", "sweep", str(file)), environment_for(ready.root), output)
    said = wait_until(lambda: first_trial(output), "the first trial's end", 120)
    process.kill()
    process.join()
    assert "best" in said
    result = run_sweep(ready, file, None, lambda _: None)
    assert [(t.state, t.params, t.value) for t in result.trials] == [
        (t.state, t.params, t.value) for t in ended[1].trials
    ]
    parent, states, _ = runs(ready, result.mlflow_run)
    assert parent.info.status == "FINISHED"
    assert not [state for state in states if "RUNNING" in state]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_what_was_running_is_run_again_with_the_same_settings(
    ready: Home, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """In the middle of a trial: it is interrupted, not failed, and comes next."""
    file = write_sweep(tmp_path, trials=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLOPS_HOME", str(ready.root))
        patch.setattr(finetune, "_train", lambda *_: os.kill(os.getpid(), number))
        stopped = CliRunner().invoke(app, ["sweep", str(file)])
    assert stopped.exit_code == code
    assert "The same command goes on where it was." in stopped.stderr
    result = run_sweep(ready, file, None, lambda _: None)
    [trial] = result.trials
    assert trial.number == 1
    _, states, nested = runs(ready, result.mlflow_run)
    assert states == {("interrupted", "KILLED"): 1, ("complete", "FINISHED"): 1}
    assert len({run.data.params["learning_rate"] for run in nested}) == 1


def losses(home: Home, name: str) -> list[dict[int, float]]:
    """What each trial that came to an end reported to the pruner."""
    import optuna

    study = optuna.load_study(study_name=name, storage=f"sqlite:///{home.root / 'sweeps.db'}")
    return [trial.intermediate_values for trial in study.trials if trial.state.name == "COMPLETE"]


@pytest.mark.slow
def test_the_pruner_knows_what_was_before_an_interruption(
    ended: tuple[Home, SweepResult], ready: Home, tmp_path: Path
) -> None:
    """Of a training that goes on from its checkpoint, and of one that is found in the store."""
    file = write_sweep(tmp_path, SETTINGS | {"checkpoint_seconds": 0}, trials=1)
    with acting_at_step(8, stop), pytest.raises(Stopped):
        run_sweep(ready, file, None, lambda _: None)
    result = run_sweep(ready, file, None, lambda _: None)
    known = losses(ended[0], ended[1].name)[0]
    assert len(known) == 5
    assert losses(ready, result.name) == [known]
    (ready.root / "sweeps.db").unlink()
    result = run_sweep(ready, file, None, lambda _: None)
    assert result.trials[0].reused
    assert losses(ready, result.name) == [pytest.approx(known, rel=1e-5)]
