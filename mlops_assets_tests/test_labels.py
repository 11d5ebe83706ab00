"""Requests drawn at random for people to label, and the labels that come back."""

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mlops_assets.artifacts import LineageError
from mlops_assets.cli import app
from mlops_assets.home import Home
from mlops_assets.monitoring.quality import labelling
from mlops_assets.monitoring.quality.label_store import (
    draw_ids,
    labels_directory,
    read_draws,
    read_labels,
)
from mlops_assets.ref_json import dump_ref
from mlops_assets.refs import PredictionRecord
from mlops_assets_tests.production_records import make_log, make_splits, record

LABELS = {"queue": ("billing", "shipping"), "priority": ("low", "high")}
ANSWER = '{"queue":"billing","priority":"low"}'
RIGHT = {"queue": "shipping", "priority": "high"}


@pytest.fixture
def logged(home: Home, tmp_path: Path) -> Home:
    """A home whose log has forty requests, of two days."""
    keep(home, tmp_path, [asked(number) for number in range(40)])
    return home


def asked(number: int) -> PredictionRecord:
    at = f"2026-07-0{1 + number // 20}T10:{number:02d}:00Z"
    return record(number, timestamp=at, output=ANSWER)


def keep(
    home: Home,
    tmp_path: Path,
    records: list[PredictionRecord],
    labels: dict[str, tuple[str, ...]] = LABELS,
) -> None:
    log, splits = make_log(home.store, tmp_path, records), make_splits(home.store, (), labels)
    home.write_ref("prediction_log", "run", dump_ref(log))
    home.write_ref("dataset_splits", "run", dump_ref(splits))


def drawn(home: Home, out: Path, count: int = 10, seed: int | None = 3) -> list[dict[str, Any]]:
    labelling.draw_requests(home, count, seed, None, out)
    return lines(out)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def fill(path: Path, *labels: Any, **changes: Any) -> Path:
    """Fill in the first lines of a drawn file."""
    found = lines(path)
    for line, label in zip(found, labels, strict=False):
        line["label"] = label
    found[0] |= changes
    path.write_text("".join(f"{json.dumps(line)}\n" for line in found))
    return path


# --- the draw -----------------------------------------------------------------------------------


def test_a_draw_shows_what_was_asked_and_never_the_answer(logged: Home, tmp_path: Path) -> None:
    found = drawn(logged, tmp_path / "out.jsonl")
    assert len({line["request"] for line in found}) == 10
    assert found[0]["messages"] == [{"role": "user", "content": "where is my parcel"}]
    assert found[0]["label"] == {"queue": "", "priority": ""}
    assert "billing" not in (tmp_path / "out.jsonl").read_text()
    kept = read_draws(labels_directory(logged))[0]
    assert (kept.seed, kept.population) == (3, 40)
    assert [one.request for one in kept.requests] == [line["request"] for line in found]
    assert (kept.since[:10], kept.until[:10]) == ("2026-07-01", "2026-07-02")


def test_what_users_wrote_is_private(logged: Home, tmp_path: Path) -> None:
    drawn(logged, tmp_path / "out.jsonl")
    labelling.import_labels(logged, fill(tmp_path / "out.jsonl", RIGHT), "ada", write=True)
    directory = labels_directory(logged)
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert len(files) == 2
    private = {*files, tmp_path / "out.jsonl"}
    folders = {directory, directory / "draws"}
    assert {path.stat().st_mode & 0o777 for path in private} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o700}


def test_the_same_seed_draws_the_same_requests_whatever_their_order() -> None:
    ids = [f"p{number}" for number in range(500)]
    assert draw_ids(ids, 20, 4) == draw_ids(reversed(ids), 20, 4)
    assert draw_ids(ids, 20, 4) != draw_ids(ids, 20, 5)


