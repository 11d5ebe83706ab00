"""Budgets: reserve, refuse, settle; alerts once each; what a restart and a new day change."""

import asyncio
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mlops_assets.serving.accounting.budget_spec import BudgetSpec
from mlops_assets.serving.accounting.budgets import Amount, Budgets, Names
from mlops_assets.serving.accounting.counted_log import sum_of_log
from mlops_assets.serving.accounting.prices import cost
from mlops_assets.serving.accounting.usage import NANO
from mlops_assets.serving.accounting.usage_ledger import UsageLedger, usage_ledger
from mlops_assets.serving.gateway.refusal import Refusal
from mlops_assets.serving.serving_home import ServingHome
from mlops_assets_tests.conftest import Webhook
from mlops_assets_tests.test_usage_ledger import DAY, append, line, record

WHO = Names("support", "u" * 64, "chat", "p" * 64)


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime.fromisoformat(f"{DAY}T10:00:00+00:00")

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def ledger(tmp_path: Path) -> UsageLedger:
    found = usage_ledger(ServingHome(tmp_path))
    found.log.mkdir(parents=True)
    return found


def make(ledger: UsageLedger, clock: Clock | None = None, **limits: object) -> Budgets:
    budgets = Budgets(ledger, BudgetSpec(**limits), clock or Clock())  # type: ignore[arg-type]
    budgets.load()
    return budgets


def reserve(budgets: Budgets, name: str, tokens: int, who: Names = WHO) -> None:
    budgets.reserve(name, who, "model", 0, tokens)


@pytest.mark.parametrize("scope", ["key", "user", "feature", "prompt"])
def test_a_request_beyond_a_limit_is_refused(ledger: UsageLedger, scope: str) -> None:
    budgets = make(ledger, **{f"daily_tokens_per_{scope}": 100})
    reserve(budgets, "a", 60)
    with pytest.raises(Refusal) as refused:
        reserve(budgets, "b", 41)
    assert refused.value.status == 429
    assert refused.value.type == refused.value.code == "insufficient_quota"
    assert refused.value.retry_after == timedelta(hours=14).total_seconds()
    assert (b"x-should-retry", b"false") in refused.value.headers()
    assert f"This {scope} has a limit of 100 tokens a day" in refused.value.message
    assert WHO.user not in refused.value.message
    reserve(budgets, "c", 40)


def test_other_names_have_limits_of_their_own(ledger: UsageLedger) -> None:
    budgets = make(ledger, daily_tokens_per_key=100, daily_tokens_for={"key/large": 500})
    reserve(budgets, "a", 100)
    reserve(budgets, "b", 100, WHO._replace(key="other"))
    reserve(budgets, "c", 500, WHO._replace(key="large"))
    with pytest.raises(Refusal):
        reserve(budgets, "d", 1)


def test_money_is_limited_by_the_prices(ledger: UsageLedger) -> None:
    spec = {"price_input": 2.0, "price_output": 10.0, "price_output_for": {"large": 40.0}}
    assert cost(BudgetSpec(**spec), "model", 1_000_000, 500_000) == 7.0
    assert cost(BudgetSpec(**spec), "large", 1_000_000, 500_000) == 22.0
    budgets = make(ledger, daily_money_per_feature=0.001, bytes_per_token=4, **spec)
    budgets.reserve("a", WHO, "model", 200, 90)  # 50 x 2 + 90 x 10 = 1,000 millionths
    with pytest.raises(Refusal, match=r"0\.001 USD a day: 0 USD are used, 0\.001 USD are held"):
        budgets.reserve("b", WHO, "model", 1, 1)


