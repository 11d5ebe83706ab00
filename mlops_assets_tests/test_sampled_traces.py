"""Sampled requests in a real MLflow, with what users said of them."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mlops_assets.feedback_record import FeedbackRecord
from mlops_assets.home import Home
from mlops_assets.monitoring.log import defs, sampled_traces
from mlops_assets.monitoring.log.prediction_log import PredictionLogSpec, collect
from mlops_assets.monitoring.log.sampled_traces import Traced, newest_votes, trace_sample
from mlops_assets.monitoring.log.trace_entities import make_span, trace_id
from mlops_assets.monitoring.log.trace_sample import TraceSampleSpec, is_drawn
from mlops_assets.monitoring.log.window import newest, read
from mlops_assets.refs import write_jsonl
from mlops_assets.request_record import SHADOW, SIMULATED, RequestRecord
from mlops_assets.resources import RESOURCES
from mlops_assets.tracking import mlflow_environment_kept, prepare_experiment

EVERY = TraceSampleSpec(rate=1.0)


def request(number: int, **changes: Any) -> RequestRecord:
    fields: dict[str, Any] = {
        "id": f"chatcmpl-{number:032x}",
        "timestamp": f"2026-11-22T10:{number // 60:02d}:{number % 60:02d}.500+00:00",
        "release": "ab" * 32,
        "messages": ({"role": "user", "content": f"Question {number} of ada@example.com"},),
        "output": '{"answer": "write to bob@example.com"}',
        "status": 200,
        "tenant": "support",
        "user": f"{number % 3:064x}",
        "feature": "help/chat",
        "model": "tickets",
        "tokens_in": 7,
        "tokens_out": 5,
        "cost": 0.25,
        "latency_ms": 1500.0,
        "trace": "cd" * 16,
        "slices": {"channel": "carl@example.com"},
    }
    return RequestRecord(**fields | changes)


def vote(number: int, of: RequestRecord, score: float, **changes: Any) -> FeedbackRecord:
    fields: dict[str, Any] = {
        "id": f"vote-{number}",
        "timestamp": f"2026-11-22T11:00:{number:02d}+00:00",
        "request": of.id,
        "score": score,
        "user": of.user,
    }
    return FeedbackRecord(**fields | changes)


class TracedHome:
    """A home with an MLflow, into whose logs requests and votes are written."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.requests: list[RequestRecord] = []
        self.votes: list[FeedbackRecord] = []

    @property
    def log(self) -> Path:
        return self.home.root / "serving" / "requests"

    @property
    def log_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.log.iterdir())

    def write(self) -> None:
        for folder, records in ((self.log, self.requests), (self.home.feedback, self.votes)):
            folder.mkdir(parents=True, exist_ok=True)
            write_jsonl(folder / "00000001.jsonl", records)

    def run(self, spec: TraceSampleSpec = EVERY) -> Traced:
        self.write()
        ref = collect(self.home.store, PredictionLogSpec(directory=str(self.log)), Path("/"))
        return trace_sample(self.home, self.home.store, ref, spec)

    def traces(self, filter_string: str | None = None) -> dict[str, Any]:
        """What MLflow's search, which its UI lists, finds: by the request's id."""
        import mlflow

        with mlflow_environment_kept():
            experiment = prepare_experiment(self.home, sampled_traces.EXPERIMENT)
            found = mlflow.MlflowClient().search_traces(
                locations=[experiment], filter_string=filter_string
            )
        ids = [trace.info.client_request_id for trace in found]
        assert len(ids) == len(set(ids))
        return {str(id): trace for id, trace in zip(ids, found, strict=True)}


@pytest.fixture
def traced(tracked_home: Home) -> TracedHome:
    return TracedHome(tracked_home)