def test_every_request_is_drawn_as_often_as_every_other() -> None:
    from scipy.stats import chisquare

    ids = [f"p{number}" for number in range(50)]
    often = Counter(id for seed in range(2_000) for id in draw_ids(ids, 10, seed))
    # Draws without replacement scatter less than the test expects: by the share not drawn.
    statistic = chisquare([often[id] for id in ids]).statistic / (1 - 10 / 50)
    assert 20 < statistic < 90  # 49 are expected; either side has a chance below 0.1%


def test_a_draw_without_a_seed_keeps_the_one_it_took(logged: Home, tmp_path: Path) -> None:
    taken = {
        labelling.draw_requests(logged, 5, None, None, tmp_path / f"{i}.jsonl").seed
        for i in range(3)
    }
    assert len(taken) == 3
    assert {draw.seed for draw in read_draws(labels_directory(logged))} == taken


def test_a_draw_may_begin_at_a_day(logged: Home, tmp_path: Path) -> None:
    since = datetime(2026, 7, 2, tzinfo=UTC)
    draw = labelling.draw_requests(logged, 20, 1, since, tmp_path / "out.jsonl")
    assert draw.population == 20
    with pytest.raises(LineageError, match="21 requests cannot be drawn out of 20"):
        labelling.draw_requests(logged, 21, 1, since, tmp_path / "more.jsonl")
    assert not (tmp_path / "more.jsonl").exists()
    assert len(read_draws(labels_directory(logged))) == 1


def test_a_file_is_never_overwritten(logged: Home, tmp_path: Path) -> None:
    drawn(logged, tmp_path / "out.jsonl")
    with pytest.raises(LineageError, match="exists already"):
        drawn(logged, tmp_path / "out.jsonl")
    assert len(read_draws(labels_directory(logged))) == 1


def test_a_draw_that_was_changed_is_refused(logged: Home, tmp_path: Path) -> None:
    drawn(logged, tmp_path / "out.jsonl")
    (path,) = (labels_directory(logged) / "draws").iterdir()
    path.write_text(path.read_text().replace('"seed":3', '"seed":4'))
    with pytest.raises(LineageError, match="is not the draw that was written there"):
        read_draws(labels_directory(logged))


# --- the import ---------------------------------------------------------------------------------


def test_labels_are_kept_with_who_when_and_for_which_release(logged: Home, tmp_path: Path) -> None:
    found = drawn(logged, tmp_path / "out.jsonl")
    unsure = RIGHT | {"queue": None}
    file = fill(tmp_path / "out.jsonl", RIGHT, json.dumps(RIGHT), unsure)
    shown = labelling.import_labels(logged, file, "ada", write=False)
    assert (len(shown.labels), shown.empty, shown.file) == (3, 7, None)
    assert not list(labels_directory(logged).glob("*.jsonl"))
    done = labelling.import_labels(logged, file, "ada", write=True)
    assert done.as_json()["stored"] == str(done.file)
    kept = read_labels(labels_directory(logged))
    assert [label.request for label in kept] == [line["request"] for line in found[:3]]
    assert {(label.person, label.release, label.draw) for label in kept} == {
        ("ada", "r", found[0]["draw"])
    }
    assert [json.loads(label.label) for label in kept] == [RIGHT, RIGHT, unsure]
    again = labelling.import_labels(logged, file, "ada", write=True)
    assert (len(again.labels), again.known, again.file) == (0, 3, None)
    other = labelling.import_labels(logged, file, "bob", write=True)
    assert len(other.labels) == 3


@pytest.mark.parametrize(
    ("label", "changes", "problem"),
    [
        (RIGHT | {"queue": "sales"}, {}, "'sales' is no queue (one of billing, shipping)"),
        ({"queue": "billing"}, {}, "the label is no JSON object of queue, priority"),
        ("shipping", {}, "the label is no JSON object of queue, priority"),
        (RIGHT | {"queue": ""}, {}, "'' is no queue"),
        (RIGHT | {"queue": ["billing"]}, {}, "['billing'] is no queue"),
        (RIGHT, {"request": "p999"}, "request 'p999' was not drawn"),
        (RIGHT, {"draw": "x"}, "there was no draw 'x'"),
    ],
)
def test_what_is_no_label_stores_nothing(
    logged: Home, tmp_path: Path, label: Any, changes: dict[str, Any], problem: str
) -> None:
    drawn(logged, tmp_path / "out.jsonl")
    file = fill(tmp_path / "out.jsonl", label, RIGHT, **changes)
    with pytest.raises(LineageError) as raised:
        labelling.import_labels(logged, file, "ada", write=True)
    assert f"line 1: {problem}" in raised.value.problem
    assert "nothing was stored" in raised.value.remedy
    assert read_labels(labels_directory(logged)) == []


