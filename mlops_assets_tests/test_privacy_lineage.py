"""Personal data is planted wherever a source can hold it, then looked for wherever we write."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import dagster as dg
import pytest
from typer.testing import CliRunner

from mlops_assets import cli
from mlops_assets.dataset.defs import defs as dataset_defs
from mlops_assets.home import Home
from mlops_assets.privacy import DEFAULT_POLICY
from mlops_assets.resources import Workspace
from mlops_assets_tests.planted import LETTERS, MAKERS, token

ROWS = {"rows.jsonl", "train.jsonl", "validation.jsonl", "test.jsonl"}
SETTINGS = {
    "labels": {},
    "slices": ["channel"],
    "require_timestamp": False,
    "min_rows": 10,
    "max_quarantined_share": 0.9,
}


@dataclass
class Planted:
    """A source, and each value in it by the entity that it is."""

    dice: Random
    lines: list[str] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)

    def value(self, entity: str) -> str:
        """A new value that can be told without words beside it."""
        while True:
            value = MAKERS[entity](self.dice)
            if not value.isdigit() and value not in self.values:
                self.values[value] = entity
                return value

    def row(self, **changes: Any) -> dict[str, Any]:
        number = len(self.lines)
        words = [token(self.dice, 7, LETTERS.lower()) for _ in range(12)]
        turns = [
            {"role": "user", "content": " ".join(words)},
            {"role": "assistant", "content": f"Answer {number}, {' '.join(reversed(words))}."},
        ]
        row = {"id": f"t-{number}", "customer_id": f"c-{number}", "channel": "web"}
        return row | {"messages": turns} | changes

    def add(self, row: dict[str, Any] | str) -> None:
        self.lines.append(row if isinstance(row, str) else json.dumps(row))


def talk(text: str, answer: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]


def plant(planted: Planted, entity: str) -> None:
    """One row for each place where a value can stand, sound rows and bad ones."""
    filler = token(planted.dice, 9, LETTERS.lower())

    def said() -> str:
        shown = planted.value(entity)
        shown = f"https://{shown}@h/x" if entity == "credentials" else shown
        return f"{token(planted.dice, 8, LETTERS.lower())} {filler}:\n{shown} ."

    call = {"name": "look_up", "arguments": json.dumps({"key": said()})}
    turns = [
        {"role": "system", "content": said()},
        {"role": "user", "content": said()},
        {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": call}]},
        {"role": "tool", "tool_call_id": "1", "name": said(), "content": said()},
        {"role": "assistant", "content": said()},
    ]
    schema = {"type": "function", "function": {"name": "look_up", "description": said()}}
    planted.add(planted.row(messages=turns, tools=[schema]))
    planted.add(planted.row(rejected=said()))
    planted.add(planted.row(id=said()))
    planted.add(planted.row(customer_id=said()))
    planted.add(planted.row(channel=said()))
    # What follows is set aside.
    planted.add(json.dumps(planted.row(messages=talk(said(), "yes")))[:-3])
    planted.add(json.dumps(planted.row(messages=talk(said(), "yes")))[:-3].replace("@", "\\u0040"))
    planted.add(planted.row(messages=talk(said(), "yes"), id=None))
    planted.add(planted.row(messages=talk(said() * 90, "yes")))
    planted.add(planted.row(messages=[{"role": said(), "content": said()}, *talk("?", "yes")]))
    same = talk(said(), "yes")
    planted.add(planted.row(messages=same))
    planted.add(planted.row(messages=same))


@pytest.fixture
def planted() -> Planted:
    planted = Planted(Random(5))
    for entity in MAKERS:
        plant(planted, entity)
    for _ in range(120):
        planted.add(planted.row())
    return planted


def leaks(planted: Planted, text: str) -> set[str]:
    """The entities of which a value stands in ``text``, of a key block its inner line."""
    found = {max(value.split("\n"), key=len) for value in planted.values}
    assert all(len(piece) > 5 for piece in found)
    return {
        entity
        for value, entity in planted.values.items()
        if max(value.split("\n"), key=len) in text
    }


def written(home: Path) -> Iterator[tuple[str, str]]:
    """Name and content of every file, Dagster's event log among them."""
    for path in home.rglob("*"):
        if path.is_file():
            yield path.name, path.read_bytes().decode("utf-8", "replace")


