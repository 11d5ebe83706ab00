"""Budget ledger: whatever is killed when, its totals are the sum of the request log."""

import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.artifacts import LineageError
from mlops_assets.request_record import RequestRecord
from mlops_assets.serving.accounting.budget_spec import BudgetSpec
from mlops_assets.serving.accounting.counted_log import sum_of_log
from mlops_assets.serving.accounting.usage import NANO, Name, Totals, Usage
from mlops_assets.serving.accounting.usage_ledger import UsageLedger, usage_ledger
from mlops_assets.serving.accounting.usage_report import differences, print_usage, usage_of
from mlops_assets.serving.records import log_tail
from mlops_assets.serving.records.log_tail import BEGINNING, Position, blocks
from mlops_assets.serving.serving_home import ServingHome
from mlops_assets_tests.waiting import wait_until

DAY = "2026-11-22"
SCOPES = {"key": "tenant", "user": "user", "feature": "feature", "prompt": "prompt"}


def record(number: int = 0, **changed: object) -> RequestRecord:
    """A request of the key `support` that used 10 tokens and a thousandth of the money."""
    fields: dict[str, object] = {
        "id": f"request-{number}",
        "timestamp": f"{DAY}T10:00:00.000+00:00",
        "release": "r" * 64,
        "messages": ({"role": "user", "content": "Where is my order?\nÄ"},),
        "output": "On its way.",
        "status": 200,
        "tenant": "support",
        "user": "u" * 64,
        "feature": "chat",
        "prompt": "p" * 64,
        "tokens_in": 7,
        "tokens_out": 3,
        "cost": 0.001,
    }
    return RequestRecord(**{**fields, **changed})  # type: ignore[arg-type]


def line(number: int = 0, **changed: object) -> bytes:
    return orjson.dumps(asdict(record(number, **changed))) + b"\n"


def by_hand(lines: list[bytes]) -> Totals:
    """The sums without any of the code under test."""
    sums: Counter[tuple[str, str, str, str]] = Counter()
    for each in lines:
        fields = orjson.loads(each)
        for scope, field in SCOPES.items():
            name = (fields["timestamp"][:10], scope, fields[field])
            sums[*name, "requests"] += 1
            sums[*name, "in"] += fields["tokens_in"]
            sums[*name, "out"] += fields["tokens_out"]
            sums[*name, "nanos"] += round(fields["cost"] * NANO)
    return {
        Name(*name[:3]): Usage(
            *(sums[*name[:3], what] for what in ("requests", "in", "out", "nanos"))
        )
        for name in sums
    }


@pytest.fixture
def ledger(tmp_path: Path) -> UsageLedger:
    found = usage_ledger(ServingHome(tmp_path))
    found.log.mkdir(parents=True)
    return found


def append(ledger: UsageLedger, *lines: bytes, segment: int = 1) -> None:
    with (ledger.log / f"{segment:08d}.jsonl").open("ab") as stream:
        stream.write(b"".join(lines))


def test_totals_by_key_user_feature_and_prompt(ledger: UsageLedger) -> None:
    append(ledger, line(1), line(2, feature="", tokens_out=5), line(3, tenant="other", cost=0.0))
    ledger.catch_up()
    assert ledger.totals(DAY) == {
        Name(DAY, "key", "support"): Usage(2, 14, 8, 2_000_000),
        Name(DAY, "key", "other"): Usage(1, 7, 3, 0),
        Name(DAY, "user", "u" * 64): Usage(3, 21, 11, 2_000_000),
        Name(DAY, "feature", "chat"): Usage(2, 14, 6, 1_000_000),
        Name(DAY, "feature", ""): Usage(1, 7, 5, 1_000_000),
        Name(DAY, "prompt", "p" * 64): Usage(3, 21, 11, 2_000_000),
    }
    assert ledger.totals("2026-11-23") == {}


