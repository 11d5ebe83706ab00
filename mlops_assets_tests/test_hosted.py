"""Hosted providers through LiteLLM: answers, fallbacks, prices, and what must not get out."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home
from mlops_assets.profiles import PROJECT
from mlops_assets.serving.engines.engine_manager import EngineManager
from mlops_assets.serving.engines.engine_spec import EngineSpec
from mlops_assets.serving.gateway.upstream import Upstream
from mlops_assets_tests.engine_server import EngineServer, free_port, serve_engine
from mlops_assets_tests.gateway_server import MODEL, serve_gateway
from mlops_assets_tests.litellm_venv import program, running
from mlops_assets_tests.served_homes import promote
from mlops_assets_tests.serving_client import Answer, read_document, read_stream

pytestmark = pytest.mark.slow

FIRST, SECOND = "gpt-4o-mini", "gpt-4o"
QUESTION = "Is my line down?"
PROVIDER_KEY, OUR_KEY = "sk-provider-secret", "hosted-secret"
PRICES = {FIRST: (0.15e-6, 0.6e-6), SECOND: (2.5e-6, 10e-6)}
"""US dollars a token, read and written, in the table that LiteLLM brings."""


@dataclass(frozen=True)
class Hosted:
    """The engine under test, and the two providers behind it."""

    url: str
    first: EngineServer
    second: EngineServer
    log: Path

    def ask(self, *, stream: bool, key: str = OUR_KEY, **fields: Any) -> tuple[Answer, Any]:
        """The answer, and the usage that came with it."""
        response = requests.post(
            f"{self.url}/v1/chat/completions",
            json={"messages": [{"role": "user", "content": QUESTION}], "stream": stream, **fields},
            headers={"Authorization": f"Bearer {key}"},
            timeout=60,
        )
        found = Answer(QUESTION, response.status_code, raw=response.text)
        answer = (read_stream if stream and response.ok else read_document)(found)
        lines = response.text.splitlines() if stream else [f"data: {response.text}"]
        parts = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        return answer, next((part["usage"] for part in parts if "usage" in part), None)

    def behave(self, first: str = "answer", second: str = "answer") -> None:
        self.first.switch(first)
        self.second.switch(second)


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosted]:
    log, port = tmp_path_factory.mktemp("hosted") / "engine.log", free_port()
    with serve_engine(FIRST) as first, serve_engine(SECOND) as second:
        words = ["--model", f"openai/{FIRST}", "--fallback", f"openai/{SECOND}"]
        words += ["--api-base", first.url, "--retries", "0", "--timeout", "1"]
        environment = {
            "PYTHONPATH": str(PROJECT),
            "OPENAI_API_KEY": PROVIDER_KEY,
            "OPENAI_BASE_URL": second.url,
            "MLOPS_HOSTED_KEY": OUR_KEY,
        }
        server = [
            program("python"),
            "-m",
            "mlops_assets.serving.engines.hosted",
            "--port",
            str(port),
        ]
        url = f"http://127.0.0.1:{port}"
        with running([*server, *words], f"{url}/health", log, environment):
            yield Hosted(url, first, second, log)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("failure", ["", "error:500", "error:401", "error:429", "crash", "hang"])
def test_the_first_provider_answers_and_the_next_where_it_fails(
    hosted: Hosted, failure: str, stream: bool
) -> None:
    hosted.behave(first=failure or "answer")
    answer, usage = hosted.ask(stream=stream, temperature=0)
    answered_by = SECOND if failure else FIRST
    assert answer.acknowledged
    assert answer.answered_by == answered_by
    reading, writing = PRICES[answered_by]
    cost = usage["prompt_tokens"] * reading + usage["completion_tokens"] * writing
    assert usage["cost"] == pytest.approx(cost)


@pytest.mark.parametrize(
    ("failure", "stream", "status", "type"),
    [
        ("error:400", False, 400, "invalid_request_error"),
        ("error:400", True, 400, "invalid_request_error"),
        ("error:401", False, 502, "engine_error"),
        ("error:429", False, 429, "rate_limit_error"),
        ("crash", True, 502, "engine_error"),
        ("garbage", False, 502, "engine_error"),
        ("hang", True, 504, "timeout_error"),
    ],
)
def test_a_failure_of_all_is_a_clean_error(
    hosted: Hosted, failure: str, stream: bool, status: int, type: str
) -> None:
    hosted.behave(failure, failure)
    answer, _ = hosted.ask(stream=stream)
    assert (answer.status, (answer.error or {})["type"]) == (status, type)
    for secret in (PROVIDER_KEY, hosted.first.url, "Traceback", "litellm"):
        assert secret not in answer.raw


def test_a_stream_that_breaks_is_no_whole_answer(hosted: Hosted) -> None:
    hosted.behave("cut", "cut")
    answer, _ = hosted.ask(stream=True)
    assert not answer.acknowledged
    assert "[DONE]" not in answer.raw
    assert "The provider failed to answer." in answer.raw


def test_callers_choose_neither_provider_nor_key_nor_address(hosted: Hosted) -> None:
    hosted.behave()
    attempts = {
        "model": "openai/other",
        "api_base": hosted.second.url,
        "base_url": hosted.second.url,
        "api_key": "sk-of-the-caller",
        "fallbacks": ["openai/other"],
        "extra_headers": {"X-Other": "1"},
        "mock_response": "mocked",
    }
    answer, _ = hosted.ask(stream=False, **attempts)
    asked = hosted.first.asked[-1]
    assert answer.answered_by == FIRST
    assert asked.headers["Authorization"] == f"Bearer {PROVIDER_KEY}"
    assert "X-Other" not in asked.headers
    assert set(asked.body) == {"messages", "model"}


def test_only_the_gateway_is_answered(hosted: Hosted) -> None:
    answer, _ = hosted.ask(stream=False, key="another")
    assert answer.status == 401


def test_no_key_and_no_text_is_in_the_log(hosted: Hosted) -> None:
    hosted.behave("error:401", "error:401")
    hosted.ask(stream=False)
    log = hosted.log.read_text()
    assert "AuthenticationError (status 401)" in log
    for private in (PROVIDER_KEY, OUR_KEY, QUESTION, "The engine declines"):
        assert private not in log


@pytest.mark.parametrize("stream", [False, True])
def test_the_gateway_serves_a_release_by_a_provider_and_records_its_price(
    hosted: Hosted, started: Upstream, tmp_path: Path, stream: bool
) -> None:
    hosted.behave()
    with serve_gateway(tmp_path, started, price_input=1000.0, price_output=1000.0) as gateway:
        messages = [{"role": "user", "content": QUESTION}]
        body = {"model": MODEL, "messages": messages, "stream": stream}
        url = f"{gateway.url}/v1/chat/completions"
        answer = requests.post(url, json=body, headers=gateway.authorization, timeout=60)
        (record,) = gateway.records
    asked = hosted.first.asked[-1].body
    assert answer.status_code == 200
    assert asked["messages"][0] == {"role": "system", "content": "Answer with one queue."}
    assert asked["max_tokens"] == 32
    assert record["output"] == f"{FIRST}: {QUESTION}"
    reading, writing = PRICES[FIRST]
    price = record["tokens_in"] * reading + record["tokens_out"] * writing
    assert record["cost"] == pytest.approx(price)


@pytest.fixture(scope="module")
def started(hosted: Hosted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    """A release's engine, started as the gateway starts it."""
    home = Home(tmp_path_factory.mktemp("release") / "home")
    home.prepare()
    entry = promote(home, 1, "a")
    spec = EngineSpec(
        engine="litellm",
        engine_program=program("python"),
        engine_model=f"openai/{FIRST}",
        engine_url=hosted.first.url,
        engine_secrets=["OPENAI_API_KEY"],
        engine_warm_up=0,
    )
    hosted.behave()
    with asyncio.Runner() as runner, pytest.MonkeyPatch.context() as environment:
        with pytest.raises(LineageError, match="OPENAI_API_KEY is not set"):
            runner.run(EngineManager(home, spec).ensure(entry))
        environment.setenv("OPENAI_API_KEY", PROVIDER_KEY)
        manager = EngineManager(home, spec)
        yield runner.run(manager.ensure(entry))
        runner.run(manager.close())
