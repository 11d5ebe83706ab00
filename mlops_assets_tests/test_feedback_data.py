"""Feedback's rows beside the source's: one version for both, the same validation, never test."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mlops_assets.artifacts import ArtifactStore, LineageError
from mlops_assets.dataset import (
    defs,
    expectations,
    leakage,
    sources,
    splits,
    validation,
    versioning,
)
from mlops_assets.dataset.feedback_source import NAME, TRAINING
from mlops_assets.dataset.spec import RawDatasetSpec
from mlops_assets.home import Home
from mlops_assets.ref_json import dump_ref
from mlops_assets.refs import RawDatasetRef, SplitsRef, read_rows
from mlops_assets_tests.small_lineage import SETTINGS, ticket, write_tickets

LABELS = {"queue": ["billing", "shipping", "login"]}
LIMITS = SETTINGS["validated_dataset"] | {"labels": LABELS, "slices": ["channel"]}


def lesson(number: int, text: str = "", queue: str = "login", **more: Any) -> dict[str, Any]:
    """A row as the asset feedback_rows writes it."""
    asked = {"role": "user", "content": text or f"My parcel {number} is blue and square"}
    answer = {"role": "assistant", "content": json.dumps({"queue": queue})}
    row = {"id": f"feedback-{number}", "timestamp": "2026-03-01T00:00:00Z", "split": "test"}
    return row | {"group": f"user{number}", "messages": [asked, answer], "channel": "chat"} | more


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_tickets(tmp_path / "tickets.jsonl", [ticket(number) for number in range(40)])


@pytest.fixture
def store(home: Home) -> ArtifactStore:
    return home.store


def give(home: Home, *rows: dict[str, Any]) -> Path:
    folder = home.root / "feedback"
    folder.mkdir(exist_ok=True)
    return write_tickets(folder / TRAINING, list(rows))


def observe(source: Path) -> RawDatasetRef:
    return sources.observe(RawDatasetSpec(path=str(source), feedback="${MLOPS_HOME}/feedback"))


def split(store: ArtifactStore, raw: RawDatasetRef, **limits: Any) -> SplitsRef:
    spec = expectations.ValidationSpec(**LIMITS | limits)
    return splits.split(store, validation.validate(store, raw, spec), splits.SplitSpec())


def test_no_feedback_yet_is_the_source_alone(home: Home, source: Path) -> None:
    plain = sources.observe(RawDatasetSpec(path=str(source)))
    assert observe(source).version == plain.version
    give(home)  # an empty file
    assert observe(source).version == plain.version


def test_one_version_names_both(home: Home, source: Path) -> None:
    rows = give(home, lesson(1))
    raw = observe(source)
    parts = versioning.dvc_hash(source), versioning.dvc_hash(rows)
    assert versioning.parts(raw.version) == parts
    shown = defs._raw_metadata(raw)
    assert (shown["source_version"], shown["feedback_version"]) == parts
    assert shown["feedback_rows"] == 1
    assert raw.files == {source.name: source.stat().st_size, NAME: rows.stat().st_size}
    give(home, lesson(1), lesson(2))
    assert versioning.parts(observe(source).version)[0] == parts[0] != observe(source).version


def test_its_rows_stand_behind_and_meet_the_same_validation(
    home: Home, store: ArtifactStore, source: Path
) -> None:
    copy = ticket(3)["messages"][0]["content"].upper()
    give(
        home,
        lesson(1),
        lesson(2, queue="nowhere"),
        lesson(3, text=copy),
        lesson(4, text="Write to maria@example.com, please"),
        lesson(5, text=" "),
    )
    spec = expectations.ValidationSpec(**LIMITS | {"privacy": {"email": "redact"}})
    spec = spec.model_copy(update={"max_quarantined_share": 0.5})
    ref = validation.validate(store, observe(source), spec)
    assert (ref.rows_in, ref.rows) == (45, 42)
    assert ref.quarantined == {"duplicate_text": 1, "empty_text": 1, "wrong_label": 1}
    lines = (store.path(ref.artifact) / "quarantine.jsonl").read_text().splitlines()
    assert {json.loads(line)["file"] for line in lines} == {NAME}
    rows = list(read_rows(store.path(ref.artifact) / "rows.jsonl"))
    assert [row.id for row in rows[40:]] == ["feedback-1", "feedback-4"]
    assert rows[40].slices == {"channel": "chat"}
    assert "[email]" in rows[41].prompt[0]["content"]


def test_feedback_is_never_measured_with(home: Home, store: ArtifactStore, source: Path) -> None:
    before = split(store, observe(source))
    give(
        home,
        *(lesson(n, text=f"{n} zebras ate my lamp {n}") for n in range(30)),
    )
    after = split(store, observe(source))
    assert after.versions.eval_set == before.versions.eval_set
    folder = store.path(after.artifact)
    seen = {name: {row.id for row in read_rows(folder / f"{name}.jsonl")} for name in splits.SPLITS}
    given = {f"feedback-{number}" for number in range(30)}
    assert given <= seen["train"] | seen["validation"]
    assert len(given & seen["validation"]) < 10
    found = leakage.report(store, after)
    assert leakage.judge(found, after.artifact.summary["limits"]).passed


def test_feedback_that_changes_under_the_run_is_refused(
    home: Home, store: ArtifactStore, source: Path
) -> None:
    give(home, lesson(1))
    raw = observe(source)
    give(home, lesson(2))
    with pytest.raises(LineageError, match=f"{TRAINING} has changed since"):
        split(store, raw)


def test_the_sensor_of_data_watches_the_source_alone(
    home: Home, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"path": str(source), "feedback": "${MLOPS_HOME}/feedback"}
    monkeypatch.setattr(defs, "asset_config", lambda _: config)
    give(home, lesson(1))
    home.write_ref("raw_dataset", "run", dump_ref(observe(source)))
    give(home, lesson(1), lesson(2))
    with dg.build_sensor_context() as context:
        assert isinstance(defs.data_change_sensor(context), dg.SkipReason)
        write_tickets(source, [ticket(1)])
        assert isinstance(defs.data_change_sensor(context), dg.RunRequest)


def test_a_link_in_its_place_is_refused(home: Home, source: Path, tmp_path: Path) -> None:
    give(home).unlink()
    (tmp_path / "elsewhere").write_text(json.dumps(lesson(1)))
    (home.root / "feedback" / TRAINING).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LineageError, match="symbolic link"):
        observe(source)
