"""Sketches: that parts add up to the whole, and that a log's parts are sketched once."""

import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home
from mlops_assets.monitoring.drift import sketched_log, sketches
from mlops_assets.monitoring.drift.features import CATEGORICAL, NUMERIC, Column
from mlops_assets.monitoring.drift.sketched_log import log_sample, sketch_log
from mlops_assets.refs import PredictionRecord, Row, write_jsonl
from mlops_assets_tests.production_records import LOG, SPEC, prediction_log, record, reference_of

COLUMNS = [Column("length", "data", NUMERIC), Column("channel", "data", CATEGORICAL)]
LABELS = {"queue": ("a", "b")}


def values(seed: int, count: int) -> dict[str, list[float] | list[str]]:
    rng = np.random.default_rng(seed)
    return {
        "length": rng.gamma(4, 30, count).tolist(),
        "channel": rng.choice(["web", "chat"], count).tolist(),
    }


def test_parts_add_up_to_the_whole() -> None:
    given = values(0, 20_000)
    cuts = [0, 3_000, 3_000, 12_345, 20_000]
    parts = [
        sketches.sketch(COLUMNS, {name: each[start:stop] for name, each in given.items()})
        for start, stop in itertools.pairwise(cuts)
    ]
    merged, whole = sketches.merge(parts), sketches.sketch(COLUMNS, given)
    assert merged["channel"] == whole["channel"] == Counter(given["channel"])
    points = sorted(given["length"])
    assert merged["length"].get_cdf(points) == whole["length"].get_cdf(points)
    assert sketches.rank_error(merged["length"]) == 0
    assert {sketches.size(sketch) for sketch in merged.values()} == {20_000}


def test_above_the_exact_ranks_are_as_near_as_is_said() -> None:
    given = np.random.default_rng(1).permutation(300_000).astype(float)
    merged = sketches.merge([{"length": sketches.numbers(part)} for part in np.split(given, 10)])[
        "length"
    ]
    error = sketches.rank_error(merged)
    assert 0 < error < 1e-4
    points = np.arange(0, 300_000, 500.0)
    off = np.subtract(merged.get_cdf(points), np.append(points, 300_000) / 300_000)
    assert np.mean(abs(off) <= error) >= 0.99


def test_what_was_written_is_read(tmp_path: Path) -> None:
    whole = sketches.sketch(COLUMNS, values(2, 500))
    sketches.write_sketches(tmp_path, whole, sketches.draw(map(str, range(500)), 9, 7))
    found = sketches.read_sketches(tmp_path)
    assert found["channel"] == whole["channel"]
    assert found["length"].serialize() == whole["length"].serialize()
    assert sketches.read_table(tmp_path / sketches.DRAWN).num_rows == 9


def records(start: int, stop: int, **changes: str) -> list[PredictionRecord]:
    times = (f"2026-07-01T{number // 60:02}:{number % 60:02}:00Z" for number in range(start, stop))
    return [
        record(
            number, f"where is parcel {number}", timestamp=time, output='{"queue":"a"}', **changes
        )
        for number, time in zip(range(start, stop), times, strict=True)
    ]


def train(count: int) -> list[Row]:
    messages = ({"role": "user", "content": "a parcel"}, {"role": "assistant", "content": "{}"})
    return [Row(f"t{number}", "", f"g{number}", messages, {}) for number in range(count)]


def sketch_files(home: Home) -> set[Path]:
    return set((home.store.root / "drift_sketch").glob("*/manifest.json"))


def test_a_log_that_grows_is_sketched_where_it_grew(home: Home) -> None:
    reference = reference_of(home.store, train(300), LABELS)
    folder = home.root / "log"
    folder.mkdir()

    def grow(start: int, stop: int) -> sketched_log.SketchedLog:
        write_jsonl(folder / f"segment-{start:04}.jsonl", records(start, stop))
        log = prediction_log.collect(home.store, LOG, home.root)
        return sketch_log(home.store, log, reference, SPEC)

    grow(0, 150)
    first = sketch_files(home)
    found = grow(150, 350)
    assert len(first) == 1
    assert first < sketch_files(home)
    assert len(sketch_files(home)) == 2
    assert found.records == sketches.size(found.sketches["words"]) == 350
    assert found.sketches["predicted_queue"] == Counter(a=350)


def test_the_sample_does_not_depend_on_the_segments(home: Home) -> None:
    reference = reference_of(home.store, train(300), LABELS)
    samples = []
    for cuts in ([0, 700], [0, 200, 201, 700]):
        folder = home.root / "log" / str(len(cuts))
        folder.mkdir(parents=True)
        for start, stop in itertools.pairwise(cuts):
            write_jsonl(folder / f"segment-{start:04}.jsonl", records(start, stop))
        spec = LOG.model_copy(update={"directory": str(folder)})
        log = prediction_log.collect(home.store, spec, home.root)
        found = sketch_log(home.store, log, reference, replace_rows(100))
        samples.append(log_sample(home.store, found, reference).sort_by("id"))
    assert samples[0].equals(samples[1])
    assert samples[0].num_rows == 100
    texts = dict(zip(*(samples[0][name].to_pylist() for name in ("id", "text")), strict=True))
    assert all(text == f"where is parcel {each[1:]}" for each, text in texts.items())


def replace_rows(count: int) -> sketched_log.DriftSpec:
    return SPEC.model_copy(update={"sample_rows": count})


@pytest.mark.parametrize(("release", "expected"), [("", 400), ("new", 250)])
def test_another_release_is_no_news_of_this_one(home: Home, release: str, expected: int) -> None:
    reference = reference_of(home.store, train(300), LABELS)
    folder = home.root / "log"
    folder.mkdir()
    lines = [
        *records(0, 150, release="old"),
        *records(150, 300, release="new"),
        *records(300, 400, release="simulated"),
    ]
    write_jsonl(folder / "segment.jsonl", lines)
    log = prediction_log.collect(home.store, LOG, home.root)
    found = sketch_log(home.store, log, replace(reference, release=release), SPEC)
    assert found.records == expected


def test_a_sketch_that_was_changed_is_refused(home: Home) -> None:
    reference = reference_of(home.store, train(300), LABELS)
    path = home.store.path(reference.artifact) / sketches.SKETCHES
    path.write_bytes(path.read_bytes()[:-1])
    folder = home.root / "log"
    folder.mkdir()
    log = prediction_log.collect(home.store, LOG, home.root)
    with pytest.raises(LineageError, match="was changed after it was built"):
        sketch_log(home.store, log, reference, SPEC)
