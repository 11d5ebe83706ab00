"""Versions of feedback's rows: real DVC, each one restorable, whole whenever a process dies."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from mlops_assets.artifacts import LineageError
from mlops_assets.cli import app
from mlops_assets.evaluation.feedback_suites import read_feedback_suites
from mlops_assets.evaluation.spec import EvaluationSpec
from mlops_assets.home import Home
from mlops_assets.monitoring.feedback import feedback_rows, versions
from mlops_assets.monitoring.feedback.feedback_spec import FeedbackSpec
from mlops_assets.monitoring_refs import FeedbackRowsRef
from mlops_assets.ref_json import dump_ref, load_ref
from mlops_assets_tests.said import (
    LABELS,
    answer,
    make_splits,
    request,
    vote,
    write_log,
    write_votes,
)

SPEC = FeedbackSpec(max_person_share=1.0, max_tenant_share=1.0, regression_share=0.3, suites="")
PROGRAM = """
import os, signal, sys
from pathlib import Path
from mlops_assets.monitoring.feedback import versions
at, real = sys.argv[3], versions._write
put, dvc = versions._put, versions._dvc
def die(name):
    if name == at: os.kill(os.getpid(), signal.SIGKILL)
def _put(source, target): put(source, target); die(target.name)
def _dvc(directory, *words):
    die("before add")
    code = dvc(directory, *words)
    die("after add")
    return code
versions._put, versions._dvc = _put, _dvc
versions.publish(Path(sys.argv[1]), Path(sys.argv[2]), "2026-04-01T00:00:00+00:00", "killed")
"""


@pytest.fixture
def folder(home: Home) -> Path:
    return home.root / "feedback"


def collect(home: Home, people: int, **more: Any) -> FeedbackRowsRef:
    """The asset's work, after so many people corrected one answer each."""
    asked = [request(number) for number in range(people)]
    write_votes(home, [vote(one, answer()) for one in asked])
    return feedback_rows.collect(home, write_log(home, asked), make_splits(home), SPEC)


def give_remote(folder: Path, url: Path) -> None:
    """As `dvc remote add -d ours URL` does."""
    config = folder / ".dvc" / "config"
    named = f"    remote = ours\n['remote \"ours\"']\n    url = {url}\n"
    config.write_text(config.read_text() + named)


def make(home: Home, people: int) -> Path:
    """The files of a version that is not in force."""
    asked = [request(number) for number in range(people)]
    write_votes(home, [vote(one, answer()) for one in asked])
    said = feedback_rows.read_said(home, write_log(home, asked), (), SPEC)
    return home.store.path(feedback_rows.make_rows(home, said, make_splits(home), SPEC))


def test_before_the_first_feedback_there_is_nothing(home: Home, folder: Path) -> None:
    ref = collect(home, 0)
    assert (ref.training, ref.version) == (0, "")
    assert not folder.exists()
    assert load_ref(dump_ref(ref)) == ref


@pytest.mark.slow
def test_a_life_of_versions(home: Home, folder: Path, tmp_path: Path) -> None:
    first = collect(home, 8)
    assert first.training + first.cases == 8
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.glob("*.jsonl*")} == {0o600}
    assert (folder / ".dvc/cache").stat().st_mode & 0o777 == 0o700
    before = (folder / versions.VERSIONS).read_bytes()
    assert collect(home, 8) == first  # the same said again: nothing new is written
    assert (folder / versions.VERSIONS).read_bytes() == before

    second = collect(home, 14)
    listed = versions.read_versions(folder)
    assert [one.version for one in listed] == [first.version, second.version]
    assert [one.training.rows for one in listed] == [first.training, second.training]
    assert listed[1].added == second.training - first.training
    seen = f"source+{listed[0].training.md5}"
    assert versions.new_rows_since(folder, seen) == listed[1].added
    assert versions.new_rows_since(folder, "source") == second.training
    assert versions.new_rows_since(folder, f"source+{listed[1].training.md5}") == 0

    spec = EvaluationSpec(feedback_suites=str(folder), minimum_feedback_cases=1)
    train = home.store.path(make_splits(home).artifact) / "train.jsonl"
    (suite,) = read_feedback_suites(spec, tuple(LABELS), False, train, ())
    assert len(suite.items) == second.cases > 0

    rows = (folder / "training.jsonl").read_bytes()
    give_remote(folder, tmp_path / "remote")
    assert versions._dvc(folder, "push", "-q") == 0
    restored = versions.restore(folder, first.version[:10], "2026-05-01T00:00:00+00:00")
    assert (restored.training, restored.removed) == (listed[0].training, listed[1].added)
    assert versions._md5(folder / "training.jsonl") == listed[0].training.md5

    shutil.rmtree(folder / ".dvc/cache")
    versions.restore(folder, listed[1].training.md5, "2026-05-03T00:00:00+00:00")  # pulled
    assert (folder / "training.jsonl").read_bytes() == rows
    with pytest.raises(LineageError, match=r"neither in DVC's cache nor"):
        versions.restore(folder, first.version, "2026-05-04T00:00:00+00:00")  # was never pushed
    assert (folder / "training.jsonl").read_bytes() == rows
    assert versions._read_pin(folder, "training.jsonl") == listed[1].training.md5


