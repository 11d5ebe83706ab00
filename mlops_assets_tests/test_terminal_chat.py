"""`mlops chat`: what reaches the terminal, and where the key goes."""

from pathlib import Path

import pytest

from mlops_assets.serving.gateway.terminal_chat import Conversation
from mlops_assets_tests.engine_server import serve_engine
from mlops_assets_tests.gateway_server import serve_gateway, upstream_of


def test_an_answer_cannot_move_the_cursor_and_no_proxy_sees_the_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serve_engine() as engine, serve_gateway(tmp_path, upstream_of(engine.url)) as gateway:
        Conversation(gateway.url, gateway.key, None).ask("Straße 7\n\tred\x1b[2J\x9b2J\u202egone")
    said = capsys.readouterr().out
    assert said == "/models/engine: Straße 7\n\tred�[2J�2J�gone\n"