def test_a_trace_says_what_the_log_says_without_personal_data(traced: TracedHome) -> None:
    told = request(1, experiment={"tone": "warm"})
    traced.requests = [told, request(2, status=503, output="", error="engine_down", cost=0.0)]
    assert len(traced.run().written) == 2
    found = traced.traces()
    trace = found[told.id]
    (span,) = trace.data.spans
    assert span.inputs == {"messages": [{"role": "user", "content": "Question 1 of [email]"}]}
    assert span.outputs == {"answer": "write to [email]"}
    assert (trace.info.request_preview, trace.info.state.value) == ("Question 1 of [email]", "OK")
    assert (trace.info.execution_duration, trace.info.request_time % 60_000) == (1500, 0)
    assert trace.info.token_usage["total_tokens"] == 12
    tags = {name: value for name, value in trace.info.tags.items() if name.startswith("mlops.")}
    assert tags == {
        "mlops.release": "ab" * 32,
        "mlops.arm": "champion",
        "mlops.feature": "help/chat",
        "mlops.status": "200",
        "mlops.model": "tickets",
        "mlops.slice.channel": "[email]",
    }
    assert trace.info.trace_metadata["mlops.w3c_trace"] == told.trace
    assert trace.info.trace_metadata["mlflow.trace.user"] == told.user
    assert found[request(2).id].info.state.value == "ERROR"
    assert "example.com" not in traced.home.mlflow_database.read_bytes().decode("latin-1")
    assert list(traced.traces("tags.`mlops.status` = '503'")) == [request(2).id]


