"""The official client against the gateway, over real loopback HTTP."""

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
import requests

from mlops_assets_tests.engine_server import EngineServer, serve_engine
from mlops_assets_tests.gateway_server import (
    MODEL,
    RELEASE,
    RunningGateway,
    serve_gateway,
    upstream_of,
)

QUESTION = [{"role": "user", "content": "My router blinks red."}]
ANSWER = "/models/engine: My router blinks red."


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineServer]:
    with serve_engine() as server:
        yield server


@pytest.fixture(scope="module")
def gateway(
    engine: EngineServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningGateway]:
    upstream = upstream_of(
        engine.url, system="Answer as JSON.", prompt="cd" * 32, generation={"temperature": 0.0}
    )
    slices = ["channel", "product", "style", "retry", "absent"]
    root = tmp_path_factory.mktemp("gateway")
    with serve_gateway(root, upstream, slices=slices) as running:
        yield running


@pytest.fixture
def client(gateway: RunningGateway, engine: EngineServer) -> Iterator[openai.OpenAI]:
    engine.switch()
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as client:
        yield client


def test_a_plain_answer(
    client: openai.OpenAI, gateway: RunningGateway, engine: EngineServer
) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=QUESTION, user="kim", extra_headers={"X-Feature": "help/chat"}
    )
    assert answer.choices[0].message.content == ANSWER
    assert answer.model == MODEL
    asked = engine.asked[-1]
    assert asked.body["messages"] == [{"role": "system", "content": "Answer as JSON."}, *QUESTION]
    assert asked.body["temperature"] == 0.0
    assert asked.body["max_tokens"] == 1024
    assert "user" not in asked.body
    record = gateway.records[-1]
    assert record["id"] == answer.id
    assert record["output"] == ANSWER
    assert record["messages"] == QUESTION
    assert (record["status"], record["arm"], record["release"]) == (200, "champion", RELEASE)
    assert (record["feature"], record["prompt"]) == ("help/chat", "cd" * 32)
    assert (record["tokens_in"], record["tokens_out"]) == (7, 5)
    assert record["finish"] == "stop"
    assert len(record["user"]) == 64
    assert record["user_named"]
    assert "kim" not in str(record)


def test_slices_are_logged_where_the_settings_name_them(
    client: openai.OpenAI, gateway: RunningGateway, engine: EngineServer
) -> None:
    given = {"channel": "e-mail", "product": "x" * 99, "retry": True, "style": "", "secret": "y"}
    client.chat.completions.create(model=MODEL, messages=QUESTION, metadata=given)
    assert gateway.records[-1]["slices"] == {
        "channel": "e-mail",
        "product": "x" * 64,
        "retry": "true",
    }
    assert "metadata" not in engine.asked[-1].body
    client.chat.completions.create(model=MODEL, messages=QUESTION)
    assert gateway.records[-1]["slices"] == {}
    assert not gateway.records[-1]["user_named"]


def test_a_streamed_answer_ends_in_the_log(
    client: openai.OpenAI, gateway: RunningGateway, engine: EngineServer
) -> None:
    chunks = list(client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER
    assert {chunk.model for chunk in chunks} == {MODEL}
    assert not any(chunk.usage for chunk in chunks), "nobody asked for it"
    assert engine.asked[-1].body["stream_options"] == {"include_usage": True}
    record = gateway.records[-1]
    assert {chunk.id for chunk in chunks} == {record["id"]}
    assert (record["output"], record["tokens_out"]) == (ANSWER, 5)
    assert 0 < record["first_byte_ms"] <= record["latency_ms"]


def test_usage_is_streamed_to_whoever_asks(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=QUESTION, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 5
    assert chunks[-1].choices == []


def test_the_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).owned_by == "mlops-assets"


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"{", 400, "not JSON"),
        (b"[]", 400, "not a JSON object"),
        (b'{"messages": []}', 400, "at least one message"),
        (b'{"messages": [{"role": "root", "content": "x"}]}', 400, "role must be one of"),
        (b'{"messages": [{"role": "user"}]}', 400, "content is missing"),
        (b'{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}', 400, "`text`"),
        (b'{"model": "gpt-4", "messages": [{"role": "user", "content": "x"}]}', 404, "'gpt-4'"),
        (b'{"n": 2}', 400, "n must be 1"),
        (b'{"max_tokens": 100000}', 400, "messages"),
        (b'{"chat_template": "{{ x }}"}', 400, "'chat_template' is not accepted"),
        (b'{"tool_prompt": "Say yes."}', 400, "'tool_prompt' is not accepted"),
        (b'{"lora_path": "/x"}', 400, "'lora_path' is not accepted"),
        (b'{"custom_logit_processor": "x"}', 400, "'custom_logit_processor' is not accepted"),
        (b'{"messages": [{"role": ["user"], "content": "x"}]}', 400, "role must be one of"),
        (b'{"tools": ' + b"[" * 300 + b"]" * 300 + b"}", 400, "nested deeper than 200"),
        (
            b'{"messages": [{"role": "user", "content": "x", "y": %s}]}'
            % (b'{"z":' * 300 + b"0" + b"}" * 300),
            400,
            "nested deeper than 200",
        ),
        (b'{"messages": [{"role": "user", "content": "\xff"}]}', 400, "not JSON"),
        (b" " * 2**21, 413, "1,024 KiB"),
    ],
)
def test_a_bad_body_is_refused(
    gateway: RunningGateway, body: bytes, status: int, says: str
) -> None:
    answer = requests.post(
        f"{gateway.url}/v1/chat/completions",
        data=body,
        headers={"Content-Type": "application/json", **gateway.authorization},
        timeout=60,
    )
    assert answer.status_code == status
    assert says in answer.json()["error"]["message"]