def test_what_the_logs_no_longer_hold_stays(home: Home, folder: Path) -> None:
    first = collect(home, 4)
    files = {name: (folder / name).read_bytes() for name in versions.TRACKED}
    log = write_log(home, [request(number) for number in range(50, 52)])
    ref = feedback_rows.collect(home, log, make_splits(home), SPEC)  # the requests are pruned
    assert (ref.version, ref.training) == (first.version, first.training)
    write_votes(home, [])  # and the votes
    ref = feedback_rows.collect(home, log, make_splits(home), SPEC)
    assert (ref.version, ref.training) == (first.version, first.training)
    assert {name: (folder / name).read_bytes() for name in versions.TRACKED} == files


def test_a_row_in_the_splits_is_no_reason_against_itself(home: Home, folder: Path) -> None:
    """After a retraining the train split holds what feedback gave: it must not drop out then."""
    first = collect(home, 6)
    rows = [json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines()]
    splits = make_splits(home, train=["what to train", *rows])
    log = write_log(home, [request(number) for number in range(6)])
    ref = feedback_rows.collect(home, log, splits, SPEC)
    assert ref.version == first.version


@pytest.mark.slow
@pytest.mark.parametrize("at", ["training.jsonl", "after add"])
def test_a_process_that_is_killed_leaves_what_the_next_completes(
    home: Home, folder: Path, at: str
) -> None:
    before = collect(home, 3)
    command = [sys.executable, "-c", PROGRAM, str(folder), str(make(home, 2)), at]
    died = subprocess.run(command, env=os.environ, capture_output=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    ref = collect(home, 4)
    listed = [one.version for one in versions.read_versions(folder)]
    assert listed == [before.version, ref.version]
    assert ref.training + ref.cases == 4
    assert all(versions._read_pin(folder, name) == versions._md5(folder / name)
               for name in versions.TRACKED)  # fmt: skip


@pytest.mark.slow
def test_a_directory_in_a_dvc_project_belongs_to_it(home: Home, tmp_path: Path) -> None:
    project = tmp_path / "checkout"
    (project / ".dvc").mkdir(parents=True)
    (project / ".dvc/config").write_text(versions.CONFIG)
    inside = project / "data" / "feedback"
    version = versions.publish(inside, make(home, 2), "2026-04-01T00:00:00+00:00", "test")
    md5 = version.training.md5
    assert not (inside / ".dvc").exists()
    assert (project / ".dvc/cache/files/md5" / md5[:2] / md5[2:]).is_file()


def test_the_commands(home: Home) -> None:
    def run(*words: str) -> Result:
        return CliRunner().invoke(app, ["feedback", *words])

    empty = run()
    assert (empty.exit_code, "Run the job `monitor`" in empty.output) == (1, True)
    ref = collect(home, 5)
    home.write_ref("feedback_rows", "run", dump_ref(ref))
    assert "correction" in (shown := run().output)
    assert ref.version[:12] in shown
    assert json.loads(run("--json").output)["kinds"]["correction"]["received"] == 5
    listing = run("versions").output
    assert ref.version[:12] in listing
    assert "feedback_rows" in listing, "the last column, whole"
    assert "whom its setting" in run("restore", "--help").output, "no line ends before the window"
    (listed,) = json.loads(run("versions", "--json").output)
    assert listed["version"] == ref.version
    wrong = run("restore", "nothing")
    assert (wrong.exit_code, "no version of" in wrong.output) == (1, True)
