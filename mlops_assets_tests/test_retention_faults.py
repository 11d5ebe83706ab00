"""`mlops prune` beside a run at work, and after a crash."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home, run_lock
from mlops_assets.promotion import pruning
from mlops_assets.promotion.pruning import prune
from mlops_assets.promotion.retention import trash
from mlops_assets.promotion.spec import RetentionSpec
from mlops_assets_tests.retention_rows import NOTHING_SPARED, lies, parts
from mlops_assets_tests.submissions import build, make_submission
from mlops_assets_tests.waiting import wait_until


def test_nothing_is_deleted_while_a_run_is_at_work(home: Home) -> None:
    submission = make_submission(home)
    child = os.fork()
    if child == 0:  # another process, which the kernel's lock tells from ours
        run_lock.hold(home, "run-at-work")
        (home.root / "held").touch()
        time.sleep(30)
        os._exit(0)
    try:
        wait_until((home.root / "held").exists, "the run")
        with pytest.raises(LineageError, match="is at work"):
            prune(home, NOTHING_SPARED, delete=True)
        assert prune(home, NOTHING_SPARED, delete=False).plan.delete
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert all(lies(home, artifact) for artifact in parts(submission).values())
    prune(home, NOTHING_SPARED, delete=True)  # the kernel freed the lock


def test_what_dead_runs_left_is_deleted(home: Home) -> None:
    finished = build(home.store, "lora_adapter", "a", {"x": "x"})
    unsealed = home.store.root / "eval_report" / ".0123456789ab-cdef"
    over, given_up, going_on = (
        home.store.checkpoints / key for key in (finished.key, "b" * 64, "c" * 64)
    )
    for folder in (unsealed, over, given_up, going_on):
        folder.mkdir(parents=True)
        (folder / "state").write_text("state")
    long_ago = time.time() - 40 * 86_400
    for path in (given_up / "state", given_up):
        os.utime(path, (long_ago, long_ago))
    prune(home, RetentionSpec(), delete=True)
    assert not any(folder.exists() for folder in (unsealed, over, given_up))
    assert going_on.exists()
    assert lies(home, finished)


def test_a_crash_in_the_middle_leaves_nothing_that_looks_whole(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [build(home.store, "predictions", str(seed), {"a": "a", "b": "b"}) for seed in range(3)]
    whole: Callable[..., None] = shutil.rmtree

    def die_halfway(path: Path) -> None:
        (path / "manifest.json").unlink(missing_ok=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(pruning.shutil, "rmtree", die_halfway)
    with pytest.raises(KeyboardInterrupt):
        prune(home, NOTHING_SPARED, delete=True)
    left = [artifact for artifact in made if lies(home, artifact)]
    assert len(left) == 2
    for artifact in left:
        home.store.path(artifact)
    assert len(list(trash(home).iterdir())) == 1
    monkeypatch.setattr(pruning.shutil, "rmtree", whole)
    assert "trash" in {item.what for item in prune(home, NOTHING_SPARED, delete=True).plan.delete}
    assert not list(trash(home).iterdir())