def materialize(home: Home, source: Path, policy: dict[str, str]) -> dg.ExecuteInProcessResult:
    config = {
        "raw_dataset": {"path": str(source)},
        "validated_dataset": SETTINGS | {"privacy": policy},
    }
    folder = home.root / "dagster"
    folder.mkdir()
    with dg.DagsterInstance.local_temp(str(folder)) as instance:
        return dg.materialize(
            [*dataset_defs.assets, *dataset_defs.asset_checks],  # type: ignore[misc, list-item]
            instance=instance,
            resources={"workspace": Workspace()},
            run_config={"ops": {op: {"config": values} for op, values in config.items()}},
        )


@pytest.mark.parametrize("action", ["redact", "flag", "block"])
def test_no_value_is_written_but_where_the_policy_says(
    action: str,
    planted: Planted,
    home: Home,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    source = tmp_path / "source.jsonl"
    source.write_text("\n".join(planted.lines) + "\n", encoding="utf-8")
    assert leaks(planted, source.read_text(encoding="utf-8").replace("\\u0040", "@"))
    with caplog.at_level(logging.DEBUG):
        result = materialize(home, source, dict.fromkeys(DEFAULT_POLICY, action))
    assert result.success
    shown = capfd.readouterr()
    assert not leaks(planted, caplog.text + shown.out + shown.err)
    files = list(written(home.root))
    assert {"quarantine.jsonl", "index.html", *ROWS} <= {name for name, _ in files}
    assert any("ASSET_MATERIALIZATION" in text for _, text in files)
    for name, text in files:
        if action != "flag" or name not in ROWS:
            assert not leaks(planted, text), name
    ref = result.output_for_node("validated_dataset")
    summary = ref.artifact.summary
    assert ref.rows_in == len(planted.lines)
    if action == "block":
        assert ref.quarantined["personal_data"] >= 3 * len(MAKERS)
        assert summary["redacted_rows"] == summary["flagged_rows"] == {}
        return
    kept = {"redact": "redacted_rows", "flag": "flagged_rows"}[action]
    assert set(summary[kept]) == set(MAKERS)
    rows = (home.store.path(ref.artifact) / "rows.jsonl").read_text(encoding="utf-8")
    if action == "flag":
        assert leaks(planted, json.dumps(rows) + rows) == set(MAKERS)
        lines = (home.store.path(ref.artifact) / "flagged.jsonl").read_text().splitlines()
        assert len(lines) >= 3 * len(MAKERS)
        assert all(set(json.loads(line)) == {"line", "file", "entities"} for line in lines)
    else:
        assert all(f"[{entity}]" in rows for entity in MAKERS)


def test_an_import_shows_and_writes_no_value(planted: Planted, tmp_path: Path) -> None:
    source, target = tmp_path / "source.jsonl", tmp_path / "imported"
    source.write_text("\n".join(planted.lines) + "\n", encoding="utf-8")
    target.mkdir()
    for options in ((), ("--json",), ("--write", "--output", str(target / "rows.jsonl"))):
        command = ["import", str(source), "--keep", "channel", "--map", "group=customer_id"]
        ended = CliRunner().invoke(cli.app, [*command, *options])
        assert ended.exit_code == 0, ended.output
        assert not leaks(planted, ended.output)
    names = {name for name, _ in written(target)}
    assert names == {"rows.jsonl", "rows.quarantine.jsonl"}
    assert not any(leaks(planted, text) for _, text in written(target))
