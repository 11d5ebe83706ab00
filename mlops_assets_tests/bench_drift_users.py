"""How often the drift verdict is wrong where few users ask most of the requests.

python -m mlops_assets_tests.bench drift

Users each keep to a kind of their own, with all or with half of their requests. Nothing changes
but who they are: an alarm is false. Beside it stands what would have been said, had each request
been taken for one of another user. All users ask as often, but where they ask unevenly: there the
nth asks 1/n as often as the first.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from mlops_assets.monitoring.drift.design_effect import Users, count, design_effects
from mlops_assets.monitoring.drift.embedding import embedding_finding
from mlops_assets.monitoring.drift.features import CATEGORICAL, NUMERIC, Column
from mlops_assets.monitoring.drift.findings import DATA, DRIFT, Finding, decide
from mlops_assets.monitoring.drift.sketches import sketch
from mlops_assets.monitoring.drift.spec import DriftSpec
from mlops_assets.monitoring.drift.verdict import compare
from mlops_assets_tests.drift_windows import Drawn, Meanings, World

SPEC, FAMILY = DriftSpec(), 12
"""So many columns share ``alpha``, as in the report on the shipped generator."""
CROWDS, LOYALTIES = (20, 50, 100, 200, 1_000), (1.0, 0.5)
SIZES, POWER_SIZES, UNEVEN_SIZE = (100, 200, 1_000, 10_000), (200, 1_000), 1_000
WINDOWS = 100
MOVED = 0.3
"""Share of every user's requests that change where drift is to be found."""
REFERENCE = 5_000
VERDICT_SIZES, VERDICT_WINDOWS, SHIFTED = (200, 1_000), 50, 20
OWN = "slice_channel", "predicted_queue"
"""A user of the shipped generator keeps to one of each: a channel, and a queue that answers."""


class Alarms(NamedTuple):
    """Whether a window raised the alarm: by the report, and had no two requests one user."""

    corrected: bool
    independent: bool


def one_column() -> None:
    """Print the false alarms of one column, and how often it finds a shift of all users.

    In each cell first what would have been, had requests been independent, then what is.
    """
    for kind in (CATEGORICAL, NUMERIC):
        for moved in (0.0, MOVED):
            changed = f"{moved:.0%} of each user's requests changed" if moved else "nothing changed"
            _table(f"one {kind} column, {changed}", kind, moved)


def _table(title: str, kind: str, moved: float) -> None:
    _head(title)
    sizes = POWER_SIZES if moved else SIZES
    rows = [(size, False) for size in sizes] + [(UNEVEN_SIZE, True)]
    for size, uneven, loyal in [(*row, loyal) for row in rows for loyal in LOYALTIES]:
        cells = [
            _cell(
                [
                    column_alarm(kind, users, size, loyal, moved, seed, uneven=uneven)
                    for seed in range(WINDOWS)
                ]
            )
            for users in CROWDS
            if users <= size
        ]
        _line(_said(size, loyal) + ", uneven" * uneven, cells)


def _said(size: int, loyal: float) -> str:
    return f"{size:,} requests, {loyal:.0%} of the user's kind"


def _head(title: str) -> None:
    print(f"\n{title[:1].upper()}{title[1:]}\n\n| | {' | '.join(f'{n:,}' for n in CROWDS)} users |")
    print("|---" * (len(CROWDS) + 1) + "|")


def _line(said: str, cells: Sequence[str]) -> None:
    filled = [*cells, *[""] * (len(CROWDS) - len(cells))]
    print(f"| {said} | {' | '.join(filled)} |", flush=True)


def _cell(alarms: Sequence[Alarms]) -> str:
    shares = np.mean(alarms, axis=0)
    return f"{shares[1]:.0%} → {shares[0]:.1%}"


def column_alarm(
    kind: str,
    users: int,
    size: int,
    loyal: float,
    moved: float,
    seed: int,
    *,
    uneven: bool = False,
) -> Alarms:
    """One window of one column, of four classes or of numbers."""
    dice = np.random.default_rng(seed)
    column = Column("asked", DATA, kind)
    draw = _classes if kind == CATEGORICAL else _numbers
    before = draw(np.arange(REFERENCE), loyal, 0.0, dice)
    asked_by = _unevenly(users, size, dice) if uneven else np.arange(size) % users
    now = draw(asked_by, loyal, moved, dice)
    sides = [{column.name: values.tolist()} for values in (before, now)]
    sketches = [sketch([column], values) for values in sides]
    drawn = dice.permutation(size)[: SPEC.sample_rows]
    design = design_effects(
        [column],
        pa.table(sides[0]),
        pa.table({"user": asked_by[drawn], column.name: now[drawn]}),
        _users(asked_by),
    )
    found = (compare([column], *sketches, SPEC, effects)[0] for effects in (design, {}))
    return Alarms(*(_alarm(each) for each in found))


def _unevenly(users: int, size: int, dice: np.random.Generator) -> np.ndarray:
    often = 1 / np.arange(1, users + 1)
    return dice.choice(users, size, p=often / often.sum())


def _alarm(finding: Finding) -> bool:
    return finding.effect >= finding.min_effect and finding.p < SPEC.alpha / FAMILY


def _classes(
    asked_by: np.ndarray, loyal: float, moved: float, dice: np.random.Generator
) -> np.ndarray:
    """Each user's own one of four classes, or any; what has moved is of the first."""
    asked = dice.integers(4, size=len(asked_by))
    own = dice.integers(4, size=asked_by.max() + 1)[asked_by]
    asked = np.where(dice.random(len(asked)) < loyal, own, asked)
    return np.where(dice.random(len(asked)) < moved, 0, asked).astype(str)


