"""The command ``mlops import``: what it shows, what it writes, and how it refuses."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mlops_assets.cli import app
from mlops_assets.dataset import importing, sources
from mlops_assets.dataset.formats import FORMATS
from mlops_assets.dataset.records import FORMS as LINE_FAULTS
from mlops_assets.dataset.records import MISSING, REASONS
from mlops_assets.dataset.spec import RawDatasetSpec
from mlops_assets.privacy import DEFAULT_POLICY, Detector
from mlops_assets.profiles import PROJECT
from mlops_assets_tests.commands import run_command

EMAIL, CARD = "ann.lee@example.com", "4111 1111 1111 1111"


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five sound lines and five that are not, personal data in both."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "chat.jsonl"
    turns = [{"role": "user", "content": f"I am {EMAIL}"}, {"role": "assistant", "content": "Hi"}]
    sound = [
        json.dumps({"channel": "web", "secret": EMAIL, "messages": [turns[0] | {"n": n}, turns[1]]})
        for n in range(5)
    ]
    bad = [
        f'{{"messages": "{CARD}", "messages": 1}}',
        "",
        f'{{"a": NaN, "b": "{EMAIL}"}}',
        f'{{"messages": [], "b": "{EMAIL}"}}',
        f'{{"cut": "\x1b[31m {EMAIL}',
    ]
    path.write_text("\n".join([*sound, *bad]), encoding="utf-8")
    return path


def run(*words: str, code: int = 0) -> str:
    """The command's output, both streams, after its exit code was checked."""
    ended = CliRunner().invoke(app, ["import", *words], catch_exceptions=False)
    assert ended.exit_code == code, ended.output
    return ended.output


def test_a_dry_run_counts_every_line_and_writes_nothing(source: Path) -> None:
    found = json.loads(run(str(source), "--json"))
    assert found["format"] == "messages"
    assert found["accepted"] + found["quarantined"] == 10 == len(source.read_text().split("\n"))
    assert found["reasons"] == {
        "blank_line": 1,
        "duplicate_key": 1,
        "missing_field": 1,
        "not_a_number": 1,
        "truncated_line": 1,
    }
    assert found["redacted_rows"] == {"email": 5}
    assert found["output"] is found["quarantine"] is None
    assert [path.name for path in source.parent.iterdir()] == ["chat.jsonl"]


def test_the_preview_shows_conversations_and_bad_lines(source: Path) -> None:
    shown = run(str(source))
    for words in ("user: I am [email]", "assistant: Hi", "line 6", "duplicate_key", "--write"):
        assert words in shown
    assert "channel, secret" in shown  # fields that are not carried over
    assert EMAIL not in shown
    assert CARD not in shown
    assert "\x1b[31m" not in shown, "a file must not write on the terminal"


def test_written_rows_are_accepted_whole_by_the_next_import(source: Path) -> None:
    told = run(str(source), "--write", "--keep", "channel")
    assert "dvc add data/raw/chat.jsonl" in told
    assert "require_timestamp: false" in told
    rows = Path("data/raw/chat.jsonl")
    quarantine = Path("data/raw/chat.quarantine.jsonl").read_text()
    bad = [json.loads(line) for line in quarantine.splitlines()]
    assert [(line["line"], line["reason"]) for line in bad] == [
        (6, "duplicate_key"),
        (7, "blank_line"),
        (8, "not_a_number"),
        (9, "missing_field"),
        (10, "truncated_line"),
    ]
    both = rows.read_text() + quarantine
    assert EMAIL not in both
    assert CARD not in both
    again = json.loads(
        run(str(rows), "--write", "--output", "again.jsonl", "--keep", "channel", "--json")
    )
    assert (again["accepted"], again["quarantined"]) == (5, 0)
    assert Path("again.jsonl").read_bytes() == rows.read_bytes()