def test_what_can_be_written_again_is_taken(
    client: openai.OpenAI, gateway: RunningGateway, engine: EngineServer
) -> None:
    """As deep as it may be, and more brackets in a text than that."""
    deepest: object = {}
    for _ in range(196):
        deepest = [deepest]
    body = {"tools": deepest, "temperature": None, "service_tier": "auto"}
    asked = [{"role": "user", "content": "[{" * 300}]
    client.chat.completions.create(model=MODEL, messages=asked, extra_body=body)  # type: ignore[arg-type]
    assert engine.asked[-1].body["tools"] == deepest
    assert engine.asked[-1].body["temperature"] == 0.0, "null takes nothing of the bundle away"
    assert "service_tier" not in engine.asked[-1].body
    assert gateway.records[-1]["messages"] == asked


@pytest.mark.parametrize(
    ("method", "path", "kind", "status"),
    [
        ("GET", "/v1/chat/completions", "application/json", 405),
        ("POST", "/v1/embeddings", "application/json", 404),
        ("POST", "/v1/chat/completions", "text/plain", 415),
        ("GET", "/v1/models/other", "application/json", 404),
    ],
)
def test_what_is_not_there(
    gateway: RunningGateway, method: str, path: str, kind: str, status: int
) -> None:
    answer = requests.request(
        method,
        gateway.url + path,
        data=b"{}",
        headers={"Content-Type": kind, **gateway.authorization},
        timeout=60,
    )
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("key", ["", "mlops-x", "mlops-000000000000-wrong", "sk-\xe9", "x" * 5000])
def test_without_a_key_nothing_is_answered(gateway: RunningGateway, key: str) -> None:
    for path in ("/v1/chat/completions", "/v1/feedback"):
        answer = requests.post(
            gateway.url + path,
            json={},
            headers={"Authorization": f"Bearer {key}".encode("latin-1")},
            timeout=60,
        )
        assert answer.status_code == 401
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="wrong").models.list()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "reply",
    ["error:500", "crash", "cut", "garbage", "half_json", "late_error", "page", "unfinished"],
)
def test_an_engine_that_fails_is_a_clean_503(
    client: openai.OpenAI, gateway: RunningGateway, engine: EngineServer, reply: str, stream: bool
) -> None:
    engine.switch(always=reply)
    with pytest.raises(openai.APIError) as caught:
        for _ in client.chat.completions.create(model=MODEL, messages=QUESTION, stream=stream):
            pass
    assert "Traceback" not in str(caught.value)
    assert "/models" not in str(caught.value)
    if isinstance(caught.value, openai.APIStatusError):
        assert caught.value.status_code == 503
        assert caught.value.response.headers["retry-after"] == "1"
    assert gateway.records[-1]["status"] == 503


def test_health_names_what_is_served(gateway: RunningGateway) -> None:
    answer = requests.get(f"{gateway.url}/health", timeout=60)
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"
    assert answer.json()["config"] == gateway.gateway.spec.digest


def test_metrics_count_what_happened(client: openai.OpenAI, gateway: RunningGateway) -> None:
    client.chat.completions.create(model=MODEL, messages=QUESTION)
    text = requests.get(f"{gateway.url}/metrics", headers=gateway.authorization, timeout=60).text
    assert f'mlops_requests_total{{arm="champion",key="{gateway.name}",' in text
    assert "mlops_request_seconds_bucket" in text
    assert requests.get(f"{gateway.url}/metrics", timeout=60).status_code == 401


def test_files_are_private(gateway: RunningGateway, tmp_path: Path) -> None:
    for path in [gateway.files.root, *gateway.files.root.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path
