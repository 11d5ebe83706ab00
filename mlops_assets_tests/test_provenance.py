"""Which commit, author, lock files and sources a version was made with."""

import shutil
import subprocess
from pathlib import Path

import pytest

from mlops_assets import provenance


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A package with a lock file, outside version control."""
    root = tmp_path / "project"
    for name, text in {
        "code/__init__.py": "",
        "code/a.py": "x = 1",
        "requirements/a.lock": "a",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def git(project: Path, *command: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    done = subprocess.run(
        ["git", *identity, *command], cwd=project, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_provenance_in_a_checkout(project: Path) -> None:
    git(project, "init", "-q")
    assert provenance.find_provenance(project / "code").git_commit.startswith("sources-sha256:")
    git(project, "add", ".")
    git(project, "commit", "-q", "-m", "first")
    clean = provenance.find_provenance(project / "code")
    assert clean.git_commit == git(project, "rev-parse", "HEAD")
    assert not clean.git_dirty
    (project / "code/a.py").write_text("x = 2")
    dirty = provenance.find_provenance(project / "code")
    assert dirty.git_dirty
    assert dirty.code_version != clean.code_version
    assert dirty.lock_file_hash == clean.lock_file_hash
    (project / "requirements/a.lock").write_text("b")
    assert provenance.find_provenance(project / "code").lock_file_hash != clean.lock_file_hash


def test_provenance_in_an_image(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_GIT_COMMIT", "abc-dirty")
    monkeypatch.setenv("MLOPS_LOCK_HASH", "locked")
    found = provenance.find_provenance(project / "code")
    assert (found.git_commit, found.git_dirty, found.lock_file_hash) == ("abc", True, "locked")


def test_provenance_without_any_record_is_a_hash_and_says_so(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(project / "requirements")
    found = provenance.find_provenance(project / "code")
    assert found.git_commit == f"sources-sha256:{found.code_version}"
    assert found.git_dirty
    assert found.lock_file_hash.startswith("environment-sha256:")
    assert "not under version control" in caplog.text
    assert "no lock file" in caplog.text


def test_the_author_is_the_commits_unless_somebody_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLOPS_AUTHOR", raising=False)
    assert provenance.find_provenance(project / "code").author == "unknown"
    assert provenance.find_author(project / "code") == ""
    git(project, "init", "-q")
    git(project, "add", ".")
    git(project, "commit", "-q", "-m", "first")
    assert provenance.find_provenance(project / "code").author == "t@example.org"
    git(project, "config", "user.email", "ada@example.org")
    assert provenance.find_author(project / "code") == "t@example.org"
    (project / "code/new.py").write_text("")  # not the last commit's author's
    assert provenance.find_author(project / "code") == "ada@example.org"
    monkeypatch.setenv("MLOPS_AUTHOR", " grace@example.org ")
    assert provenance.find_provenance(project / "code").author == "grace@example.org"
    assert provenance.find_author(project / "code") == "grace@example.org"
