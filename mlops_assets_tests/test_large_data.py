"""Validation in chunks: the same verdict whatever the chunks, in memory that does not grow."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mlops_assets.artifacts import ArtifactStore, LineageError
from mlops_assets.dataset import sources, validation
from mlops_assets.dataset.expectations import ValidationSpec
from mlops_assets.dataset.spec import RawDatasetSpec
from mlops_assets.dataset.synthetic import tickets_lines
from mlops_assets.refs import ValidatedRef, read_rows

FREE = {"labels": {}, "slices": [], "require_timestamp": False, "min_rows": 1}


def written(folder: Path, lines: list[str]) -> Path:
    path = folder / "data.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def validated(folder: Path, lines: list[str], name: str = "a", **settings: Any) -> ValidatedRef:
    raw = sources.observe(RawDatasetSpec(path=str(written(folder, lines))))
    store = ArtifactStore(folder / name / "artifacts")
    return validation.validate(store, raw, ValidationSpec(**settings))


def directory(folder: Path, ref: ValidatedRef, name: str = "a") -> Path:
    return ArtifactStore(folder / name / "artifacts").path(ref.artifact)


def chat(number: int, text: str, reply: str) -> str:
    return json.dumps(
        {
            "id": f"t-{number}",
            "customer_id": f"c-{number}",
            "messages": [
                {"role": "user", "content": text},
                {"role": "assistant", "content": reply},
            ],
        }
    )


def test_chunks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = list(tickets_lines(600, 3))
    whole = directory(tmp_path, validated(tmp_path, lines))
    monkeypatch.setattr(validation, "CHUNK_ROWS", 70)
    parts = directory(tmp_path, validated(tmp_path, lines, "b"), "b")
    names = {path.relative_to(whole) for path in whole.rglob("*") if path.is_file()}
    assert names == {path.relative_to(parts) for path in parts.rglob("*") if path.is_file()}
    # The pages show samples of bad values, which of many depends on the chunks; the rest not.
    for name in sorted(names - {Path("manifest.json")}):
        if name.suffix != ".html" or "rows" not in name.name:
            assert (whole / name).read_bytes() == (parts / name).read_bytes(), name


def test_what_is_tolerated_is_judged_over_all_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk of nothing but broken lines is 5% of the whole; 5 chunks of them are 25%."""
    monkeypatch.setattr(validation, "CHUNK_ROWS", 10)
    good = [chat(number, f"question {number}", "answer") for number in range(190)]
    ref = validated(tmp_path, [*good, *["{broken"] * 10], **FREE)
    assert ref.quarantined == {"broken_json": 10}
    with pytest.raises(LineageError, match=r"ExpectColumnValuesToBeInSet\(form\).*50 rows, 20\.8%"):
        validated(tmp_path, [*good, *["{broken"] * 50], **FREE)


