"""The prediction log and the drift report, on the shipped generator and on made-up frames."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.artifacts import ArtifactStore, LineageError, Recipe
from mlops_assets.dataset import production, synthetic
from mlops_assets.dataset.dice import Dice
from mlops_assets.home import Home
from mlops_assets.monitoring import defs, distances, drift, features, prediction_log
from mlops_assets.monitoring.features import Classes, Numbers
from mlops_assets.multiple_tests import holm
from mlops_assets.refs import (
    DriftReportRef,
    PredictionLogRef,
    PredictionRecord,
    Row,
    SplitsRef,
    write_jsonl,
)
from mlops_assets.resources import RESOURCES
from mlops_assets_tests.conftest import VERSIONS

LOG = prediction_log.PredictionLogSpec(directory="log")
SPEC = drift.DriftSpec()
TICKET_LABELS = {name: tuple(values) for name, values in synthetic.LABELS.items()}
TRAIN = 2_000


def record(number: int, text: str = "where is my parcel", **changes: Any) -> PredictionRecord:
    messages = ({"role": "user", "content": text},)
    made = PredictionRecord(f"p{number}", "2026-07-01T00:00:00Z", "r", messages, '{"a":"b"}')
    return replace(made, **changes)


def line(number: int, **changes: Any) -> str:
    return json.dumps(asdict(record(number, **changes)))


def make_splits(
    store: ArtifactStore, rows: Sequence[Row], labels: Mapping[str, tuple[str, ...]]
) -> SplitsRef:
    def produce(directory: Path) -> dict[str, Any]:
        return {"rows": write_jsonl(directory / "train.jsonl", rows)}

    inputs = {"rows": str(hash(tuple(row.id for row in rows)))}
    artifact = store.build(Recipe("dataset_splits", inputs, {}, "1"), produce)
    return SplitsRef(artifact, VERSIONS, {"train": len(rows)}, labels)


def make_log(
    store: ArtifactStore, project: Path, records: Sequence[PredictionRecord]
) -> PredictionLogRef:
    (project / "log").mkdir(parents=True, exist_ok=True)
    write_jsonl(project / "log" / "segment.jsonl", records)
    return prediction_log.collect(store, LOG, project)


# --- the prediction log ----------------------------------------------------------------------


def collect(tmp_path: Path, *segments: bytes, **spec: Any) -> tuple[PredictionLogRef, list[str]]:
    store = ArtifactStore(tmp_path / "store")
    (tmp_path / "log").mkdir()
    for number, content in enumerate(segments):
        (tmp_path / "log" / f"{number}.jsonl").write_bytes(content)
    ref = prediction_log.collect(store, LOG.model_copy(update=spec), tmp_path)
    records = prediction_log.read_records(store.path(ref.artifact) / prediction_log.RECORDS)
    return ref, [item.id for item in records]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'{"id": "p9", "messa', "torn line"),
        (b'{"id": "p9", "messa\n', "not JSON"),
        (b"\xff\xfe\n", "not UTF-8"),
        (b'{"id": "p9"}\n', "not a record"),
        (b"[1, 2]\n", "not a record"),
        (b"[" * 100_000 + b"\n", "not JSON"),
        (line(1).encode() + b"\n", "duplicate id"),
        (line(9, messages=()).encode() + b"\n", "no user message"),
        (line(9, messages=[{"role": "user"}]).encode() + b"\n", "no user message"),
    ],
)
def test_a_line_that_cannot_be_used_is_counted(tmp_path: Path, bad: bytes, reason: str) -> None:
    good = f"{line(1)}\n\n{line(2)}\n".encode()
    ref, ids = collect(tmp_path, good, bad)
    assert ids == ["p1", "p2"]
    assert (ref.records, ref.unreadable) == (2, 1)
    assert ref.artifact.summary["skipped"] == {reason: 1}


def test_the_newest_records_are_kept(tmp_path: Path) -> None:
    segments = [f"{line(n)}\n".encode() for n in range(5)]
    assert collect(tmp_path, *segments, max_records=2)[1] == ["p3", "p4"]


def test_what_is_appended_later_is_another_log(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    first = make_log(store, tmp_path, [record(1)])
    assert make_log(store, tmp_path, [record(1)]).artifact.reused
    segment = prediction_log.find_segments(tmp_path / "log", tmp_path)
    with (tmp_path / "log" / "segment.jsonl").open("a") as stream:
        stream.write(line(2))
    # What was hashed is what is read, whatever a writer appended in between.
    assert len(list(prediction_log._lines(segment[0]))) == 1
    second = prediction_log.collect(store, LOG, tmp_path)
    assert (first.records, second.records) == (1, 2)
    assert first.artifact.digest != second.artifact.digest


@pytest.mark.parametrize("exists", [True, False])
def test_an_empty_log_is_healthy(tmp_path: Path, exists: bool) -> None:
    if exists:
        (tmp_path / "log").mkdir()
    ref = prediction_log.collect(ArtifactStore(tmp_path), LOG, tmp_path)
    assert (ref.records, ref.unreadable) == (0, 0)


def test_bad_directories_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    cases = {
        "data/production/unshifted": "has not been built",
        "$NO_SUCH_VARIABLE/log": "not set",
        "file": "not a directory",
    }
    for directory, problem in cases.items():
        spec = prediction_log.PredictionLogSpec(directory=directory)
        with pytest.raises(LineageError, match=problem):
            prediction_log.collect(ArtifactStore(tmp_path), spec, tmp_path)
    monkeypatch.setenv("LOGS", str(tmp_path / "elsewhere"))
    assert prediction_log.resolve("$LOGS/log", Path("/project")) == tmp_path / "elsewhere/log"


# --- features --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ('{"intent":"a"}', "a"),
        ('{"intent":"c"}', features.INVALID),
        ('{"intent":["a"]}', features.INVALID),
        ('{"other":"a"}', features.INVALID),
        ('["a"]', features.INVALID),
        ("a", features.INVALID),
        ("[" * 100_000, features.INVALID),
    ],
)
def test_the_class_of_an_answer(output: str, expected: str) -> None:
    assert features.answer_class(output, "intent", ("a", "b")) == expected


def test_unknown_words_are_fair_to_the_reference() -> None:
    known = features.document_frequency(["a b c", "a b", "a d d"])
    assert features.unknown_share("a d d", known, in_vocabulary=True) == pytest.approx(2 / 3)
    assert features.unknown_share("a d x", known, in_vocabulary=False) == pytest.approx(1 / 3)
    assert features.unknown_share("", known, in_vocabulary=False) == 0


def test_a_slice_that_production_does_not_log_is_left_out() -> None:
    messages = ({"role": "user", "content": "hi"}, {"role": "assistant", "content": "{}"})
    rows = [Row("r", "", "g", messages, {"channel": "web", "style": "plain"})]
    records = [record(1, slices={"channel": "web"}), record(2)]
    columns = features.make_columns(rows, records, {"queue": ("a",)}, 10, 0)
    names = [column.name for column in columns]
    assert names == ["words", "characters", "unknown_words", "slice_channel", "predicted_queue"]
    assert columns[3].current == ["web", features.ABSENT]


# --- distances -------------------------------------------------------------------------------


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1, allow_subnormal=False), min_size=1, max_size=12))
def test_holm_only_raises_and_keeps_the_order(p_values: list[float]) -> None:
    corrected = holm(p_values)
    assert all(p <= c <= 1 for p, c in zip(p_values, corrected, strict=True))
    pairs = sorted(zip(p_values, corrected, strict=True))
    assert [c for _, c in pairs] == sorted(c for _, c in pairs)


def test_distances_of_known_samples() -> None:
    assert distances.compare_numbers([1, 2, 3, 4], [3, 4, 5, 6])[0] == 0.5
    assert distances.compare_classes(["a"] * 8 + ["b"] * 2, ["a"] * 5 + ["b"] * 5, 0)[0] == (
        pytest.approx(0.3)
    )
    effect, p = distances.compare_classes(["a"] * 50, ["b"] * 50, 0)
    assert (effect, p) == (1.0, pytest.approx(1e-4))
    assert distances.compare_classes(["a"] * 50, ["a"] * 50, 0) == (0.0, 1.0)
    assert distances.psi_of_numbers([1.0] * 20, [1.0] * 20) == 0
    assert distances.psi_of_classes(["a", "b"], ["a", "b"]) == 0


def test_the_permutation_test_agrees_with_chi_square_where_that_holds() -> None:
    import numpy as np
    from scipy.stats import chi2_contingency

    rng = np.random.default_rng(3)
    before, now = rng.choice(list("ab"), 3000), rng.choice(list("ab"), 800, p=[0.53, 0.47])
    table = [[int((side == name).sum()) for name in "ab"] for side in (before, now)]
    expected = chi2_contingency(table, correction=False).pvalue
    _, p = distances.compare_classes([str(x) for x in before], [str(x) for x in now], 0)
    assert p == pytest.approx(expected, abs=0.02)


# --- the verdict -----------------------------------------------------------------------------


def frame(seed: int, current: int, reference: int = 2_000, shift: float = 0) -> list[Any]:
    """Columns of the kinds that we meet: lengths, a share, few classes, 77 classes."""
    import numpy as np

    rng = np.random.default_rng(seed)

    def side(n: int, shift: float) -> list[list[Any]]:
        return [
            (rng.poisson(20, n) + shift).astype(float).tolist(),
            rng.gamma(4, 30, n).tolist(),
            rng.beta(0.3, 20, n).tolist(),
            rng.choice(list("abc"), n, p=[0.45, 0.3, 0.25]).tolist(),
            rng.choice(list("abcdef"), n).tolist(),
            rng.choice(77, n).astype(str).tolist(),
        ]

    kinds = (Numbers, Numbers, Numbers, Classes, Classes, Classes)
    sides = zip(kinds, side(reference, 0), side(current, shift), strict=True)
    return [kind(f"{i}", before, now) for i, (kind, before, now) in enumerate(sides)]


def verdict_of(columns: Sequence[Any], spec: drift.DriftSpec = SPEC) -> drift.Verdict:
    return drift.decide(drift.compare(columns, spec), spec)


@pytest.mark.parametrize("records", [200, 1_000])
def test_false_alarms_are_rare_where_nothing_changed(records: int) -> None:
    windows = [drift.compare(frame(seed, records), SPEC) for seed in range(25)]
    alarms = sum(drift.decide(window, SPEC).verdict == drift.DRIFT for window in windows)
    assert alarms <= 1  # alpha is 0.01: two in 25 windows have a chance of 3% at most
    if records == 200:
        psi = sum(max(column.psi for column in window.values()) > 0.1 for window in windows)
        assert psi >= 12  # what deciding by PSI would have cost


@pytest.mark.parametrize("records", [200, 1_000])
def test_a_shift_is_found_and_named(records: int) -> None:
    found = [verdict_of(frame(seed, records, shift=3)) for seed in range(10)]
    assert all((each.verdict, each.drifted) == (drift.DRIFT, ("0",)) for each in found)


def test_significance_alone_is_no_drift() -> None:
    columns = frame(0, 20_000, reference=20_000, shift=0.3)
    compared = drift.compare(columns, SPEC)
    assert compared["0"].p_corrected < SPEC.alpha
    assert compared["0"].effect < SPEC.min_effect
    assert drift.decide(compared, SPEC).verdict == drift.NO_DRIFT


def test_effect_alone_is_no_drift() -> None:
    spec = drift.DriftSpec(min_records=30)
    compared = drift.compare([Classes("a", ["x", "y"] * 20, ["x"] * 19 + ["y"] * 11)], spec)
    assert compared["a"].effect >= spec.min_effect
    assert drift.decide(compared, spec).verdict == drift.NO_DRIFT


@pytest.mark.parametrize(("records", "reference"), [(199, 2_000), (0, 2_000), (2_000, 199)])
def test_too_few_records_give_no_verdict(records: int, reference: int) -> None:
    assert verdict_of(frame(0, records, reference, shift=9)).verdict == drift.NO_VERDICT


def test_a_missing_value_gives_no_verdict() -> None:
    columns = frame(0, 500, shift=9)
    compared = drift.compare(columns, SPEC)
    spoilt = compared | {"3": replace(compared["3"], effect=float("nan"))}
    found = drift.decide(spoilt, SPEC)
    assert (found.verdict, found.reason) == (drift.NO_VERDICT, "no value for 3")
    assert drift.decide({}, SPEC).verdict == drift.NO_VERDICT


# --- the whole report ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tickets() -> list[Row]:
    """Train rows from the shipped generator."""
    names = ("channel", "product", "language_style")
    return [
        Row(
            ticket["id"],
            ticket["timestamp"],
            ticket["customer_id"],
            tuple(ticket["messages"]),
            {name: ticket[name] for name in names},
        )
        for ticket in synthetic.sound_tickets(Dice(1), TRAIN, synthetic.Mix())
    ]


@pytest.mark.parametrize(
    ("sample", "expected"), [("unshifted", drift.NO_DRIFT), ("shifted", drift.DRIFT)]
)
def test_the_shipped_samples(home: Home, tickets: list[Row], sample: str, expected: str) -> None:
    mix, errors = production.MIXES[sample]
    lines = production.record_lines(400, 5, mix, errors)
    records = [PredictionRecord(**json.loads(text)) for text in lines]
    splits = make_splits(home.store, tickets, TICKET_LABELS)
    log = make_log(home.store, home.root, records)
    ref = drift.report_drift(home.store, splits, log, SPEC)
    assert (ref.verdict, ref.records) == (expected, 400)
    directory = home.store.path(ref.artifact)
    report = json.loads((directory / drift.REPORT).read_text())
    assert report["verdict"] == expected
    assert len(report["columns"]) == 9
    assert set(ref.columns) == {n for n, c in report["columns"].items() if c["drifted"]}
    if sample == "shifted":
        assert {"words", "unknown_words", "slice_channel", "predicted_queue"} <= set(ref.columns)
    page = (directory / drift.PAGE).read_text()
    # Evidently's part, with the tests that we named; it opens without a network.
    assert {text in page for text in ("chi-square", "K-S p_value")} == {True}
    assert {text in page for text in ("<script src=", "<link ")} == {False}
    assert (directory / drift.PLOT).read_bytes().startswith(b"\x89PNG")
    assert drift.report_drift(home.store, splits, log, SPEC).artifact.reused


def intent_rows(count: int, offset: int = 0) -> list[Row]:
    """A data set with one field, many labels and no slices."""
    rows = []
    for number in range(offset, offset + count):
        intent = f"intent-{number % 40}"
        messages = (
            {"role": "user", "content": f"please help me with {intent} today"},
            {"role": "assistant", "content": json.dumps({"intent": intent})},
        )
        rows.append(Row(f"r{number}", "", f"r{number}", messages, {}))
    return rows


def as_records(rows: Sequence[Row]) -> list[PredictionRecord]:
    return [PredictionRecord(row.id, "2026-07-01", "r", row.prompt, row.answer) for row in rows]


def test_data_without_slices(home: Home) -> None:
    labels = {"intent": tuple(f"intent-{n}" for n in range(40))}
    splits = make_splits(home.store, intent_rows(1_000), labels)
    same = make_log(home.store, home.root, as_records(intent_rows(240, 5_000)))
    ref = drift.report_drift(home.store, splits, same, SPEC)
    assert ref.verdict == drift.NO_DRIFT
    broken = [replace(item, output="sorry") for item in as_records(intent_rows(240))]
    ref = drift.report_drift(home.store, splits, make_log(home.store, home.root, broken), SPEC)
    assert (ref.verdict, ref.columns) == (drift.DRIFT, ("predicted_intent",))


def run_stage(rows: Sequence[Row], labels: Mapping[str, tuple[str, ...]], **config: Any) -> Any:
    """Run the stage's assets as the job `monitor` does."""

    @dg.asset
    def dataset_splits() -> SplitsRef:
        return make_splits(Home.from_environment().store, rows, labels)

    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(
            [dataset_splits, *(defs.defs.assets or [])],
            resources=RESOURCES,
            instance=instance,
            run_config={"ops": {name: {"config": value} for name, value in config.items()}},
            raise_on_error=False,
        )


def test_the_assets_without_any_record(home: Home) -> None:
    absent = str(home.root / "nothing-yet")
    result = run_stage(intent_rows(300), {"intent": ("x",)}, prediction_log={"directory": absent})
    assert result.success
    ref = home.latest("drift_report")
    assert isinstance(ref, DriftReportRef)
    assert (ref.verdict, ref.records, ref.columns) == (drift.NO_VERDICT, 0, ())
    report = json.loads((home.store.path(ref.artifact) / drift.REPORT).read_text())
    assert report["columns"]["words"]["p"] is None
    assert "No verdict" in (home.store.path(ref.artifact) / drift.PAGE).read_text()
    event = result.asset_materializations_for_node("drift_report")[0]
    assert {"verdict", "columns", "effects", "report", "from_store"} <= event.metadata.keys()
    assert event.metadata["reason"].value == "0 records, 200 are needed"


@pytest.mark.parametrize(
    "settings", [{"alpha": 0}, {"min_effect": 2}, {"min_records": 1}, {"unknown": 1}]
)
def test_settings_are_bounded(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        drift.DriftSpec(**settings)
