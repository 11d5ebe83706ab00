"""`mlops reproduce`: what it needs of a commit, data and environment, and when it cannot be."""

import hashlib
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mlops_assets.artifacts import LineageError, Recipe
from mlops_assets.home import Home
from mlops_assets.profiles import PROJECT
from mlops_assets.provenance import find_provenance
from mlops_assets.reproduction import (
    Version,
    bring_data,
    bring_feedback,
    check_code,
    read_version,
    reproduce,
    share_sources,
)
from mlops_assets.worktree import Worktree, clean_worktree, python_for
from mlops_assets_tests.checkouts import git
from mlops_assets_tests.submissions import NAME, make_submission, register

ROWS_HASH = hashlib.md5(b"rows\n", usedforsecurity=False).hexdigest()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small project under version control, with data that git does not carry."""
    root = tmp_path / "project"
    for name, text in {
        "mlops_assets/__init__.py": "",
        "mlops_assets/a.py": "x = 1",
        "requirements/a.lock": "a",
        ".dvc/config": "",
        ".gitignore": "/rows.jsonl\n",
        "rows.jsonl": "rows\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    return root


def version_of(project: Path, path: str = "rows.jsonl", **tags: str) -> Version:
    code = find_provenance(project / "mlops_assets")
    known = {
        "git_commit": code.git_commit,
        "git_dirty": "true" if code.git_dirty else "false",
        "code_version": code.code_version,
        "lock_file_hash": code.lock_file_hash,
        "dataset_hash": ROWS_HASH,
    }
    settings = {"raw_dataset": {"path": path}, "base_model": {"source": "tiny", "path": ""}}
    return Version(NAME, 1, known | tags, {"settings": settings})


def try_to_bring(project: Path, version: Version) -> str:
    """Checks the code and brings the data; returns what then lies in the worktree."""
    with clean_worktree(project, version.tags["git_commit"]) as worktree:
        check_code(worktree, version)
        shutil.copytree(PROJECT / "mlops_assets", worktree.tree / "ours" / "mlops_assets")
        shutil.rmtree(worktree.tree / "mlops_assets")
        (worktree.tree / "ours" / "mlops_assets").rename(worktree.tree / "mlops_assets")
        bring_data(worktree, Path(shutil.which("python") or "python"), version, project)
        brought = worktree.tree / "rows.jsonl"
        return brought.read_text() if brought.exists() else ""


def test_data_that_is_here_is_copied_if_it_is_the_very_same(project: Path) -> None:
    assert try_to_bring(project, version_of(project)) == "rows\n"
    learnt = version_of(project, dataset_hash=f"{ROWS_HASH}+{'f' * 32}")
    learnt.origin["settings"]["raw_dataset"]["feedback"] = "${MLOPS_HOME}/feedback"
    with pytest.raises(LineageError, match=r"feedback rows f{32} are neither"):
        try_to_bring(project, learnt)
    # Left to the lineage, which pulls or rebuilds what the commit pins.
    assert try_to_bring(project, version_of(project, dataset_hash="0" * 32)) == ""
    elsewhere = version_of(project, str(project / "rows.jsonl"))
    assert try_to_bring(project, elsewhere) == ""  # read where it lies
    with pytest.raises(LineageError, match=r"is not 0{32}.*Put that data there again"):
        try_to_bring(project, replace(elsewhere, tags=elsewhere.tags | {"dataset_hash": "0" * 32}))


def test_feedback_is_found_by_its_hash_or_said_to_be_missing(tmp_path: Path) -> None:
    worktree, folder = Worktree(tmp_path / "worktree"), tmp_path / "feedback"
    rows = folder / "training.jsonl"
    folder.mkdir()
    rows.write_text("old\n")
    old = hashlib.md5(b"old\n", usedforsecurity=False).hexdigest()
    brought = Path(bring_feedback(worktree, folder, old))
    assert (brought / "training.jsonl").read_text() == "old\n"
    assert bring_feedback(worktree, folder, "") == ""  # made before there was any

    cached = folder / ".dvc/cache/files/md5" / old[:2] / old[2:]
    cached.parent.mkdir(parents=True)
    shutil.move(rows, cached)
    rows.write_text("new\n")
    again = Worktree(tmp_path / "again")
    assert (Path(bring_feedback(again, folder, old)) / "training.jsonl").read_text() == "old\n"
    cached.write_text("changed\n")
    with pytest.raises(LineageError, match=f"{old} are neither in .*feedback restore {old}"):
        bring_feedback(again, folder, old)


def change_sources(project: Path) -> Version:
    (project / "mlops_assets/a.py").write_text("x = 2")
    return version_of(project)


def change_locks(project: Path) -> Version:
    (project / "requirements/a.lock").write_text("b")
    return version_of(project)


def lose_commit(project: Path) -> Version:
    return version_of(project, git_commit="0" * 40)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (change_sources, r"differ from its commit.*uncommitted changes.*Commit the changes"),
        (change_locks, r"lock files that its commit does not hold"),
        (lose_commit, r"is not in the repository.*git fetch"),
    ],
)
def test_code_that_no_commit_holds_is_refused(
    project: Path, spoil: Callable[[Path], Version], said: str
) -> None:
    version = spoil(project)
    with (
        pytest.raises(LineageError, match=said),
        clean_worktree(project, version.tags["git_commit"]) as worktree,
    ):
        check_code(worktree, version)
    assert len(git(project, "worktree", "list").splitlines()) == 1


def test_a_dirty_tree_whose_sources_are_committed_is_no_obstacle(project: Path) -> None:
    (project / "notes.txt").write_text("not committed")
    version = version_of(project)
    assert version.tags["git_dirty"] == "true"
    with clean_worktree(project, version.tags["git_commit"]) as worktree:
        check_code(worktree, version)


BUILDS = ".venv/ready:\n\tmkdir -p .venv/bin && touch .venv/bin/python $@\n"


@pytest.mark.parametrize(("makefile", "fails"), [(BUILDS, False), ("all:\n\tfalse\n", True)])
def test_other_lock_files_get_an_environment_of_their_own(
    project: Path, makefile: str, fails: bool
) -> None:
    (project / "Makefile").write_text(makefile)
    git(project, "add", "-A")
    git(project, "commit", "-qm", "builds its environment")
    with clean_worktree(project, "HEAD") as worktree:
        assert python_for(worktree, project) == Path(sys.executable)
        (project / "requirements/a.lock").write_text("other versions")
        if fails:
            with pytest.raises(LineageError, match="cannot be built"):
                python_for(worktree, project)
        else:
            python = python_for(worktree, project)
            assert python == worktree.tree / ".venv/bin/python"
            assert python.is_file()


def test_what_was_downloaded_before_is_found(project: Path, home: Home) -> None:
    recipe = Recipe("source", {"address": "hf://"}, {}, "1")
    fetched = home.store.build(recipe, lambda place: {"files": (place / "a").write_text("x")})
    with clean_worktree(project, "HEAD") as worktree:
        share_sources(home, worktree)
        assert (worktree.home.store.path(fetched) / "a").read_text() == "x"
    assert home.store.path(fetched).is_dir()  # not removed with the worktree


def test_no_checkout_no_reproduction(tmp_path: Path) -> None:
    with pytest.raises(LineageError, match="not a git checkout"), clean_worktree(tmp_path, "HEAD"):
        pass


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_behind_when_it_is_ended(project: Path, ending: signal.Signals) -> None:
    places = []
    before = signal.getsignal(signal.SIGTERM)

    def work() -> None:
        with clean_worktree(project, "HEAD") as made:
            places.append(made)
            assert (made.tree / "mlops_assets/a.py").read_text() == "x = 1"
            os.kill(os.getpid(), ending)

    with pytest.raises((SystemExit, KeyboardInterrupt)):
        work()
    assert not places[0].root.exists()
    assert len(git(project, "worktree", "list").splitlines()) == 1
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_registry_has_to_know_the_version(tracked_home: Home) -> None:
    code = find_provenance(PROJECT / "mlops_assets")
    outside = replace(code, git_commit="sources-sha256:abc")
    number = register(tracked_home, make_submission(tracked_home, "a"), outside)
    with pytest.raises(LineageError, match="not registered from a git checkout"):
        reproduce(tracked_home, number, NAME)
    with pytest.raises(LineageError, match=r"Version 7 of .* cannot be read"):
        read_version(tracked_home, 7, NAME)
    with pytest.raises(LineageError, match="--model"):
        reproduce(tracked_home, 1, None)
    (file,) = tracked_home.mlflow_artifacts.rglob("origin.json")
    file.write_text("{}")
    with pytest.raises(LineageError, match="not what was registered"):
        read_version(tracked_home, number, NAME)