@pytest.mark.parametrize("limit", ["CHUNK_ROWS", "CHUNK_BYTES"])
def test_chunks_are_bounded(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(validation, limit, 4)
    found = [sources.Candidate("f", number, "x", size=1) for number in range(10)]
    assert [len(chunk) for chunk in validation.chunks(found)] == [4, 4, 2]


def test_free_text_answers(tmp_path: Path) -> None:
    """The same question may have two answers; the same conversation twice is a duplicate."""
    lines = [chat(number, f"question {number}", f"answer {number}") for number in range(20)]
    lines += [chat(20, "Question  1", "another answer"), chat(21, "question 2", "answer 2")]
    ref = validated(tmp_path, lines, **FREE)
    assert ref.quarantined == {"duplicate_text": 1}
    assert ref.labels == {}
    assert ref.artifact.summary["contradicted"] == 2
    rows = list(read_rows(directory(tmp_path, ref) / "rows.jsonl"))
    assert [row.answer for row in rows][-2:] == ["answer 19", "another answer"]
    assert not (directory(tmp_path, ref) / "class_balance.png").exists()


def test_contradictions_are_tolerated_to_a_share(tmp_path: Path) -> None:
    lines = [chat(n, f"question {n}", json.dumps({"topic": "ab"[n % 2]})) for n in range(38)]
    lines += [chat(n, f"question {n}", json.dumps({"topic": "ba"[n % 2]})) for n in (1, 2)]
    settings = FREE | {"labels": {"topic": []}, "max_quarantined_share": 0.5}
    lines[-2:] = [line.replace("t-", "u-") for line in lines[-2:]]
    ref = validated(tmp_path, lines, max_contradictory_share=0.1, **settings)
    assert ref.artifact.summary["contradicted"] == 4
    assert ref.quarantined == {"duplicate_text": 2}
    with pytest.raises(LineageError, match=r"\(contradicted\): observed 4 rows, 10\.0%"):
        validated(tmp_path, lines, max_contradictory_share=0.09, **settings)


def test_slices_need_their_rows(tmp_path: Path) -> None:
    lines = list(tickets_lines(300, 3))
    rows = {"channel": {"chat": 0, "email": 0, "web": 0}}
    ref = validated(tmp_path, lines, slices=["channel"])
    for row in read_rows(directory(tmp_path, ref) / "rows.jsonl"):
        rows["channel"][row.slices["channel"]] += 1
    counted = [["channel", value, count] for value, count in rows["channel"].items()]
    assert ref.artifact.summary["slices"] == counted
    fewest = min(counted, key=lambda item: item[2])
    says = f"the slice channel={fewest[1]} has {fewest[2]} rows, {fewest[2] + 1} is the fewest"
    with pytest.raises(LineageError, match=says):
        validated(tmp_path, lines, slices=["channel"], min_rows_per_slice=fewest[2] + 1)


def test_a_text_is_not_lost_with_a_row_that_is_set_aside(tmp_path: Path) -> None:
    lines = [
        chat(0, "where is my parcel", "A"),
        chat(0, "the door is stuck", "B"),  # a second t-0
        chat(1, "the door is stuck", "B"),
        chat(2, "The door  is stuck", "B"),
    ]
    ref = validated(tmp_path, lines, **FREE | {"max_quarantined_share": 1})
    assert [row.id for row in read_rows(directory(tmp_path, ref) / "rows.jsonl")] == ["t-0", "t-1"]
    assert ref.quarantined == {"duplicate_id": 1, "duplicate_text": 1}


def test_fields_that_differ_in_case_only_are_refused() -> None:
    with pytest.raises(ValidationError, match="upper and lower case"):
        ValidationSpec(labels={"queue": ["a"], "Queue": ["a"]})


MEASURE = """
import resource, sys
from pathlib import Path
from mlops_assets.artifacts import ArtifactStore
from mlops_assets.dataset import leakage, sources, splits, validation
from mlops_assets.dataset.spec import RawDatasetSpec
from mlops_assets.dataset.expectations import ValidationSpec

validation.CHUNK_ROWS = 1000
for name in sys.argv[2:]:
    folder = Path(sys.argv[1])
    raw = sources.observe(RawDatasetSpec(path=str(folder / name)))
    store = ArtifactStore(folder / "artifacts")
    ref = validation.validate(store, raw, ValidationSpec())
    parts = splits.split(store, ref, splits.SplitSpec())
    leakage.report(store, parts)
    print(ref.rows_in, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """Ten times the rows: in one chunk they would take some 60 MiB more."""
    from mlops_assets_tests.bench_data import write_chats

    for rows in (2_000, 20_000):
        write_chats(tmp_path / f"{rows}.jsonl", rows)
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEASURE, str(tmp_path), "2000.jsonl", "20000.jsonl"],
        capture_output=True,
        text=True,
        check=True,
    )
    (few, before), (many, after) = (map(int, line.split()) for line in ended.stdout.splitlines())
    assert (few, many) == (2_000, 20_000)
    assert after - before < 35
