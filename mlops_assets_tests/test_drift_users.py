"""Drift where few users ask most of the requests: as how many independent ones they count."""

from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import rankdata

from mlops_assets.home import Home
from mlops_assets.monitoring.drift import verdict
from mlops_assets.monitoring.drift.design_effect import (
    add,
    clusters,
    correlation,
    count,
    design_effects,
)
from mlops_assets.monitoring.drift.embedding import embedding_finding
from mlops_assets.monitoring.drift.features import CATEGORICAL, NUMERIC, Column
from mlops_assets.monitoring.drift.findings import DATA
from mlops_assets.monitoring.drift.sketched_log import sketch_log
from mlops_assets.monitoring.drift.sketches import sketch
from mlops_assets.refs import write_jsonl
from mlops_assets.request_record import RequestRecord
from mlops_assets_tests.bench_drift_users import SPEC, column_alarm
from mlops_assets_tests.production_records import LOG, prediction_log, reference_of
from mlops_assets_tests.test_embedding_drift import topics
from mlops_assets_tests.test_sketches import LABELS, train

MIXED = ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("users", "values", "reference", "expected"),
    [
        ("uuvvwwxx", "aabbccdd", MIXED * 9, 1.0),
        ("uvwxuvwx", "aabbccdd", MIXED * 9, 0.0),
        ("uuvvwwxx", "abbccdda", MIXED * 9, 0.0),
        ("uvwxyz", "aaaabb", MIXED, 0.0),  # nobody asks twice
        ("uuvv", "aaaa", ["a"] * 9, 0.0),  # there is but one class
        ("uuvv", "aaaa", MIXED, 1.0),  # both might keep to a class, and to the same by chance
        ("uuuu", "aaaa", MIXED, 1.0),
        ("uuuuuuuu", "abcdabcd", MIXED * 9, 0.0),
        ("uuvv", [1.0, 1.0, 9.0, 9.0], [1.0, 9.0], 1.0),
        ("uuvv", [1.0, 9.0, 1.0, 9.0], [1.0, 9.0], 0.0),
        ("", "", MIXED, 0.0),
        ("uu", "ab", [], 0.0),
    ],
)
def test_how_alike_the_requests_of_one_user_are(
    users: str, values: Any, reference: Any, expected: float
) -> None:
    kind = pa.float64() if isinstance(values, list) else pa.string()
    sides = pa.array(list(values), kind), pa.array(reference)
    assert correlation(np.array(list(map(ord, users)), int), *sides) == pytest.approx(expected)


@pytest.mark.parametrize("kind", [NUMERIC, CATEGORICAL])
def test_pairs_are_counted_as_if_one_by_one(kind: str) -> None:
    dice = np.random.default_rng(0)
    users = dice.integers(5, size=60)
    asked = np.where(dice.random(60) < 0.7, users, dice.integers(9, size=60))
    values = rankdata(asked) if kind == NUMERIC else asked
    apart: dict[bool, list[float]] = {True: [], False: []}
    for one, two in combinations(range(60), 2):
        far = abs(values[one] - values[two]) if kind == NUMERIC else values[one] != values[two]
        apart[bool(users[one] == users[two])].append(far)
    given = pa.array(asked.astype(float) if kind == NUMERIC else asked.astype(str).tolist())
    expected = 1 - np.mean(apart[True]) / np.mean(apart[False])
    assert expected > 0.2
    assert correlation(users, given, pa.array([], pa.null())) == pytest.approx(expected)


COLUMNS = [Column("length", DATA, NUMERIC), Column("channel", DATA, CATEGORICAL)]


def values(seed: int, count: int) -> dict[str, list[Any]]:
    dice = np.random.default_rng(seed)
    channel = dice.choice(list("abc"), count)
    return {"length": dice.normal(channel == "a", 1).tolist(), "channel": channel.tolist()}


