"""What who runs the gateway sees: traces, logs, metrics, its state, and a disk that is full."""

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mlops_assets.serving.gateway.access_log import make_access_log
from mlops_assets.serving.gateway.api_keys import ADMIN, CHAT, new_key
from mlops_assets.serving.gateway.gateway import Gateway
from mlops_assets.serving.gateway.tracing import NoSpans, Spans, make_tracing
from mlops_assets_tests.commands import run_command
from mlops_assets_tests.engine_server import EngineServer, serve_engine
from mlops_assets_tests.gateway_server import MODEL, RunningGateway, serve_gateway, upstream_of

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
QUESTION = "My account number is 4711."


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineServer]:
    with serve_engine() as server:
        yield server


def ask(gateway: RunningGateway, stream: bool = False, **headers: str) -> requests.Response:
    return requests.post(
        f"{gateway.url}/v1/chat/completions",
        json={
            "model": MODEL,
            "messages": [{"role": "user", "content": QUESTION}],
            "stream": stream,
            "user": "kim@example.com",
        },
        headers={**gateway.authorization, **headers},
        timeout=60,
    )


def test_a_trace_goes_through_from_the_caller_to_the_engine(
    engine: EngineServer, tmp_path: Path
) -> None:
    with serve_gateway(tmp_path, upstream_of(engine.url)) as gateway:
        assert isinstance(gateway.gateway.tracing, NoSpans), "nobody collects: none is made"
        ask(gateway, traceparent=f"00-{TRACE}-{PARENT}-01")
        assert engine.asked[-1].headers["traceparent"] == f"00-{TRACE}-{PARENT}-01"
        ask(gateway, traceparent="00-" + "0" * 32 + "-x-01")
        traces = [record["trace"] for record in gateway.records]
        assert traces[0] == TRACE
        assert len(traces[1]) == 32
        assert traces[1] != "0" * 32
        assert engine.asked[-1].headers["traceparent"].split("-")[1] == traces[1]


def test_spans_of_gateway_route_and_upstream(engine: EngineServer, tmp_path: Path) -> None:
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))

    def trace(gateway: Gateway) -> None:
        gateway.tracing = Spans(provider)

    with serve_gateway(tmp_path, upstream_of(engine.url), prepare=trace) as gateway:
        ask(gateway, traceparent=f"00-{TRACE}-{PARENT}-01")
        spans = {span.name: span for span in kept.get_finished_spans()}
        assert set(spans) == {"gateway", "route", "upstream"}
        assert all(f"{span.context.trace_id:032x}" == TRACE for span in spans.values())
        assert f"{spans['gateway'].parent.span_id:016x}" == PARENT
        assert spans["upstream"].parent.span_id == spans["gateway"].context.span_id
        assert spans["gateway"].attributes["http.response.status_code"] == 200
        told = engine.asked[-1].headers["traceparent"]
        assert told == f"00-{TRACE}-{spans['upstream'].context.span_id:016x}-01"
        assert QUESTION not in str([span.to_json() for span in spans.values()])


def test_spans_are_sent_only_where_a_collector_is_named() -> None:
    assert isinstance(make_tracing({}), NoSpans)
    tracing = make_tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"})
    assert isinstance(tracing, Spans)
    tracing.close()


def test_the_access_log_tells_who_and_what_and_no_text(
    engine: EngineServer, tmp_path: Path
) -> None:
    written = io.BytesIO()

    def listen(gateway: Gateway) -> None:
        gateway.access_log = make_access_log(written)

    with serve_gateway(tmp_path, upstream_of(engine.url), prepare=listen) as gateway:
        answer = ask(gateway)
        requests.post(f"{gateway.url}/v1/chat/completions", timeout=60)
        lines: list[dict[str, Any]] = [json.loads(line) for line in written.getvalue().splitlines()]
        assert [(line["key"], line["status"]) for line in lines] == [(gateway.name, 200), ("", 401)]
        assert lines[0]["id"] == answer.headers["x-request-id"] == answer.json()["id"]
        assert lines[0]["trace"] == gateway.records[0]["trace"]
        secret = gateway.key.split("-", 2)[2]
        for unsaid in (QUESTION, "account number", "kim", gateway.key, secret):
            assert unsaid.encode() not in written.getvalue()