def test_of_a_long_text_the_beginning_is_shown(traced: TracedHome) -> None:
    long = "ada@example.com " * 20_000
    tool = {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": long}}]}
    messages = ({"role": "user", "content": long}, tool)
    traced.requests = [request(1, messages=messages, output=long)]
    traced.run()
    (span,) = traced.traces()[request(1).id].data.spans
    asked = span.inputs["messages"]
    assert (len(asked[0]["content"]), asked[1]["content"]) == (20_000, "")
    assert "[email]" in asked[1]["tool_calls"][0]["function"]["name"]
    assert len(span.outputs) == 20_000


def test_nothing_is_written_twice(traced: TracedHome) -> None:
    traced.requests = [request(number) for number in range(3)]
    traced.votes = [vote(1, traced.requests[0], 1.0)]
    first = traced.run()
    assert (len(first.written), first.known, first.attached) == (3, 0, 1)
    traced.requests.append(request(3))
    again = traced.run()
    assert ([row["id"] for row in again.written], again.known, again.attached) == (
        [request(3).id],
        3,
        0,
    )
    assert len(traced.traces()) == 4


def test_a_trace_that_a_kill_left_half_written_is_completed(traced: TracedHome) -> None:
    """Between its span and what it can be found by."""
    from mlflow.tracing.client import TracingClient

    traced.requests = [request(1), request(2)]
    traced.write()
    (row,) = [each for each in rows_of(traced) if each["id"] == request(1).id]
    with mlflow_environment_kept():
        experiment = prepare_experiment(traced.home, sampled_traces.EXPERIMENT)
        TracingClient(traced.home.mlflow_uri).log_spans(experiment, [make_span(row)])
    assert len(traced.run().written) == 2
    found = traced.traces()
    assert set(found) == {request(1).id, request(2).id}
    assert len(found[request(1).id].data.spans) == 1


def rows_of(traced: TracedHome) -> list[dict[str, Any]]:
    store = traced.home.store
    ref = collect(store, PredictionLogSpec(directory=str(traced.log)), Path("/"))
    return [row for part in newest(store, ref) for row in read(store, part).to_pylist()]


def test_a_vote_is_attached_to_the_trace_of_an_earlier_run(traced: TracedHome) -> None:
    """And the last one of several counts."""
    asked = request(1)
    traced.requests = [asked]
    traced.run()
    traced.votes = [
        vote(1, asked, 1.0, comment="thanks, ada@example.com"),
        vote(2, asked, 0.5, metric="resolved"),
    ]
    assert traced.run().attached == 2
    traced.votes.append(vote(3, asked, 0.0, correction='{"answer": "ask dora@example.com"}'))
    assert traced.run().attached == 2
    assert traced.run().attached == 0
    said = traced.traces()[asked.id].info.assessments
    assert {
        (each.name, each.valid, each.feedback.value, each.rationale, each.metadata["feedback_id"])
        for each in said
        if each.feedback
    } == {
        ("rating", False, 1.0, "thanks, [email]", "vote-1"),
        ("resolved", True, 0.5, None, "vote-2"),
        ("rating", True, 0.0, None, "vote-3"),
    }
    (correction,) = [each for each in said if each.expectation]
    assert correction.expectation.value == '{"answer": "ask [email]"}'
    assert {(each.source.source_type, each.source.source_id) for each in said} == {
        ("HUMAN", asked.user)
    }
    assert list(traced.traces("feedback.rating = '0.0'")) == [asked.id]


def test_votes_on_two_metrics_correct_for_themselves(traced: TracedHome) -> None:
    """And a correction that the user's last vote leaves out counts no more."""
    asked = request(1)
    traced.requests = [asked]
    traced.votes = [
        vote(1, asked, 0.0, correction="one"),
        vote(2, asked, 0.0, metric="resolved", correction="two"),
    ]
    assert (traced.run().attached, traced.run().attached) == (4, 0)
    assert corrections(traced, asked) == {"correction": "one", "correction.resolved": "two"}
    traced.votes.append(vote(3, asked, 1.0))
    assert (traced.run().attached, traced.run().attached) == (1, 0)
    assert corrections(traced, asked) == {"correction.resolved": "two"}


def corrections(traced: TracedHome, asked: RequestRecord) -> dict[str, str]:
    said = traced.traces()[asked.id].info.assessments
    return {each.name: each.expectation.value for each in said if each.expectation and each.valid}


def test_which_requests_are_shown(traced: TracedHome) -> None:
    requests = [request(number) for number in range(40)]
    half = TraceSampleSpec(rate=0.5, max_drawn=8, max_judged=2)
    drawn = [each.id for each in requests if is_drawn(each.id, half)]
    others = [each for each in requests if each.id not in drawn]
    assert 10 < len(drawn) < 30
    traced.requests = [
        *requests,
        request(50, arm=SHADOW),
        request(51, release=SIMULATED),
    ]
    traced.votes = [vote(number, each, 1.0) for number, each in enumerate(others[:4])]
    expected = {*drawn[-8:], *(each.id for each in others[2:4])}
    assert {row["id"] for row in traced.run(half).written} == expected
    assert set(traced.traces()) == expected
    other = half.model_copy(update={"seed": 8})
    assert drawn != [each.id for each in requests if is_drawn(each.id, other)]


def test_the_assets_say_what_they_wrote_and_where_it_is_seen(
    traced: TracedHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced.requests = [request(number) for number in range(3)]
    traced.write()
    monkeypatch.setenv("LOG", str(traced.log))
    with dg.DagsterInstance.ephemeral() as instance:
        ended = dg.materialize(
            [defs.prediction_log_asset, defs.sampled_traces_asset],
            resources=RESOURCES,
            instance=instance,
            run_config={
                "ops": {
                    "prediction_log": {"config": {"directory": "$LOG"}},
                    "sampled_traces": {"config": {"rate": 1.0}},
                }
            },
        )
    log, traces = (
        ended.asset_materializations_for_node(name)[0].metadata
        for name in ("prediction_log", "sampled_traces")
    )
    assert log["dagster/row_count"].value == 3
    assert log["segments"].value == 1
    assert log["size_mib"].value == round(traced.log_bytes / 2**20, 3) > 0
    assert log["size_as_parquet_mib"].value > 0
    assert [row.data["answered"] for row in log["releases"].value.records] == [3]
    assert (traces["written"].value, traces["from_store"].value) == (3, False)
    listed = [row.data["trace"] for row in traces["traces"].value.records]
    assert listed == [trace_id(each.id) for each in reversed(traced.requests)]
    shown = f"{traces['mlflow'].value}?selectedEvaluationId={listed[0]}"
    assert traces["newest_trace"].value == shown


def test_without_requests_of_users_mlflow_is_left_alone(home: Home) -> None:
    traced = TracedHome(home)
    traced.requests = [request(1, release=SIMULATED)]
    assert traced.run() == Traced()
    assert not home.mlflow_database.exists()


def test_of_endless_votes_the_newest_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampled_traces, "MOST_JUDGED", 3)
    requests = [request(number) for number in range(5)]
    votes = [vote(number, requests[number], 1.0) for number in (0, 1, 2, 3, 1, 4)]
    assert list(newest_votes(votes)) == [requests[number].id for number in (3, 1, 4)]
