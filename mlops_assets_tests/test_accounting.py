"""Budgets in the running gateway: refusals, the record's money, and `mlops usage`."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest
from typer.testing import CliRunner

from mlops_assets.cli import app
from mlops_assets.serving.accounting.counted_log import sum_of_log
from mlops_assets.serving.accounting.usage_ledger import usage_ledger
from mlops_assets.serving.accounting.usage_report import differences
from mlops_assets_tests.engine_server import EngineServer, serve_engine
from mlops_assets_tests.gateway_server import MODEL, RunningGateway, serve_gateway, upstream_of

QUESTION = [{"role": "user", "content": "My router blinks red."}]
PRICES = {"price_input": 1000.0, "price_output": 2000.0}


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineServer]:
    with serve_engine() as server:
        yield server


def ask(gateway: RunningGateway, **more: object) -> str:
    """The answer, or the code of the error."""
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as client:
        try:
            found = client.chat.completions.create(model=MODEL, messages=QUESTION, **more)  # type: ignore[call-overload]
        except openai.RateLimitError as error:
            return str(error.code)
    return str(found.choices[0].message.content)


def test_concurrent_requests_cannot_pass_a_limit_together(
    engine: EngineServer, tmp_path: Path
) -> None:
    limits = {"daily_tokens_per_key": 700, "bytes_per_token": 1.0}
    with serve_gateway(tmp_path, upstream_of(engine.url), **limits) as gateway:
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda _: ask(gateway, max_tokens=200), range(12)))
        refused = answers.count("insufficient_quota")
        assert 0 < refused < 12
        records = gateway.records
        assert sum(each["tokens_in"] + each["tokens_out"] for each in records) <= 700
        assert [each["error"] for each in records].count("insufficient_quota") == refused
    assert differences(usage_ledger(gateway.files)) == []


def test_the_official_client_does_not_try_again_what_is_spent_until_tomorrow(
    engine: EngineServer, tmp_path: Path
) -> None:
    with (
        serve_gateway(tmp_path, upstream_of(engine.url), daily_tokens_per_key=0) as gateway,
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=2) as client,
    ):
        with pytest.raises(openai.RateLimitError, match="limit of 0 tokens"):
            client.chat.completions.create(model=MODEL, messages=QUESTION)  # type: ignore[arg-type]
        assert [record["status"] for record in gateway.records] == [429]


def test_a_failed_request_gives_its_reservation_back(engine: EngineServer, tmp_path: Path) -> None:
    limits = {"daily_tokens_per_key": 400, "bytes_per_token": 1.0}
    with serve_gateway(tmp_path, upstream_of(engine.url), **limits) as gateway:
        engine.switch("crash")
        with pytest.raises(openai.InternalServerError):
            ask(gateway, max_tokens=200)
        engine.switch()
        assert ask(gateway, max_tokens=200).endswith("My router blinks red.")


def test_usage_shows_what_the_log_adds_up_to(
    engine: EngineServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path))
    with serve_gateway(tmp_path, upstream_of(engine.url, prompt="cd" * 32), **PRICES) as gateway:
        ask(gateway, extra_headers={"X-Feature": "help"}, user="kim")
        ask(gateway)
        record = gateway.records[-1]
        money = (record["tokens_in"] + 2 * record["tokens_out"]) / 1000
        assert record["cost"] == pytest.approx(money)
        shown = CliRunner().invoke(app, ["usage", "--json"])  # while the gateway runs
    found = {(row["scope"], row["name"]): row for row in json.loads(shown.stdout)["usage"]}
    assert found["key", gateway.name]["requests"] == 2
    assert found["key", gateway.name]["money"] == pytest.approx(2 * money)
    assert found["feature", "help"]["requests"] == found["feature", ""]["requests"] == 1
    assert found["prompt", "cd" * 32]["tokens_limit"] is None
    ledger = usage_ledger(gateway.files)
    assert ledger.totals() == sum_of_log(ledger.log)
    assert "sum of the request log" in CliRunner().invoke(app, ["usage", "--check"]).stdout
    assert gateway.name in CliRunner().invoke(app, ["usage"]).stdout
    (ledger.log / "00000001.jsonl").write_bytes(b" " * ledger.snapshot()[1].offset)
    ended = CliRunner().invoke(app, ["usage", "--check"])
    assert ended.exit_code == 1
    assert "the log 0 requests" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--day", "yesterday"], "'yesterday' is no day."), ([], "Nothing was used on")],
)
def test_usage_before_there_is_any(arguments: list[str], said: str) -> None:
    ended = CliRunner().invoke(app, ["usage", *arguments])
    assert said in ended.stdout + ended.stderr
