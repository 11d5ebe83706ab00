"""The drift verdict on a million records beside Evidently's, in time, memory and in what it says.

A million records of the shipped generator lie in a log of twenty segments. Ours is timed from
the files on disk, Evidently is given the same columns of the same records in memory; imports are
not counted. Each step runs in a process of its own:
``python -m mlops_assets_tests.bench_drift_speed STEP FOLDER``.

Evidently decides by distances or by p values. What it says is shown for three choices of tests:
the distances that we measure, given to it as functions of the raw columns; its default from a
thousand rows on, Wasserstein and Jensen-Shannon from 0.1; Kolmogorov-Smirnov and chi-square. Its
chi-square takes the reference for the truth and not for a sample: beside a reference of 5,000
rows it alarms where nothing has changed.
"""

import hashlib
import json
import operator
import os
import resource
import subprocess
import sys
import time
import warnings
import zlib
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mlops_assets.artifacts import ArtifactStore
from mlops_assets.dataset import production
from mlops_assets.monitoring.drift.design_effect import design_effects
from mlops_assets.monitoring.drift.features import NUMERIC, Known, column_values
from mlops_assets.monitoring.drift.findings import decide
from mlops_assets.monitoring.drift.reference import read_known, read_reference, reference_sample
from mlops_assets.monitoring.drift.sketched_log import sketch_log
from mlops_assets.monitoring.drift.sketches import sketch
from mlops_assets.monitoring.drift.spec import DriftSpec
from mlops_assets.monitoring.drift.verdict import compare
from mlops_assets.monitoring.log.prediction_log import PredictionLogSpec, collect
from mlops_assets.monitoring_refs import DriftReferenceRef, PredictionLogRef
from mlops_assets.ref_json import dump_ref, load_ref
from mlops_assets_tests.drift_windows import TICKET_LABELS, exchange, ticket_rows
from mlops_assets_tests.production_records import reference_of

RECORDS, SEGMENTS, REFERENCE, USERS = 1_000_000, 20, 5_000, 100_000
SPEC = DriftSpec()
SCENARIOS = {"no drift": 0.0, "2% shifted": 0.02, "4% shifted": 0.04, "all shifted": 1.0}
"""Share of the records that come from the shifted mix that we ship."""
RATES = {"invalid_answers", "empty_answers", "refusals"}
STEPS = {
    "compact": "segments to Parquet, once ever",
    "sketch": "Parquet to sketches, once for a reference",
    "columns": "columns in memory to sketches",
    "verdict": "verdict, from the sketches on disk",
    "evidently": "Evidently, its default tests, columns in memory",
    "p_values": "Evidently, KS and chi-square, columns in memory",
}


def speed(folder: Path) -> None:
    """Print times and memory, then the columns that drifted, in each scenario."""
    columns = write_log(folder)
    print(f"\n{RECORDS:,} records, {columns} columns, {REFERENCE:,} rows of reference\n")
    print("| | seconds | records/s | peak memory, MB |\n|---|---|---|---|")
    steps = {name: _measured(name, folder) for name in STEPS}
    for name, said in STEPS.items():
        took, peak = steps[name]["seconds"], steps[name]["peak"]
        print(f"| {said} | {took:.2f} | {RECORDS / took:,.0f} | {peak:,.0f} |")
    for name in ("evidently", "p_values"):
        ratio = steps[name]["seconds"] / steps["verdict"]["seconds"]
        print(f"\n{STEPS[name]}: {ratio:.0f} times the verdict's time")
    print("\n| columns that drifted | ours | Evidently, our distances | as ours"
          " | its default | as ours | p values | as ours |")  # fmt: skip
    print("|---" * 8 + "|")
    for name, share in SCENARIOS.items():
        said = {key: set(found) for key, found in _measured("say", folder, str(share)).items()}
        ours = said.pop("ours")
        cells = [f"{len(found)} | {columns - len(ours ^ found)}" for found in said.values()]
        print(f"| {name} | {len(ours)} | {' | '.join(cells)} |")