def test_an_access_log_that_cannot_be_written_costs_no_answer(
    engine: EngineServer, tmp_path: Path
) -> None:
    with (
        open("/dev/full", "wb", buffering=0) as full,
        serve_gateway(
            tmp_path,
            upstream_of(engine.url),
            prepare=lambda gateway: setattr(gateway, "access_log", make_access_log(full)),  # type: ignore[arg-type]
        ) as gateway,
    ):
        assert [ask(gateway, stream).status_code for stream in (False, True)] == [200, 200]
        assert [record["status"] for record in gateway.records] == [200, 200]


@pytest.mark.parametrize("stream", [False, True])
def test_when_the_log_is_full_nobody_gets_an_answer_that_is_not_in_it(
    engine: EngineServer, tmp_path: Path, stream: bool
) -> None:
    with serve_gateway(tmp_path, upstream_of(engine.url)) as gateway:
        log = gateway.gateway.log
        disk = os.dup(log._descriptor)
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, log._descriptor)  # every write fails with ENOSPC
        answer = ask(gateway, stream)
        assert "[DONE]" not in answer.text
        assert '"code":"log_unavailable"' in answer.text
        assert answer.status_code == (200 if stream else 503)
        os.dup2(disk, log._descriptor)
        assert ask(gateway, stream).status_code == 200
        assert [record["status"] for record in gateway.records] == [200]
        text = requests.get(
            f"{gateway.url}/metrics", headers=gateway.authorization, timeout=60
        ).text
        assert "mlops_request_log_errors_total 0.0" not in text
        os.close(disk)
        os.close(full)


def test_an_admin_flushes_the_cache(engine: EngineServer, tmp_path: Path) -> None:
    upstream = upstream_of(engine.url, generation={"temperature": 0.0})
    with serve_gateway(tmp_path, upstream, cache_exact_mib=1) as gateway:
        _, admin = new_key(gateway.files.keys, "admin", [ADMIN])
        _, chat = new_key(gateway.files.keys, "chat", [CHAT])
        before = engine.count
        assert [ask(gateway).status_code for _ in range(2)] == [200, 200]
        assert engine.count == before + 1
        url, headers = f"{gateway.url}/admin/cache/flush", {"Authorization": f"Bearer {admin}"}
        others = {"Authorization": f"Bearer {chat}"}
        assert requests.post(url, headers=others, timeout=60).status_code == 403
        assert requests.post(url, headers=headers, timeout=60).json() == {"flushed": True}
        ask(gateway)
        assert engine.count == before + 2


def test_budgets_are_metrics_by_key(engine: EngineServer, tmp_path: Path) -> None:
    with serve_gateway(tmp_path, upstream_of(engine.url), daily_tokens_per_key=4000) as gateway:
        used = ask(gateway).json()["usage"]["total_tokens"]
        text = requests.get(
            f"{gateway.url}/metrics", headers=gateway.authorization, timeout=60
        ).text
        line = f'mlops_budget_used_ratio{{key="{gateway.name}",unit="tokens"}} {used / 4000}'
        assert line in text


def test_the_admins_state(engine: EngineServer, tmp_path: Path) -> None:
    with serve_gateway(tmp_path, upstream_of(engine.url)) as gateway:
        ask(gateway)
        _, admin = new_key(gateway.files.keys, "admin", [ADMIN])
        headers = {"Authorization": f"Bearer {admin}"}
        state = requests.get(f"{gateway.url}/admin/state", headers=headers, timeout=60).json()
        assert state["request_log"]["bytes"] > 0
        assert {"name": "admin", "id": admin.split("-")[1], "state": "valid"} in state["keys"]
        assert state["settings"]["maximum_in_flight"] == 64
        assert admin not in json.dumps(state)
        assert requests.get(f"{gateway.url}/admin/state", timeout=60).status_code == 401


def test_an_address_that_is_not_this_machines_is_refused(tmp_path: Path) -> None:
    ended = run_command("mlops", "serve", "--host", "192.0.2.1", home=tmp_path / "home")
    assert ended.code == 1
    assert "cannot listen on 192.0.2.1 port 8000" in ended.output
    assert "--host" in ended.output
