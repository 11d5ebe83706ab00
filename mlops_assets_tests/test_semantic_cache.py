"""The semantic cache in the running gateway, with its process and a real encoder."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import openai
import pytest

from mlops_assets.artifacts import LineageError
from mlops_assets.sentence_encoder import PACKAGE, SentenceEncoder, packaged_encoder
from mlops_assets.serving.caching import semantic_cache
from mlops_assets.serving.caching.cache_spec import CacheSpec
from mlops_assets.serving.caching.semantic_cache import SemanticCache, Worker
from mlops_assets_tests.engine_server import EngineServer, serve_engine
from mlops_assets_tests.gateway_server import MODEL, RunningGateway, serve_gateway, upstream_of
from mlops_assets_tests.small_encoder import make_encoder
from mlops_assets_tests.waiting import wait_until

WORDS = ("my", "router", "blinks", "red", "does", "the", "light", "why")
QUESTION, SAME = "why does my router blinks red", "why does the router blinks red"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("encoder"), WORDS)


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineServer]:
    with serve_engine() as server:
        yield server


def ask(gateway: RunningGateway, *questions: str) -> tuple[str, str]:
    """What X-Cache says, and the answer."""
    url = f"{gateway.url}/v1"
    with openai.OpenAI(base_url=url, api_key=gateway.key, max_retries=0) as client:
        messages = [{"role": "user", "content": question} for question in questions]
        raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=messages)  # type: ignore[arg-type]
    return raw.headers["X-Cache"], str(raw.parse().choices[0].message.content)


@pytest.mark.slow
def test_a_question_that_means_the_same_gets_the_same_answer(
    engine: EngineServer, encoder: Path, tmp_path: Path
) -> None:
    upstream = upstream_of(engine.url, generation={"temperature": 0})
    settings = {"cache_semantic": True, "cache_encoder": str(encoder)}
    more = {"cache_semantic_threshold": 0.8, "cache_semantic_timeout": 10.0}
    with serve_gateway(tmp_path, upstream, **settings, **more) as gateway:
        cache = gateway.gateway.cache.semantic
        assert cache is not None
        wait_until(lambda: cache.ready, "the encoder")
        first = ask(gateway, QUESTION)
        assert first == ("miss", f"/models/engine: {QUESTION}")
        count = engine.count
        assert ask(gateway, SAME) == ("semantic", first[1])
        assert engine.count == count
        record = gateway.records[-1]
        assert (record["cached"], record["tokens_out"]) == ("semantic", 0)
        assert ask(gateway, "what is an invoice")[0] == "miss"  # words that it does not know
        assert ask(gateway, "my router", QUESTION)[0] == "miss"  # within a conversation
        gateway.gateway.cache.flush()
        assert ask(gateway, SAME) == ("miss", f"/models/engine: {SAME}")

        process = cache._worker._process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        assert ask(gateway, SAME)[0] == "miss"  # users notice nothing
        assert not cache.ready


PROCESS = """
import sys, time
print('{"ready": true}', flush=True)
for line in sys.stdin:
    if "die" in line:
        break
    if "hang" in line:
        time.sleep(60)
    print('{"said": "x"}', flush=True)
"""


def test_a_process_that_dies_or_hangs_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semantic_cache, "PAUSE", 0.0)
    monkeypatch.setattr(semantic_cache, "LONGEST_REPLY", 0.3)
    worker = Worker({})
    worker._command = [sys.executable, "-S", "-c", PROCESS]
    assert worker.ask({}) == {"said": "x"}
    for ending in ("die", "hang"):
        assert worker.ask({"do": ending}) == {}
        assert worker._process is None
        assert worker.ask({}) == {"said": "x"}
    worker.stop()
    worker.forget()
    assert worker.ask({}) == {}


def test_a_process_that_cannot_start_is_left_alone_for_a_while(
    caplog: pytest.LogCaptureFixture,
) -> None:
    worker = Worker({})
    worker._command = [sys.executable, "-S", "-c", """print('{"error": "no encoder"}')"""]
    assert worker.ask({}) == {}
    assert not worker.wanted
    assert "no encoder" in caplog.text


def test_a_gateway_without_its_encoder_does_not_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("mlops_assets.sentence_encoder.PACKAGE", "no_such_package")
    with pytest.raises(LineageError, match=r"No sentence encoder.*extra `encoder`"):
        SemanticCache(CacheSpec(cache_semantic=True))
    with pytest.raises(LineageError, match="no directory"):
        SemanticCache(CacheSpec(cache_semantic=True, cache_encoder=str(tmp_path / "none")))


@pytest.mark.slow
def test_the_encoder(encoder: Path, tmp_path: Path) -> None:
    loaded = SentenceEncoder(encoder, "cache_encoder")
    one, other = loaded.encode(["my router", "why does the light"])
    assert sum(number * number for number in one) == pytest.approx(1.0)
    assert loaded.encode(["why does the light"])[0] == pytest.approx(other, abs=1e-5)  # no padding
    assert [loaded.knows(text) for text in ("my router", "my invoice", "my " * 40)] == [
        True,
        False,
        False,
    ]
    pooling = encoder / "1_Pooling"
    pooling.mkdir()
    (pooling / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    first_token = SentenceEncoder(encoder, "cache_encoder").encode(["my router"])[0]
    assert first_token != pytest.approx(one)
    (pooling / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(LineageError, match="holds no encoder"):
        SentenceEncoder(encoder, "cache_encoder")
    (pooling / "config.json").unlink()
    pooling.rmdir()
    with pytest.raises(LineageError, match=r"cache_encoder .* holds no encoder"):
        SentenceEncoder(tmp_path, "cache_encoder")


def test_the_gateway_imports_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "qdrant_client", "numpy", "dagster", "mlflow", PACKAGE)
    program = (
        "import sys, mlops_assets.serving.gateway.application;"
        f"print(sorted(name for name in {heavy!r} if name in sys.modules))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


@pytest.mark.skipif(find_spec(PACKAGE) is None, reason="the extra `encoder` is not installed")
def test_the_packaged_encoder_is_found_without_running_it() -> None:
    assert (packaged_encoder() / "model.safetensors").is_file()
    assert PACKAGE not in sys.modules