def write_log(folder: Path) -> int:
    """Write the log, the reference, and the columns of either mix; returns how many columns."""
    store = ArtifactStore(folder / "store")
    reference = reference_of(store, ticket_rows(REFERENCE), TICKET_LABELS)
    (folder / "reference.json").write_bytes(dump_ref(reference))
    known = read_known(store.path(reference.artifact))
    for sample in production.MIXES:
        _write_sample(folder / sample, sample, known)
    return len(known.columns)


def _write_sample(folder: Path, sample: str, known: Known) -> None:
    folder.mkdir()
    lines = production.record_lines(RECORDS, 5, *production.MIXES[sample])
    types = [(c.name, pa.float64() if c.kind == NUMERIC else pa.string()) for c in known.columns]
    with pq.ParquetWriter(folder / "columns.parquet", schema := pa.schema(types)) as writer:
        for number in range(SEGMENTS):
            segment = [_of_user(line) for line in islice(lines, RECORDS // SEGMENTS)]
            (folder / f"segment-{number:03}.jsonl").write_text("\n".join(segment) + "\n")
            values = column_values([exchange(json.loads(line)) for line in segment], known)
            writer.write_table(pa.table({n: list(v) for n, v in values.items()}, schema=schema))


def _of_user(line: str) -> str:
    """The line with one of ``USERS``, who ask at random."""
    user = hashlib.sha256(str(zlib.crc32(line.encode()) % USERS).encode()).hexdigest()
    return f'{line[:-1]}, "user": "{user}"}}'


def _measured(step: str, folder: Path, *more: str) -> Any:
    command = [sys.executable, "-m", __name__, step, str(folder), *more]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        sys.exit(f"{step} did not run:\n{ended.stderr}")
    return json.loads(ended.stdout.splitlines()[-1])


def measure(step: str, folder: Path) -> dict[str, float]:
    """Seconds of one step, and the peak memory of this process in MB."""
    store, reference = ArtifactStore(folder / "store"), _reference(folder)
    log = PredictionLogSpec(directory=str(folder / "unshifted"), max_records=RECORDS)
    frames, values = None, {}
    if step in ("evidently", "p_values"):
        frames = _frames(folder, 0.0)
    if step == "columns":
        table = pq.read_table(folder / "unshifted" / "columns.parquet")
        values = {name: table[name].to_pylist() for name in table.column_names}
    import datasketches  # noqa: F401  what is timed is no import
    import scipy.special  # noqa: F401

    started = time.perf_counter()
    if step == "compact":
        (folder / "log.json").write_bytes(dump_ref(collect(store, log, folder)))
    elif step == "sketch":
        sketch_log(store, _log(folder), reference, SPEC)
    elif step == "columns":
        sketch(read_known(store.path(reference.artifact)).columns, values)
    elif step == "verdict":
        verdict_of_log(folder)
    else:
        evidently(frames, step)
    took = time.perf_counter() - started
    return {"seconds": took, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def verdict_of_log(folder: Path) -> str:
    """The verdict on the whole log, whose parts were sketched."""
    store, reference = ArtifactStore(folder / "store"), _reference(folder)
    directory = store.path(reference.artifact)
    log, columns = sketch_log(store, _log(folder), reference, SPEC), read_known(directory).columns
    rows = reference_sample(directory, reference.rows)
    design = design_effects(columns, rows, log.drawn, log.users)
    found = compare(columns, read_reference(directory), log.sketches, SPEC, design)
    return decide(found, SPEC.alpha).verdict


def say(folder: Path, share: float) -> dict[str, list[str]]:
    """The columns that drifted by our verdict and by Evidently's."""
    reference = _reference(folder)
    directory = ArtifactStore(folder / "store").path(reference.artifact)
    columns = read_known(directory).columns
    frames = _frames(folder, share)
    current = sketch(columns, {c.name: frames[0][c.name].tolist() for c in columns})
    found = compare(columns, read_reference(directory), current, SPEC)
    said = {tests: evidently(frames, tests) for tests in ("distances", "evidently", "p_values")}
    return {"ours": list(decide(found, SPEC.alpha).drifted), **said}


def evidently(frames: Any, tests: str) -> list[str]:
    """The columns that drifted by Evidently, of frames of production and of the reference."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    current = frames[0]
    names = {kind: list(current.select_dtypes(kind)) for kind in ("number", "object")}
    definition = DataDefinition(
        numerical_columns=names["number"], categorical_columns=names["object"]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        preset = DataDriftPreset(columns=list(current), **_tests(tests, current))
        sides = [Dataset.from_pandas(frame, data_definition=definition) for frame in frames]
        metrics = Report([preset]).run(*sides).dict()["metrics"]
    by_column = [each for each in metrics if "column" in each["config"]]
    beyond = operator.lt if tests == "p_values" else operator.ge
    return [
        each["config"]["column"]
        for each in by_column
        if beyond(each["value"], each["config"]["threshold"])
    ]


def _tests(tests: str, frame: Any) -> dict[str, Any]:
    if tests == "p_values":
        threshold = SPEC.alpha / len(frame.columns)
        methods = {"num_method": "ks", "cat_method": "chisquare"}
        return methods | {"num_threshold": threshold, "cat_threshold": threshold}
    if tests == "distances":
        rates = {name for name in frame if name in RATES}
        return {
            "num_method": _registered("Numerical", _kolmogorov_smirnov),
            "cat_method": _registered("Categorical", _total_variation),
            "num_threshold": SPEC.min_effect,
            "cat_threshold": SPEC.min_effect,
            "per_column_threshold": dict.fromkeys(rates, SPEC.min_rate_effect),
        }
    return {}


def _registered(kind: str, test: Callable[..., tuple[float, bool]]) -> str:
    """The name under which Evidently knows the test from now on."""
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType

    name = test.__name__.strip("_")
    register_stattest(StatTest(name, name, [ColumnType[kind]]), test)
    return name


def _kolmogorov_smirnov(before: Any, now: Any, _: object, threshold: float) -> tuple[float, bool]:
    from scipy.stats import ks_2samp

    distance = float(ks_2samp(before, now, method="asymp").statistic)
    return distance, distance >= threshold


def _total_variation(before: Any, now: Any, _: object, threshold: float) -> tuple[float, bool]:
    shares = [side.value_counts(normalize=True) for side in (before, now)]
    distance = float(shares[0].sub(shares[1], fill_value=0).abs().sum() / 2)
    return distance, distance >= threshold


def _frames(folder: Path, share: float) -> list[Any]:
    """Production, of which ``share`` is shifted, and the reference, as pandas has them."""
    import evidently.presets  # noqa: F401  what is timed is no import

    reference = _reference(folder)
    directory = ArtifactStore(folder / "store").path(reference.artifact)
    moved = round(RECORDS * share)
    parts = [
        pq.read_table(folder / sample / "columns.parquet").slice(0, rows)
        for sample, rows in (("unshifted", RECORDS - moved), ("shifted", moved))
    ]
    before = reference_sample(directory, REFERENCE).select(parts[0].column_names)
    return [side.to_pandas() for side in (pa.concat_tables(parts), before)]


def _reference(folder: Path) -> DriftReferenceRef:
    ref = load_ref((folder / "reference.json").read_bytes())
    assert isinstance(ref, DriftReferenceRef)
    return ref


def _log(folder: Path) -> PredictionLogRef:
    ref = load_ref((folder / "log.json").read_bytes())
    assert isinstance(ref, PredictionLogRef)
    return ref


if __name__ == "__main__":
    os.environ.setdefault("DO_NOT_TRACK", "1")
    step, folder = sys.argv[1], Path(sys.argv[2])
    if step == "say":
        print(json.dumps(say(folder, float(sys.argv[3]))))
    else:
        print(json.dumps(measure(step, folder)))
