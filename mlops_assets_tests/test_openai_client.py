"""The official `openai` client, unchanged, against the gateway as a process."""

from collections.abc import Iterator

import openai
import pytest

from mlops_assets_tests.engine_server import EngineProcess, engine_process
from mlops_assets_tests.releases import MODEL
from mlops_assets_tests.served_homes import approved_home
from mlops_assets_tests.serving_process import ServingProcess, hosted, serving

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineProcess]:
    with engine_process() as engine:
        yield engine


@pytest.fixture(scope="module")
def gateway(
    engine: EngineProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServingProcess]:
    home = approved_home(tmp_path_factory.mktemp("openai"))
    with serving(home, gateway=hosted(engine)) as gateway:
        yield gateway


@pytest.fixture
def client(gateway: ServingProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=gateway.url, api_key=gateway.key, max_retries=0) as client:
        yield client


def messages(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_plain(client: openai.OpenAI, gateway: ServingProcess) -> None:
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=messages("one"))
    answer = raw.parse()
    assert answer.choices[0].message.content.endswith(": one")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.id == raw.headers["x-request-id"]
    assert gateway.records()[answer.id]["tokens_out"] == answer.usage.completion_tokens


def test_streaming_with_usage(client: openai.OpenAI, gateway: ServingProcess) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=messages("two"), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(each.choices[0].delta.content or "" for each in chunks if each.choices)
    assert text.endswith(": two")
    assert [each.usage is not None for each in chunks] == [False] * (len(chunks) - 1) + [True]
    (identity,) = {each.id for each in chunks}
    record = gateway.records()[identity]
    assert (record["output"], record["tokens_out"]) == (text, chunks[-1].usage.completion_tokens)


def test_models(client: openai.OpenAI) -> None:
    assert MODEL in [each.id for each in client.models.list()]


@pytest.mark.parametrize("reply", ["error:500", "garbage"])
def test_the_engine_s_faults_are_the_client_s_exceptions(client: openai.OpenAI, reply: str) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model=MODEL, messages=messages(f"[engine: {reply}]"))
    assert caught.value.status_code == 503
    assert caught.value.request_id
    assert set(caught.value.body) == {"message", "type", "param", "code"}


def test_a_stream_that_breaks_raises(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=messages("[engine: cut] a b c d e"), stream=True
    )
    with pytest.raises(openai.APIError, match=r"."):
        list(stream)


@pytest.mark.parametrize(
    ("body", "raised"),
    [
        ({"messages": []}, openai.BadRequestError),
        ({"messages": [{"role": "user", "content": 7}]}, openai.BadRequestError),
        ({"model": "no-such-model"}, openai.NotFoundError),
    ],
)
def test_the_caller_s_mistakes(
    client: openai.OpenAI, body: dict[str, object], raised: type[openai.APIStatusError]
) -> None:
    given = {"model": MODEL, "messages": messages("four")} | body
    with pytest.raises(raised):
        client.chat.completions.create(**given)


def test_a_wrong_key(gateway: ServingProcess) -> None:
    with (
        openai.OpenAI(base_url=gateway.url, api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.chat.completions.create(model=MODEL, messages=messages("five"))


def test_retries_as_the_gateway_says(gateway: ServingProcess, engine: EngineProcess) -> None:
    """A 503 says when to come back, and the client does."""
    engine.switch(replies=["error:500"])
    with openai.OpenAI(base_url=gateway.url, api_key=gateway.key, max_retries=1) as client:
        answer = client.chat.completions.create(model=MODEL, messages=messages("six"))
    assert answer.choices[0].message.content.endswith(": six")
