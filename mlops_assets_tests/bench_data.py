"""The benchmark `data`, and the rows it runs on: as many as are asked for, the same each time.

They are the shipped generator's tickets, made longer.

A ticket ends with a reference of its own and a sentence of the customer's, so that no text
stands twice among millions and a line has some 400 bytes.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from mlops_assets.artifacts import ArtifactStore
from mlops_assets.dataset import leakage, phrases, sources, splits, validation
from mlops_assets.dataset.datadocs import quiet_context
from mlops_assets.dataset.dice import Dice
from mlops_assets.dataset.expectations import ValidationSpec, row_expectations
from mlops_assets.dataset.row_frame import answer_object, row_frame
from mlops_assets.dataset.spec import RawDatasetSpec
from mlops_assets.dataset.synthetic import Mix, answer, draw_labels, write_text

SEED = 20261101
ROWS_PER_CUSTOMER = 5
SIZES = (10_000, 100_000, 1_000_000)


def write_chats(path: Path, rows: int) -> None:
    """Write ``rows`` chat rows as JSON lines, without any fault."""
    dice, mix = Dice(SEED), Mix()
    with path.open("wb") as stream:
        for number in range(rows):
            stream.write(
                orjson.dumps(_chat(dice, mix, number, rows), option=orjson.OPT_APPEND_NEWLINE)
            )


def _chat(dice: Dice, mix: Mix, number: int, rows: int) -> dict[str, object]:
    labels, style = draw_labels(dice, mix), dice.weighted(mix.styles)
    text = write_text(dice, mix, labels, style)
    words = " ".join(f"{dice.pick(phrases.CITIES)} {dice.number(1, 9999)}" for _ in range(4))
    return {
        "id": f"t-{number}",
        "timestamp": f"2026-{number % 12 + 1:02d}-{number % 28 + 1:02d}T12:00:00Z",
        "customer_id": f"c-{dice.number(1, max(rows // ROWS_PER_CUSTOMER, 50))}",
        "channel": dice.weighted(mix.channels),
        "product": labels["product"],
        "language_style": style,
        "messages": [
            {"role": "user", "content": f"{text} Case {number}: {words}."},
            {"role": "assistant", "content": answer(labels)},
        ],
    }


def _plain_candidate(number: int, line: bytes) -> sources.Candidate:
    row = orjson.loads(line)
    return sources.Candidate(
        "chats.jsonl",
        number,
        "",
        id=row["id"],
        timestamp=row["timestamp"],
        group=row["customer_id"],
        messages=tuple(row["messages"]),
    )


def scan(path: Path) -> Iterator[str]:
    """Peer: read every line with orjson and do nothing with it."""
    with path.open("rb") as stream:
        for line in stream:
            orjson.loads(line)
    yield "orjson scan"


def plain_gx(path: Path) -> Iterator[str]:
    """Peer: the whole file as one pandas frame, validated by the suite ``rows`` in one run."""
    import great_expectations as gx

    spec = ValidationSpec(privacy={})
    labels = {name: tuple(values) for name, values in spec.labels.items()}
    with path.open("rb") as stream:
        found = [_plain_candidate(number, line) for number, line in enumerate(stream, 1)]
    frame = row_frame(0, found, [answer_object(item) for item in found], labels)
    context = quiet_context("unused")  # no progress bars
    suite = context.suites.add(gx.ExpectationSuite("rows"))
    for expectation in row_expectations(spec, labels):
        suite.add_expectation(expectation)
    asset = context.data_sources.add_pandas("rows").add_dataframe_asset("rows")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
    if not batch.validate(suite, result_format="COMPLETE").success:
        sys.exit("The suite failed.")
    yield "plain GX on one frame"


def ours(path: Path) -> Iterator[str]:
    """Hash, read, redact, validate and split; then search for leaks. What the assets do."""
    with tempfile.TemporaryDirectory() as folder:
        store = ArtifactStore(Path(folder) / "artifacts")
        raw = sources.observe(RawDatasetSpec(path=str(path)))
        ref = validation.validate(store, raw, ValidationSpec())
        parts = splits.split(store, ref, splits.SplitSpec())
        yield "our validated_dataset and dataset_splits"
        leakage.report(store, parts)
        yield "the same, and no_leakage"


WORK = {work.__name__: work for work in (scan, plain_gx, ours)}


def data() -> None:
    """Rows a second and peak memory of our data stages, beside a bare scan and plain GX."""
    print("\n| rows | what | seconds | of CPU | rows/s | of the scan | peak memory, MiB |")
    print("|---|---|---|---|---|---|---|")
    for rows in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "chats.jsonl"
            write_chats(path, rows)
            measured = [found for name in WORK for found in _measure(name, path)]
        fastest = measured[0]["seconds"]
        for found in measured:
            seconds = found["seconds"]
            print(
                f"| {rows:,} | {found['what']} | {seconds:.1f} | {found['cpu']:.1f}"
                f" | {rows / seconds:,.0f}"
                f" | {fastest / seconds:.4f} | {found['mib']:,.0f} |",
                flush=True,
            )


def _measure(name: str, path: Path) -> list[dict[str, Any]]:
    """Run one piece of work in a process of its own: what it says of its seconds and memory."""
    command = [sys.executable, "-W", "ignore", "-m", __name__, name, str(path)]
    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return [json.loads(line) for line in ended.stdout.splitlines()]


def main(name: str, path: str) -> None:
    """Print seconds and peak memory at each stage of the work; the imports it needs count."""
    started = time.perf_counter()
    for what in WORK[name](Path(path)):
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            json.dumps({"what": what, "seconds": seconds, "cpu": time.process_time(), "mib": peak}),
            flush=True,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
