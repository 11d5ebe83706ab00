"""Validation: every fault gets its reason, and what stops the lineage."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.artifacts import ArtifactStore, LineageError
from mlops_assets.dataset import expectations, formats, sources, validation
from mlops_assets.dataset.records import Record
from mlops_assets.dataset.spec import RawDatasetSpec
from mlops_assets.dataset.synthetic import LABELS
from mlops_assets.refs import read_rows
from mlops_assets_tests.sound_tickets import observed, ticket, validated

ANSWER = {name: values[0] for name, values in LABELS.items()}
BAD_LINES: list[tuple[str, Any]] = [
    ("broken_json", '{"id": "t-1", "mess'),
    ("broken_json", "[1, 2]"),
    ("too_deep", '{"a":' * 30_000),
    ("missing_field", ticket(99, id=None)),
    ("missing_field", ticket(99, customer_id="")),
    ("missing_field", ticket(99, messages="hello")),
    ("missing_field", ticket(99, messages=[{"role": "user"}])),
    ("lone_surrogate", ticket(99, text="half a character \ud83d")),
    ("bad_roles", ticket(99, messages=[{"role": "user", "content": "no answer"}])),
    ("bad_roles", ticket(99, messages=ticket(99)["messages"][::-1])),
    ("bad_roles", ticket(99, messages=[ticket(99)["messages"][0], *ticket(99)["messages"]])),
    ("empty_text", ticket(99, text=" \n")),
    ("oversize_text", ticket(99, text="long " * 1000)),
    ("bad_timestamp", ticket(99, timestamp="yesterday")),
    ("bad_timestamp", ticket(99, timestamp="1969-01-01T00:00:00Z")),
    ("bad_timestamp", ticket(99, timestamp="9999-12-31T23:59:59-05:00")),
    ("bad_answer", ticket(99, reply="billing")),
    ("bad_answer", ticket(99, reply=json.dumps(ANSWER | {"mood": "bad"}))),
    ("bad_answer", ticket(99, reply='{"queue":"billing"}')),
    # One field, named as the three of the answer would be if commas joined them.
    ("bad_answer", ticket(99, reply=json.dumps({",".join(sorted(ANSWER)): "billing"}))),
    ("bad_answer", ticket(99, reply=json.dumps(ANSWER)[:-1] + ', "queue": "returns"}')),
    ("wrong_label", ticket(99, reply=json.dumps(ANSWER | {"queue": "Billing"}))),
    ("wrong_label", ticket(99, reply=json.dumps(ANSWER | {"priority": 1}))),
    ("duplicate_id", ticket(99, id="t-5")),
    ("duplicate_text", ticket(99, text="  QUESTION number 5\tabout something")),
]


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "home" / "artifacts")


def test_same_data_gives_the_same_artifact(store: ArtifactStore, tmp_path: Path) -> None:
    lines = [ticket(number) for number in range(48)] + ["{broken"]
    other = ArtifactStore(tmp_path / "elsewhere" / "artifacts")
    first, second = validated(store, tmp_path, lines), validated(other, tmp_path, lines)
    assert first.artifact.digest == second.artifact.digest
    again = validated(store, tmp_path, lines)
    assert again == first
    assert again.artifact.reused


def test_each_fault_gets_its_reason(store: ArtifactStore, tmp_path: Path) -> None:
    good = [ticket(number) for number in range(72)]
    bad = [
        line | {"id": f"bad-{at}"} if isinstance(line, dict) and line["id"] == "t-99" else line
        for at, (_, line) in enumerate(BAD_LINES)
    ]
    ref = validated(store, tmp_path, good + bad)
    text = (store.path(ref.artifact) / "quarantine.jsonl").read_text(encoding="utf-8")
    found = {line["line"]: line["reason"] for line in map(json.loads, text.splitlines())}
    expected = {73 + at: reason for at, (reason, _) in enumerate(BAD_LINES)}
    assert found == expected
    assert ref.rows == 72


def test_answers_are_written_in_the_order_of_the_fields(
    store: ArtifactStore, tmp_path: Path
) -> None:
    lines = [ticket(number) for number in range(24)]
    shuffled = json.dumps(dict(reversed(ANSWER.items())), indent=1)
    ref = validated(store, tmp_path, [ticket(24, reply=shuffled), *lines])
    first = next(read_rows(store.path(ref.artifact) / "rows.jsonl"))
    assert first.answer == '{"queue":"billing","priority":"low","product":"laptop"}'
    assert first.slices == {"channel": "email", "product": "laptop", "language_style": "plain"}


def test_vocabulary_can_come_from_the_data(store: ArtifactStore, tmp_path: Path) -> None:
    lines = [ticket(n, reply=json.dumps({"topic": "ab"[n % 2]})) for n in range(10)]
    ref = validated(store, tmp_path, lines, labels={"topic": []})
    assert ref.labels == {"topic": ("a", "b")}


@pytest.mark.parametrize(
    ("settings", "lines", "says"),
    [
        ({"min_rows": 100}, range(48), "ExpectTableRowCountToBeBetween: observed 48"),
        ({}, [0] * 48, r"ExpectColumnDistinctValuesToContainSet\(label_queue\)"),
        (
            {"max_imbalance": 0.1},
            [0] * 48 + list(range(24)),
            r"ExpectColumnKlDivergenceToBeLessThan\(label_queue\)",
        ),
    ],
)
def test_failed_expectation_about_the_whole_stops_the_lineage(
    store: ArtifactStore, tmp_path: Path, settings: dict[str, Any], lines: Any, says: str
) -> None:
    rows = [
        ticket(at, reply=ticket(kind)["messages"][1]["content"]) for at, kind in enumerate(lines)
    ]
    with pytest.raises(LineageError, match=says) as caught:
        validated(store, tmp_path, rows, **settings)
    pages = [Path(word.rstrip(",")) for word in str(caught.value).split() if "/reports/" in word]
    assert [path.name for path in pages] == ["index.html", "quarantine.jsonl"]
    assert all(path.is_file() for path in pages)
    assert not list(store.root.rglob("manifest.json"))


def test_too_many_quarantined_rows_stop_the_lineage(store: ArtifactStore, tmp_path: Path) -> None:
    rows: list[Any] = [ticket(number) for number in range(48)] + ["{broken ann@example.com"] * 12
    with pytest.raises(LineageError, match=r"12 of 60 rows \(20\.0%\).*12 broken_json") as caught:
        validated(store, tmp_path, rows, max_quarantined_share=0.1)
    assert "quarantine.jsonl" in caught.value.remedy
    kept = "".join(p.read_text() for p in (store.root.parent / "reports").rglob("*.jsonl"))
    assert "[email]" in kept
    assert "ann@" not in kept


@pytest.mark.parametrize("tolerated", [0.1, 1.0])
def test_no_valid_row(store: ArtifactStore, tmp_path: Path, tolerated: float) -> None:
    with pytest.raises(LineageError, match="no row is valid"):
        validated(store, tmp_path, ["{broken", "[]"], max_quarantined_share=tolerated)


def test_data_changed_between_two_assets(store: ArtifactStore, tmp_path: Path) -> None:
    raw = observed(tmp_path, [ticket(1)])
    Path(raw.path).write_text(json.dumps(ticket(2)))
    with pytest.raises(LineageError, match="has changed since"):
        validation.validate(store, raw, expectations.ValidationSpec())


def test_data_changed_while_it_is_read(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = observed(tmp_path, [ticket(number) for number in range(24)])

    def read_and_change(path: Path, *rest: Any) -> Iterator[Record]:
        yield from found(path, *rest)
        Path(raw.path).write_text(json.dumps(ticket(2)))

    found = formats.read
    monkeypatch.setattr(formats, "read", read_and_change)
    with pytest.raises(LineageError, match="has changed since"):
        validation.validate(store, raw, expectations.ValidationSpec(min_rows=1))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        ('{"id": "t"}\n'.encode("utf-16"), "not UTF-8"),
        ('{"id": "t"}\n'.encode("utf-16-le"), "not UTF-8"),
    ],
)
def test_unreadable_file(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "data.jsonl").write_bytes(content)
    with pytest.raises(LineageError, match=says):
        sources.observe(RawDatasetSpec(path=str(tmp_path / "data.jsonl")))


def test_missing_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_DIR", raising=False)
    cases = {
        str(tmp_path / "nothing.jsonl"): "no data at",
        "${NO_SUCH_DIR}/x.jsonl": "NO_SUCH_DIR, which is not set",
        str(tmp_path): "is a directory",
    }
    for path, says in cases.items():
        with pytest.raises(LineageError, match=says):
            sources.observe(RawDatasetSpec(path=path))
    with pytest.raises(LineageError, match=r"train\.csv cannot be read"):
        sources.observe(RawDatasetSpec(path=str(tmp_path), format="labelled_csv"))


def test_keys_that_are_personal_data_become_pseudonyms(
    store: ArtifactStore, tmp_path: Path
) -> None:
    rows = [ticket(n, customer_id=f"ann{n}@example.com") for n in range(24)]
    ref = validated(store, tmp_path, rows)
    groups = {row.group for row in read_rows(store.path(ref.artifact) / "rows.jsonl")}
    assert len(groups) == 24
    assert all(group.startswith("anon-") for group in groups)
