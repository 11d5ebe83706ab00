"""The files that `mlops sweep` takes: what is refused before the first trial."""

from pathlib import Path
from typing import Any

import pytest

from mlops_assets.artifacts import LineageError
from mlops_assets.profiles import PROJECT, load_profile
from mlops_assets.training.sweep_spec import load_sweep
from mlops_assets_tests.test_sweeps import write_sweep


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"space": {"learning_rate": {"low": 1e-4, "high": 1.0}}}, "learning_rate.*less than"),
        ({"space": {"learning_rat": {"low": 1e-4, "high": 0.1}}}, "learning_rat: .*no such"),
        ({"space": {"prefix_tokens": {"low": 1, "high": 8}}}, "does not read prefix_tokens"),
        ({"space": {"rank": {"low": 1.5, "high": 8}}}, "rank: .*whole"),
        ({"space": {"rank": {"low": 1, "high": 8, "step": 2}}}, "rank: steps of 2 from 1"),
        ({"space": {"rank": {"low": 8, "high": 1}}}, "rank: low .8. must be below high"),
        ({"space": {"rank": {"low": 1, "high": 8, "log": True, "step": 1}}}, "rank: with log"),
        ({"space": {"rank": {"choices": [4]}}}, "rank.choices"),
        ({"space": {"rank": {"choices": [4, 4]}}}, "rank: the choices must differ"),
        ({"space": {"rank": {"choices": [4, "many"]}}}, "rank: .*integer.*rank: many"),
        ({"space": {"adapter": {"low": 1, "high": 2}}}, "adapter: is no number"),
        ({"space": {"rank": {"lowest": 1, "high": 8}}}, "rank.lowest"),
        ({"space": {}}, "space"),
        ({"objective": "exact_match"}, "objective is none of train_loss"),
        ({"objective": "train_loss"}, "only validation_loss can be pruned by"),
        ({"trials": 0}, "trials"),
        ({"goal": 1}, "goal"),
        ({"profile": "nowhere"}, "sweep .*tiny.yaml names 'nowhere'"),
    ],
)
def test_sweeps_that_are_refused(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(LineageError, match=named):
        load_sweep(write_sweep(tmp_path, **changes))


def test_the_shipped_sweep_is_valid() -> None:
    spec, profile = load_sweep(PROJECT / "profiles" / "sweeps" / "tiny.yaml")
    assert profile == load_profile(PROJECT / "profiles" / "tiny.yaml")
    assert spec.objective == "validation_loss"