def _numbers(
    asked_by: np.ndarray, loyal: float, moved: float, dice: np.random.Generator
) -> np.ndarray:
    """Lengths, log-normal: ``loyal`` is how much of their variance is the users'; what has moved
    is three times as long."""
    own = dice.normal(size=asked_by.max() + 1)[asked_by]
    each = dice.normal(size=len(asked_by))
    lengths = np.exp(3 + 0.6 * (np.sqrt(loyal) * own + np.sqrt(1 - loyal) * each))
    return np.where(dice.random(len(each)) < moved, 3 * lengths, lengths)


def _users(asked_by: np.ndarray) -> Users:
    return count(pa.array(asked_by.astype(np.uint64)))


def whole_verdicts(world: World, rows: int) -> None:
    """Print the false alarms on the shipped generator, of all columns together and of the
    embedding alone."""
    drawn = [world.draw(rows, seed) for seed in range(VERDICT_WINDOWS)]
    lines = []
    for size, loyal in [(size, loyal) for size in VERDICT_SIZES for loyal in LOYALTIES]:
        windows = [
            [verdict_alarms(each, users, size, loyal) for each in drawn]
            for users in CROWDS
            if users <= size
        ]
        lines.append((_said(size, loyal), windows))
    for number, name in enumerate(("the whole verdict", "request_embedding alone")):
        _head(f"{name}, nothing changed")
        for said, windows in lines:
            _line(said, [_cell([alarms[number] for alarms in each]) for each in windows])


def shifted_texts(world: World) -> None:
    """Print how often the embedding alone finds a shift of all users."""
    _head(f"request_embedding alone, {MOVED:.0%} of each user's requests shifted")
    size = VERDICT_SIZES[-1]
    for loyal in LOYALTIES:
        found = [
            np.mean([text_alarm(world, users, size, loyal, seed) for seed in range(SHIFTED)])
            for users in CROWDS
        ]
        _line(_said(size, loyal), [f"{share:.0%}" for share in found])


def verdict_alarms(drawn: Drawn, users: int, size: int, loyal: float) -> tuple[Alarms, Alarms]:
    """One window of all columns, and its embedding alone, of texts that were encoded."""
    world, dice = drawn.world, drawn.dice
    assert world.meanings is not None
    asked_by = dice.permutation(np.arange(size) % users)
    rows = _rows_of_users(world, asked_by, loyal, dice)
    asked = dice.permutation(size)[: SPEC.embedding_rows]
    before = _reference_texts(world.meanings, dice)
    now = world.meanings.calm[rows[asked]]
    texts = [_text(before, now, users_of) for users_of in (asked_by[asked], None)]
    found = _findings(drawn, world.production.take(rows, drawn.frequency, own=0), asked_by)
    whole = (decide([*each, text], SPEC.alpha) for each, text in zip(found, texts, strict=True))
    return (
        Alarms(*(verdict.verdict == DRIFT for verdict in whole)),
        Alarms(*(_alarm(text) for text in texts)),
    )


def text_alarm(world: World, users: int, size: int, loyal: float, seed: int) -> bool:
    """One window of texts, of which some of every user's are of the shifted mix."""
    dice = np.random.default_rng(seed)
    assert world.meanings is not None
    asked_by = dice.permutation(np.arange(size) % users)[: SPEC.embedding_rows]
    calm = world.meanings.calm[_rows_of_users(world, asked_by, loyal, dice)]
    shifted = world.meanings.shifted[dice.choice(len(world.shifted_texts), len(asked_by))]
    moved = dice.random((len(asked_by), 1)) < MOVED
    before = _reference_texts(world.meanings, dice)
    return _alarm(_text(before, np.where(moved, shifted, calm), asked_by))


def _findings(
    drawn: Drawn, now: dict[str, list[Any]], asked_by: np.ndarray
) -> Iterator[list[Finding]]:
    """Those of the columns: as the report has them, and had no two requests one user."""
    columns = drawn.world.known.columns
    rows = drawn.dice.permutation(len(asked_by))[: SPEC.sample_rows]
    sample = {name: [values[row] for row in rows] for name, values in now.items()}
    design = design_effects(
        columns,
        pa.table(dict(drawn.values)),
        pa.table({"user": asked_by[rows], **sample}),
        _users(asked_by),
    )
    sketches = sketch(columns, now)
    for effects in (design, {}):
        yield compare(columns, drawn.reference, sketches, SPEC, effects)


def _reference_texts(meanings: Meanings, dice: np.random.Generator) -> np.ndarray:
    return meanings.calm[dice.permutation(len(meanings.calm))[: SPEC.embedding_rows]]


def _text(before: np.ndarray, now: np.ndarray, users: np.ndarray | None) -> Finding:
    return embedding_finding("request_embedding", before, now, SPEC.seed, users=users)


def _rows_of_users(
    world: World, asked_by: np.ndarray, loyal: float, dice: np.random.Generator
) -> np.ndarray:
    """A row for each request, of its user's kind or any, of those whose texts were encoded."""
    encoded = len(world.texts)
    labels = list(zip(*(world.production.values[name][:encoded] for name in OWN), strict=True))
    kinds = np.unique(labels, axis=0, return_inverse=True)[1].ravel()
    order, sizes = np.argsort(kinds, kind="stable"), np.bincount(kinds)
    first = np.cumsum(sizes) - sizes
    own = kinds[dice.integers(encoded, size=asked_by.max() + 1)][asked_by]
    alike = order[first[own] + dice.integers(sizes[own])]
    anything = dice.integers(encoded, size=len(asked_by))
    return np.where(dice.random(len(asked_by)) < loyal, alike, anything)
