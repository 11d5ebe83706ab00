"""How far the judge agrees with people: Cohen's kappa on answers that people have scored."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlops_assets.artifacts import LineageError
from mlops_assets.evaluation.judge_questions import Rubric
from mlops_assets.metrics import Interval, wilson


class Labelled(BaseModel):
    """One answer and the level that a person gave it; a line of the calibration file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(min_length=1)
    messages: tuple[dict[str, Any], ...] = Field(min_length=1)
    """The conversation before the answer, as in the OpenAI chat format."""
    reference: str
    answer: str
    human: int = Field(strict=True)
    """The level of the rubric that the person chose."""
    by: str = Field(min_length=1)
    """Who scored it: a name or a role."""


@dataclass(frozen=True)
class Agreement:
    """Judge and people on the same answers."""

    items: int
    observed: float
    """Share of answers with the same level from both."""
    kappa: float | None
    """None where chance alone would make them agree: all levels are one."""
    interval: Interval | None
    """95%."""
    table: tuple[tuple[int, ...], ...]
    """Answers by the person's level (rows) and the judge's (columns), from level 1."""


def read_calibration(path: Path, rubric: Rubric) -> list[Labelled]:
    """The labelled answers of a JSONL file. Raises LineageError that names the bad line."""
    try:
        lines = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise LineageError(
            f"The calibration set {path} cannot be read.",
            "Set judge_calibration to a file of answers that people scored: docs/judge.md.",
        ) from error
    found = [_labelled(path, i, line) for i, line in enumerate(lines, 1) if line.strip()]
    twice = len({item.id for item in found}) < len(found)
    strange = [item.id for item in found if not 1 <= item.human <= rubric.best]
    if not found or twice or strange:
        problem = (
            "holds no line"
            if not found
            else f"scores {strange[0]} outside the rubric's levels 1 to {rubric.best}"
            if strange
            else "has an id twice"
        )
        raise LineageError(f"The calibration set {path} {problem}.", "Correct it.")
    return found


def _labelled(path: Path, number: int, line: str) -> Labelled:
    try:
        return Labelled.model_validate(json.loads(line))
    except (ValueError, ValidationError) as error:
        raise LineageError(
            f"Line {number} of the calibration set {path} is not of its form.",
            "Each line has id, messages, reference, answer, human and by: docs/judge.md.",
        ) from error


def agree(people: Sequence[int], judge: Sequence[int], levels: int) -> Agreement:
    """Cohen's kappa (Cohen 1960) of two raters' levels, each from 1 to ``levels``.

    ``kappa = (p - e) / (1 - e)`` with ``p`` the share of equal levels and ``e`` that share by
    chance. The interval is that of ``p`` by Wilson's score (1927), put into the same formula with
    ``e`` as measured, as Cohen's own standard error takes it. Unlike the usual one of a normal
    distribution it does not shrink to nothing when a small set agrees in full.
    """
    pairs = list(zip(people, judge, strict=True))
    table = [[pairs.count((a, b)) for b in range(1, levels + 1)] for a in range(1, levels + 1)]
    count = len(pairs)
    equal = sum(table[i][i] for i in range(levels))
    rows, columns = (
        [sum(row) for row in table],
        [sum(column) for column in zip(*table, strict=True)],
    )
    chance = sum(a * b for a, b in zip(rows, columns, strict=True)) / count**2 if count else 1.0
    bounds = wilson(equal, count)
    shown = tuple(tuple(row) for row in table)
    if bounds is None or chance >= 1.0:
        return Agreement(count, equal / count if count else 0.0, None, None, shown)
    kappa, low, high = ((p - chance) / (1 - chance) for p in (equal / count, *bounds))
    return Agreement(count, equal / count, kappa, (low, high), shown)