@pytest.mark.parametrize("named", [True, False])
def test_where_nobody_asks_twice_nothing_changes(named: bool) -> None:
    before, now = values(0, 900), values(1, 400)
    users = pa.array(range(400) if named else [None] * 400, pa.uint64())
    drawn = pa.table({"user": users, **now})
    design = design_effects(COLUMNS, pa.table(before), drawn, count(users))
    assert design == {"length": 1.0, "channel": 1.0}
    sides = sketch(COLUMNS, before), sketch(COLUMNS, now)
    found = verdict.compare(COLUMNS, *sides, SPEC, design)
    assert found == verdict.compare(COLUMNS, *sides, SPEC)
    assert [each.effective_n for each in found] == [400, 400]
    texts = topics(0, 300), topics(1, 120, 0.1)
    alone = clusters(drawn["user"].slice(0, 120))
    assert embedding_finding("text", *texts, 3, users=alone) == embedding_finding("text", *texts, 3)


@pytest.mark.parametrize(
    ("kind", "users", "size"), [(CATEGORICAL, 20, 1_000), (CATEGORICAL, 3, 100), (NUMERIC, 20, 200)]
)
def test_few_users_who_each_keep_to_a_kind_raise_no_alarm(kind: str, users: int, size: int) -> None:
    alarms = [column_alarm(kind, users, size, 1.0, 0.0, seed) for seed in range(60)]
    assert sum(alarm.corrected for alarm in alarms) <= 3
    assert sum(alarm.independent for alarm in alarms) >= 15  # what it would have been


@pytest.mark.parametrize("kind", [CATEGORICAL, NUMERIC])
def test_what_all_users_do_otherwise_is_found(kind: str) -> None:
    alarms = [column_alarm(kind, 100, 1_000, 0.5, 0.3, seed) for seed in range(20)]
    assert sum(alarm.corrected for alarm in alarms) >= 18


def test_users_who_each_write_of_one_topic_are_no_new_world() -> None:
    p: dict[str, list[float]] = {"corrected": [], "independent": [], "moved": []}
    for seed in range(3):
        reference, dice = topics(seed, 200), np.random.default_rng(seed)
        pool, each = topics(seed + 100, 900), dice.integers(20, size=150)
        nearest = pool @ pool[dice.integers(900, size=20)].T
        current = pool[np.argsort(-nearest, axis=0)[dice.integers(100, size=150), each]]
        moved = np.where(dice.random((150, 1)) < 0.3, topics(seed, 150, 1.0), current)
        for name, now, users in (
            ("corrected", current, each),
            ("independent", current, None),
            ("moved", moved, each),
        ):
            p[name].append(embedding_finding("text", reference, now, seed, users=users).p)
    assert min(p["independent"]) <= 0.001  # what it would have been
    assert min(p["corrected"]) > 0.01
    assert np.median(p["moved"]) <= 0.001


def test_parts_add_up_to_the_users_of_the_whole() -> None:
    dice = np.random.default_rng(0)
    users = [None if user > 40 else user for user in dice.integers(50, size=1_000).tolist()]
    whole = count(pa.array(users, pa.uint64()))
    parts = add([count(pa.array(users[at : at + 130], pa.uint64())) for at in range(0, 1_000, 130)])
    assert parts.counts.sort_by("user").equals(whole.counts.sort_by("user"))
    assert parts.unnamed == whole.unnamed == users.count(None)
    made = [*Counter(user for user in users if user is not None).values(), *[1] * whole.unnamed]
    assert parts.repeats == pytest.approx(sum(each**2 for each in made) / 1_000 - 1)


def test_a_log_says_who_asked_where_it_knows(home: Home) -> None:
    reference = reference_of(home.store, train(300), LABELS)
    (home.root / "log").mkdir()
    asked = ({"role": "user", "content": "a parcel"},)
    callers = [*[("ab", True)] * 4, *[("cd", True)] * 2, *[("key", False)] * 3, ("", True)]
    for part in range(2):
        write_jsonl(
            home.root / "log" / f"segment-{part}.jsonl",
            [
                RequestRecord(
                    f"{part}-{number}",
                    "2026-07-01T00:00:00Z",
                    "r",
                    asked,
                    "",
                    user=user,
                    user_named=named,
                    status=200,
                )
                for number, (user, named) in enumerate(callers)
            ],
        )
    log = prediction_log.collect(home.store, LOG, home.root)
    found = sketch_log(home.store, log, reference, SPEC)
    assert sorted(found.users.counts["requests"].to_pylist()) == [4, 8]
    assert found.users.unnamed == 8
    assert sorted(Counter(clusters(found.drawn["user"]).tolist()).values()) == [*[1] * 8, 4, 8]