def test_what_was_really_used_takes_the_place_of_the_reservation(ledger: UsageLedger) -> None:
    budgets = make(ledger, daily_tokens_per_key=100)
    budgets.reserve("request-1", WHO, "model", 30, 90)  # 10 + 90
    budgets.settle(record(1))
    assert budgets.used("key", "support") == Amount(10, NANO // 1000)
    budgets.reserve("request-2", WHO, "model", 0, 90)
    budgets.release("request-2")  # it failed before an engine saw it
    budgets.release("request-2")
    reserve(budgets, "c", 90)


def test_a_limit_of_nothing_refuses_all_and_no_limit_refuses_none(ledger: UsageLedger) -> None:
    with pytest.raises(Refusal):
        reserve(make(ledger, daily_tokens_per_key=0), "a", 1)
    reserve(make(ledger), "a", 10**12)


def test_a_new_day_begins_with_nothing_used(ledger: UsageLedger) -> None:
    clock = Clock()
    budgets = make(ledger, clock, daily_tokens_per_key=100)
    reserve(budgets, "request-1", 100)
    clock.now += timedelta(hours=14)
    reserve(budgets, "request-2", 100)
    budgets.settle(record(1))  # yesterday's
    assert budgets.used("key", "support") == Amount(0, 0)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"daily_tokens_for": {"support": 1}}, "SCOPE/NAME"),
        ({"daily_money_for": {"team/a": 1.0}}, "SCOPE/NAME"),
        ({"daily_tokens_for": {"key/a": -1}}, "from 0"),
        ({"price_input_for": {"a": float("nan")}}, "from 0"),
        ({"daily_tokens_per_team": 1}, "Extra inputs"),
    ],
)
def test_settings_that_mean_nothing_are_refused(bad: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        BudgetSpec(**bad)  # type: ignore[arg-type]


def run_once(budgets: Budgets) -> None:
    """Start the gateway's background task and stop it in good order."""

    async def life() -> None:
        await budgets.start()
        await budgets.close()

    asyncio.run(life())


def titles(webhook: list[object]) -> list[str]:
    return [str(message["text"]).partition("\n")[0] for message in webhook]  # type: ignore[index]


def test_each_threshold_is_told_once_also_after_restarts(
    ledger: UsageLedger, webhook: list[object]
) -> None:
    limits = {"daily_tokens_per_key": 100, "daily_tokens_per_feature": 10_000}
    for number in range(10):  # ten tokens each, and a restart after each
        append(ledger, line(number))
        run_once(make(ledger, **limits))
    assert titles(webhook) == [
        "The daily budget of key support has reached 50%",
        "The daily budget of key support has reached 80%",
        "The daily budget of key support is used up",
    ]
    assert "Used: 100 tokens" in str(webhook[2])


def test_of_thresholds_reached_at_once_the_highest_is_told(
    ledger: UsageLedger, webhook: list[object]
) -> None:
    append(ledger, *(line(number) for number in range(9)))
    for _ in range(2):
        run_once(make(ledger, daily_tokens_per_key=100))
    assert titles(webhook) == ["The daily budget of key support has reached 80%"]


def test_a_refusal_counts_as_used_up(ledger: UsageLedger, webhook: list[object]) -> None:
    append(ledger, line(1))

    async def life() -> None:
        budgets = make(ledger, daily_tokens_per_key=11)
        await budgets.start()
        with pytest.raises(Refusal):
            reserve(budgets, "b", 5)
        await budgets.close()

    asyncio.run(life())
    assert titles(webhook)[-1] == "The daily budget of key support is used up"
    assert "Used: 10 tokens" in str(webhook[-1])


def test_an_alert_waits_for_its_webhook(
    ledger: UsageLedger, webhook: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Webhook, "status", 500)
    append(ledger, line(1))
    run_once(make(ledger, daily_tokens_per_key=20))
    monkeypatch.setattr(Webhook, "status", 200)
    before = len(webhook)
    run_once(make(ledger, daily_tokens_per_key=20))
    run_once(make(ledger, daily_tokens_per_key=20))
    assert before == len(webhook) - 1 == 1


def test_a_ledger_that_cannot_be_written_stops_no_request(
    ledger: UsageLedger, caplog: pytest.LogCaptureFixture
) -> None:
    async def life() -> None:
        budgets = make(ledger, daily_tokens_per_key=100)
        await budgets.start()
        ledger.path.write_bytes(b"no database")
        reserve(budgets, "request-1", 50)
        budgets.settle(record(1))
        assert budgets.used("key", "support").tokens == 10
        await budgets.close()

    asyncio.run(life())
    assert "Counting goes on when it can" in caplog.text


REQUEST = st.tuples(st.just("request"), st.integers(0, 60), st.integers(0, 60))
STEPS = st.lists(
    st.one_of(
        REQUEST,
        REQUEST,
        st.tuples(st.sampled_from(("answer", "lose", "count", "crash")), st.integers(0, 9)),
    ),
    max_size=40,
)


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_no_limit_is_passed_and_totals_add_up_to_the_log(steps: list[tuple[object, ...]]) -> None:
    """Requests that overlap in any way, answered, lost, or cut off by a crash."""
    limits = {"daily_tokens_per_key": 100, "daily_tokens_per_feature": 150}
    with tempfile.TemporaryDirectory() as folder:
        ledger = usage_ledger(ServingHome(Path(folder)))
        ledger.log.mkdir(parents=True)
        budgets, under_way, number = make(ledger, **limits), dict[str, tuple[int, Names]](), 0
        for step in steps:
            if step[0] == "request":
                number, most, name = number + 1, int(str(step[1])), f"key-{int(str(step[2])) % 2}"
                who = WHO._replace(key=name)
                try:
                    budgets.reserve(f"request-{number}", who, "model", 0, most)
                    under_way[f"request-{number}"] = most, who
                except Refusal:
                    continue
            elif step[0] == "crash":  # whatever was under way never came to the log
                budgets, under_way = make(ledger, **limits), {}
            elif step[0] == "count":
                ledger.catch_up()
            elif under_way:
                request = sorted(under_way)[int(str(step[1])) % len(under_way)]
                most, who = under_way.pop(request)
                if step[0] == "lose":
                    budgets.release(request)
                    continue
                used = {"id": request, "tenant": who.key, "tokens_in": 0, "tokens_out": most // 2}
                append(ledger, line(**used))
                budgets.settle(record(**used))
            _check(budgets, ledger)
        _check(make(ledger, **limits), ledger)
        assert ledger.totals() == sum_of_log(ledger.log)


def _check(budgets: Budgets, ledger: UsageLedger) -> None:
    logged = {name[1:]: usage for name, usage in sum_of_log(ledger.log).items()}
    for scope, name, limit in (
        ("key", "key-0", 100),
        ("key", "key-1", 100),
        ("feature", "chat", 150),
    ):
        used = logged[scope, name].of("tokens") if (scope, name) in logged else 0
        assert budgets.used(scope, name).tokens == used <= limit


def test_the_clock_is_utc(ledger: UsageLedger) -> None:
    budgets = Budgets(ledger, BudgetSpec(daily_tokens_per_key=100))
    budgets.load()
    reserve(budgets, "a", 100)
    with pytest.raises(Refusal) as refused:
        reserve(budgets, "b", 1)
    now = datetime.now(UTC)
    midnight = datetime(now.year, now.month, now.day, tzinfo=UTC) + timedelta(days=1)
    assert refused.value.retry_after == pytest.approx((midnight - now).total_seconds(), abs=60)
