"""People of the loop: who approves, and who labels. They use the commands that everybody uses."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_assets_tests.commands import run_command
from mlops_assets_tests.loop.processes import MARK
from mlops_assets_tests.loop.waiting import NotSeenError

APPROVER = "ada"
Right = Callable[[str], str | None]
"""What a person would answer to a text; None where they cannot say."""


@dataclass(frozen=True)
class People:
    """They know the home, and the profile in force."""

    home: Path
    profile: Path

    def command(self, *words: str) -> str:
        """What an `mlops` command says. Raises NotSeenError when it fails."""
        ended = run_command("mlops", *words, home=self.home, MLOPS_PROFILE=str(self.profile))
        if ended.code:
            raise NotSeenError(
                f"`mlops {' '.join(words)}` ended with {ended.code}.\n{ended.output}"
            )
        return ended.output

    def new_key(self) -> None:
        """The scripted approver's key, and her name on the list."""
        self.command("keys", "new", APPROVER)

    def approve(self, version: int, reason: str) -> None:
        """Say yes, signed."""
        self.command("approve", str(version), "--as", APPROVER, "--reason", reason)

    def label(self, names: Sequence[str], count: int, seed: int, right: Right) -> int:
        """Draw a slice of what users asked and have it labelled, each a part of it; returns how
        many labels were kept. Nobody sees what the model answered."""
        folder = self.home / MARK / f"labels-{names[0]}"
        folder.mkdir(mode=0o700)
        slice_ = folder / "slice.jsonl"
        self.command(
            "label", "draw", "--count", str(count), "--seed", str(seed), "--out", str(slice_)
        )
        lines = [json.loads(line) for line in slice_.read_text().splitlines()]
        kept = 0
        for place, name in enumerate(names):
            filled = [_filled(line, right) for line in lines[place :: len(names)]]
            own = folder / f"{name}.jsonl"
            own.write_text("".join(json.dumps(line) + "\n" for line in filled))
            told = self.command("label", "import", str(own), "--as", name, "--write", "--json")
            kept += int(json.loads(told)["new"])
        return kept


def _filled(line: dict[str, Any], right: Right) -> dict[str, Any]:
    """A line of a slice with its label; left empty where the person cannot say."""
    text = str(line["messages"][-1]["content"])
    answer = right(text)
    return line if answer is None else line | {"label": json.loads(answer)}