def test_every_part_of_a_row_survives(tmp_path: Path) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    record = {
        "id": "r-1",
        "timestamp": "2026-01-01T00:00:00Z",
        "group": "g",
        "split": "test",
        "lang": "en",
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "u"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "t", "tool_call_id": "c", "name": "f"},
            {"role": "assistant", "content": "a"},
        ],
        "rejected": {"role": "assistant", "content": "b"},
        "tools": [{"type": "function", "function": {"name": "f"}}],
    }
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(record))
    raw = sources.locate(RawDatasetSpec(path=str(path)))
    (row,) = sources.candidates(raw, "group", ["lang"], "label", Detector(DEFAULT_POLICY))
    assert json.loads(json.dumps(importing.canonical(row))) == record


def test_a_table_is_mapped(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("who;q;topic\nann;Where is it?;shipping\n")
    words = ["--map", "prompt=q", "--map", "label=topic", "--map", "group=who"]
    run(str(tmp_path / "data.csv"), *words, "--answer-field", "queue", "--write", "--output",
        str(tmp_path / "rows.jsonl"))  # fmt: skip
    row = json.loads((tmp_path / "rows.jsonl").read_text())
    assert row["messages"][-1]["content"] == '{"queue":"shipping"}'
    assert row["group"] == "ann"


REFUSED: dict[str, tuple[list[str], str]] = {
    "missing": (["nowhere.jsonl"], "There is no file or directory nowhere.jsonl"),
    "unknown format": (["chat.jsonl", "--format", "xml"], "Choose one of auto, messages"),
    "unknown name": (["chat.jsonl", "--map", "question=prompt"], "is none of our names"),
    "no mapping": (["chat.jsonl", "--map", "prompt"], "is not ours=theirs"),
    "no such field": (["chat.jsonl", "--map", "id=number"], "has no field 'number'"),
    "not to be kept": (["chat.jsonl", "--keep", "mood"], "The field 'mood' cannot be kept"),
    "in the way": (["chat.jsonl", "--write", "--output", "there.jsonl"], "is there already"),
    "the source": (
        ["chat.jsonl", "--write", "--force", "--output", "chat.jsonl"],
        "is the source itself",
    ),
    "inside the source": (
        ["shards", "--write", "--output", "shards/new.jsonl"],
        "is inside the source",
    ),
    "through a link": (
        ["linked/shards", "--write", "--force", "--output", "shards/a.jsonl"],
        "is inside the source",
    ),
    "no place": (
        ["chat.jsonl", "--write", "--output", "there.jsonl/new.jsonl"],
        "could not be brought to there.jsonl/new.jsonl",
    ),
    "no row": (["latin.jsonl", "--write", "--output", "new.jsonl"], "iconv -f latin1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_one_sentence(source: Path, case: str) -> None:
    Path("there.jsonl").write_text("mine")
    Path("latin.jsonl").write_bytes("Gr\u00fc\u00dfe\n".encode("latin-1") * 3)
    Path("shards").mkdir()
    shutil.copy(source, "shards/a.jsonl")
    Path("linked").symlink_to(Path())
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    words, says = REFUSED[case]
    told = run(*words, code=1)
    assert told.startswith("Error: ")
    assert says in told
    assert len(told.strip().splitlines()) == 1
    after = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    assert after == before


def test_force_replaces_the_output(source: Path) -> None:
    Path("there.jsonl").write_text("mine")
    run(str(source), "--write", "--output", "there.jsonl", "--force")
    assert len(Path("there.jsonl").read_text().splitlines()) == 5


def test_a_path_is_no_markup(source: Path) -> None:
    told = run(str(source), "--write", "--output", "[bold]/[x].jsonl")
    assert "Wrote [bold]/[x].jsonl and [bold]/[x].quarantine.jsonl." in " ".join(told.split())


def test_the_real_command(source: Path, home: Any) -> None:
    found = run_command("mlops", "import", str(source), "--json", home=home.root).json
    assert (found["accepted"], found["quarantined"]) == (5, 5)


def test_reasons_and_formats_are_documented() -> None:
    page = (PROJECT / "docs" / "data.md").read_text()
    for names, header in (([*LINE_FAULTS, MISSING], "reason"), (FORMATS, "format")):
        table = page.split(f"| {header} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
        assert [line.split("`")[1] for line in table] == list(names)
    assert all(f"`{reason}`" in page for reason in REASONS)
    told = run("--help")
    assert all(name in told for name in FORMATS)