def test_people_are_shown_the_names_that_used_most(
    ledger: UsageLedger, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(30):
        append(ledger, line(number, user=f"{number:064}", tokens_in=number))
    rows = usage_of(ledger, BudgetSpec(), DAY)
    print_usage(rows, BudgetSpec(), DAY)
    shown = capsys.readouterr().out
    assert f"{29:064}" in shown
    assert f"{0:064}" not in shown
    assert "and 10 more: --json has all" in shown


def test_nothing_is_counted_twice(ledger: UsageLedger) -> None:
    append(ledger, line(1))
    assert ledger.catch_up() == ledger.totals()
    assert ledger.catch_up() == {}
    append(ledger, line(2), segment=1)
    append(ledger, line(3), segment=2)
    ledger.catch_up()
    assert ledger.totals()[Name(DAY, "key", "support")].requests == 3


def test_the_file_is_private(ledger: UsageLedger) -> None:
    ledger.catch_up()
    assert stat.S_IMODE(ledger.path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "bad",
    [
        *(b"", b"{", b"[]", b"{}", b"null", b"\xff\xfe"),
        *(b'{"timestamp": 3}', b'{"timestamp": "soon"}'),
        b'{"timestamp": "2026-11-22", "tokens_in": "many"}',
    ],
)
def test_a_line_that_is_no_record_adds_nothing(ledger: UsageLedger, bad: bytes) -> None:
    append(ledger, line(1), bad + b"\n", line(2))
    ledger.catch_up()
    assert ledger.totals()[Name(DAY, "key", "support")].requests == 2
    assert differences(ledger) == []


def test_a_line_without_its_end_waits_for_it(ledger: UsageLedger) -> None:
    whole = line(2)
    append(ledger, line(1), whole[:20])
    ledger.catch_up()
    assert ledger.totals()[Name(DAY, "key", "support")].requests == 1
    append(ledger, whole[20:])
    ledger.catch_up()
    assert ledger.totals()[Name(DAY, "key", "support")].requests == 2


def test_blocks_end_with_a_line(ledger: UsageLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_tail, "BLOCK", 100)
    lines = [line(number, feature="f" * number) for number in range(30)]
    append(ledger, *lines, b'{"torn')
    found = list(blocks(ledger.log, BEGINNING))
    assert [each + b"\n" for part, _ in found for each in part] == lines
    assert len(found) > 10
    middle = found[5][1]
    assert sum_of_log(ledger.log, end=middle) == by_hand(lines[: sum(len(p) for p, _ in found[:6])])


def test_a_log_that_lost_its_end_is_counted_again(ledger: UsageLedger) -> None:
    append(ledger, line(1), line(2))
    ledger.catch_up()
    (ledger.log / "00000001.jsonl").write_bytes(line(1))
    ledger.catch_up()
    assert ledger.totals() == by_hand([line(1)])
    assert differences(ledger) == []


def test_a_changed_total_is_found(ledger: UsageLedger) -> None:
    append(ledger, line(1))
    ledger.catch_up()
    ledger.path.unlink()
    other = UsageLedger(ledger.path, ledger.log.parent / "elsewhere")
    other.log.mkdir()
    append(other, line(1), b" " * (len(line(2)) - 1) + b"\n", line(2, tokens_in=8))
    other.catch_up()
    append(ledger, line(2), line(3))
    found = [str(each) for each in differences(ledger)]
    assert len(found) == 4
    assert "the ledger has 2 requests, 21 tokens" in found[0]


def test_a_damaged_file_is_named(ledger: UsageLedger) -> None:
    ledger.path.write_bytes(b"no database at all" * 100)
    with pytest.raises(LineageError, match=r"usage\.db cannot be used.*may be deleted"):
        ledger.catch_up()


class Killed(Exception):
    """Stands for SIGKILL: nothing after it runs."""


APPEND, COUNT, KILL, ROTATE, TEAR = "append", "count", "kill", "rotate", "tear"
STEPS = st.lists(
    st.tuples(st.sampled_from((APPEND, APPEND, COUNT, KILL, ROTATE, TEAR)), st.integers(0, 9)),
    max_size=30,
)


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_totals_are_the_sum_of_the_log_after_any_interleaving(steps: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ledger, lines, segment = usage_ledger(ServingHome(Path(folder))), list[bytes](), 1
        ledger.log.mkdir(parents=True)
        for step, number in steps:
            if step == APPEND:
                day = f"2026-11-2{number % 3}T00:00:00+00:00"
                fields = {"timestamp": day, "tokens_in": number, "cost": number / 7}
                lines.append(line(len(lines), **fields, tenant=f"key-{number % 2}"))
                append(ledger, lines[-1], segment=segment)
            elif step == COUNT:
                ledger.catch_up()
            elif step == KILL:
                _count_and_die(ledger, number)
            elif step == ROTATE:
                segment += 1
            else:  # the writer was killed in the middle of a line; its successor closes it off
                append(ledger, line(0)[: 5 + number], b"\n", segment=segment)
            totals, position = ledger.snapshot()
            assert totals == sum_of_log(ledger.log, end=position)
        ledger.catch_up()
        assert ledger.totals() == by_hand(lines)
        assert differences(ledger) == []


def _count_and_die(ledger: UsageLedger, after: int) -> None:
    """Die before, in the middle of or after a transaction: at its statement number ``after``."""

    class Dying(sqlite3.Connection):
        left = after

        def execute(self, *arguments: object) -> sqlite3.Cursor:  # type: ignore[override]
            if str(arguments[0]).startswith("INSERT"):
                self._come_closer()
            return super().execute(*arguments)  # type: ignore[arg-type]

        def executemany(self, statement: str, rows: object) -> sqlite3.Cursor:  # type: ignore[override]
            for row in rows:  # type: ignore[attr-defined]
                self._come_closer()
                super().execute(statement, row)
            return self.cursor()

        def _come_closer(self) -> None:
            self.left -= 1
            if self.left < 0:
                raise Killed

    connect = sqlite3.connect
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "sqlite3.connect", lambda *given, **more: connect(*given, **more, factory=Dying)
        )
        try:
            ledger.catch_up()
        except Killed:
            return


COUNT_SLOWLY = """
import sys, time
from pathlib import Path
from mlops_assets.serving.records import log_tail
from mlops_assets.serving.accounting import usage_ledger
from mlops_assets.serving.serving_home import ServingHome

def slowly(*arguments):
    for block in log_tail.blocks(*arguments):
        yield block
        time.sleep(0.002)

log_tail.BLOCK, usage_ledger.blocks = 1000, slowly
usage_ledger.usage_ledger(ServingHome(Path(sys.argv[1]))).catch_up()
"""


def test_a_killed_process_leaves_totals_that_add_up(ledger: UsageLedger) -> None:
    lines = [line(number) for number in range(3000)]
    append(ledger, *lines)
    for _ in range(3):
        command = [sys.executable, "-c", COUNT_SLOWLY, str(ledger.path.parent)]
        counted = _counted(ledger)
        with subprocess.Popen(command) as process:
            wait_until(lambda: _counted(ledger) != counted, "its first totals")  # noqa: B023
            process.kill()
        totals, position = ledger.snapshot()
        assert BEGINNING != position != Position("00000001.jsonl", sum(map(len, lines)))
        assert totals == sum_of_log(ledger.log, end=position)
    ledger.catch_up()
    assert ledger.totals() == by_hand(lines)


def _counted(ledger: UsageLedger) -> Position:
    return ledger.snapshot()[1]