def test_nobody_takes_a_label_back_by_another_import(logged: Home, tmp_path: Path) -> None:
    drawn(logged, tmp_path / "out.jsonl")
    labelling.import_labels(logged, fill(tmp_path / "out.jsonl", RIGHT), "ada", write=True)
    changed = fill(tmp_path / "out.jsonl", RIGHT | {"queue": "billing"})
    with pytest.raises(LineageError, match="by the same person before"):
        labelling.import_labels(logged, changed, "ada", write=True)


def test_free_text_is_labelled_with_text(home: Home, tmp_path: Path) -> None:
    keep(home, tmp_path, [asked(number) for number in range(5)], {})
    assert drawn(home, tmp_path / "out.jsonl", 5)[0]["label"] == ""
    file = fill(tmp_path / "out.jsonl", "It arrives tomorrow.", " ")
    with pytest.raises(LineageError, match="line 2: the label is no text"):
        labelling.import_labels(home, file, "ada", write=True)
    file = fill(file, "It arrives tomorrow.", "")
    assert len(labelling.import_labels(home, file, "ada", write=True).labels) == 1


def test_a_broken_file_is_named(logged: Home, tmp_path: Path) -> None:
    drawn(logged, tmp_path / "out.jsonl")
    (tmp_path / "out.jsonl").write_text("{\n[]\n")
    with pytest.raises(LineageError, match=r"line 1: it is no JSON object with .*; line 2"):
        labelling.import_labels(logged, tmp_path / "out.jsonl", "ada", write=False)
    with pytest.raises(LineageError, match="No such file"):
        labelling.import_labels(logged, tmp_path / "none.jsonl", "ada", write=False)


# --- the commands -------------------------------------------------------------------------------


def test_draw_fill_in_import_and_status(logged: Home, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    told = mlops("draw", "--count", "10", "--seed", "3", "--out", str(out))
    assert "10 of 40 answered requests" in told
    assert "queue: billing, shipping, or null where none fits" in told
    fill(out, *[RIGHT] * 8)
    assert "8 new labels by ada, 0 given before, 2 lines" in mlops(
        "import", str(out), "--as", "ada"
    )
    assert json.loads(mlops("status", "--json"))[0]["labelled"] == 0
    assert "Kept in" in mlops("import", str(out), "--as", "ada", "--write")
    (state,) = json.loads(mlops("status", "--json"))
    assert (state["drawn"], state["labelled"], state["response"]) == (10, 8, 0.8)
    assert state["people"] == ["ada"]
    shown = mlops("status")
    assert "8 (80%)" in shown
    assert "10 of 40" in shown


def test_the_commands_say_what_is_missing(home: Home, tmp_path: Path) -> None:
    draw = ("draw", "--count", "1", "--out", str(tmp_path / "out.jsonl"))
    assert "there are no dataset splits. Run the job `lineage`" in mlops(*draw, code=1)
    assert "Nothing was drawn yet" in mlops("status")
    assert "'a b' is no day" in mlops(*draw, "--since", "a b", code=1)
    assert "'Ada!' is no name" in mlops("import", "x", "--as", "Ada!", code=1)


def mlops(*words: str, code: int = 0) -> str:
    """What `mlops label` says."""
    ended = CliRunner().invoke(app, ["label", *words])
    assert ended.exit_code == code, ended.output
    return ended.output
