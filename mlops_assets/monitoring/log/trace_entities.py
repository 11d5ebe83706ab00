"""A request of the log as a trace of MLflow, and a vote as what people said of it.

What somebody wrote is redacted: MLflow is read by more people than the log. A trace's id follows
from the request's, so a request has one trace however often it is written.
"""

import base64
import hashlib
import json
from collections import Counter
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from mlops_assets.feedback_record import RATING, FeedbackRecord
from mlops_assets.privacy import DEFAULT_POLICY, Detector, redact

if TYPE_CHECKING:
    from mlflow.entities import Expectation, Feedback, Span, TraceInfo

NAME = "chat"
TAG = "mlops."
TAGGED = ("release", "arm", "feature", "status", "model", "cached", "error", "finish")
PREVIEW = 1000
"""Letters of question and answer that lists show."""
LONGEST = 20_000
"""Letters of a message, an answer or a correction that a trace holds."""
VOTE = "feedback_id"
"""Where an assessment says which vote it is."""
CORRECTION = "correction"


def trace_id(request: str) -> str:
    """MLflow's id of the request's trace."""
    return f"tr-{_hash(request)[:32]}"


def make_span(row: dict[str, Any]) -> "Span":
    """The request's one span: question, answer, tokens and cost, at the times of the log."""
    from mlflow.entities import Span
    from mlflow.tracing.constant import SpanAttributeKey as Key

    tokens = row["tokens_in"], row["tokens_out"]
    usage = {"input_tokens": tokens[0], "output_tokens": tokens[1], "total_tokens": sum(tokens)}
    attributes = {
        Key.REQUEST_ID: trace_id(row["id"]),
        Key.SPAN_TYPE: "CHAT_MODEL",
        Key.INPUTS: {"messages": question(row)},
        Key.OUTPUTS: answer(row),
        Key.CHAT_USAGE: usage,
        Key.MODEL: row["model"],
        Key.LLM_COST: {"total_cost": row["cost"]},
        **{name: row[name] for name in ("latency_ms", "first_byte_ms") if row[name] is not None},
    }
    begin, end = _times(row)
    identity = _hash(row["id"])
    return Span.from_dict(
        {
            "trace_id": _base64(identity[:32]),
            "span_id": _base64(identity[32:48]),
            "parent_span_id": None,
            "name": NAME,
            "start_time_unix_nano": begin * 10**6,
            "end_time_unix_nano": end * 10**6,
            "events": [],
            "status": {"code": f"STATUS_CODE_{_state(row)}", "message": row["error"]},
            "attributes": {name: json.dumps(value) for name, value in attributes.items()},
        }
    )


def make_info(row: dict[str, Any], experiment: str) -> "TraceInfo":
    """What lists of traces show of the request; slices and the tags in ``TAGGED`` can be searched
    for."""
    from mlflow.entities import TraceInfo, TraceLocation, TraceState
    from mlflow.tracing.constant import TraceMetadataKey, TraceTagKey

    begin, end = _times(row)
    slices = {f"{TAG}slice.{name}": redact(value)[0] for name, value in row["slices"]}
    tags = {f"{TAG}{name}": str(row[name]) for name in TAGGED if row[name] not in ("", None)}
    asked = question(row)
    return TraceInfo(
        trace_id=trace_id(row["id"]),
        trace_location=TraceLocation.from_experiment_id(experiment),
        request_time=begin,
        state=TraceState(_state(row)),
        request_preview=asked[-1]["content"][:PREVIEW] if asked else "",
        response_preview=answer(row)[:PREVIEW],
        client_request_id=row["id"],
        execution_duration=end - begin,
        trace_metadata={
            TraceMetadataKey.TRACE_USER: row["user"],
            f"{TAG}w3c_trace": row["trace"],
            f"{TAG}tenant": row["tenant"],
        },
        tags={TraceTagKey.TRACE_NAME: NAME, **tags, **slices},
    )


def make_feedback(vote: FeedbackRecord) -> "Feedback":
    """What a user scored, and why."""
    from mlflow.entities import AssessmentSource, Feedback

    return Feedback(
        name=vote.metric,
        value=vote.score,
        source=AssessmentSource("HUMAN", vote.user),
        rationale=redact(vote.comment)[0] or None,
        metadata={VOTE: vote.id},
        create_time_ms=_milliseconds(vote.timestamp),
        last_update_time_ms=_milliseconds(vote.timestamp),
    )


def correction_name(vote: FeedbackRecord) -> str:
    """How MLflow calls a vote's correction: votes on different metrics correct for themselves."""
    return CORRECTION if vote.metric == RATING else f"{CORRECTION}.{vote.metric}"


def make_correction(vote: FeedbackRecord) -> "Expectation":
    """The answer that would have been right, as a user said."""
    from mlflow.entities import AssessmentSource, Expectation

    return Expectation(
        name=correction_name(vote),
        value=_redacted(vote.correction),
        source=AssessmentSource("HUMAN", vote.user),
        metadata={VOTE: vote.id},
        create_time_ms=_milliseconds(vote.timestamp),
        last_update_time_ms=_milliseconds(vote.timestamp),
    )


def question(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The request's messages, redacted."""
    redacted = _detector().scan_json(json.loads(row["messages"]), Counter())
    return [each | {"content": str(each.get("content") or "")[:LONGEST]} for each in redacted]


def answer(row: dict[str, Any]) -> str:
    """The answer's text, redacted."""
    return _redacted(row["output"])


def _redacted(text: str) -> str:
    """Also where it is JSON, whose escapes would hide something."""
    redacted: str = _detector().scan_json(text, Counter())
    return redacted[:LONGEST]


@cache
def _detector() -> Detector:
    return Detector(DEFAULT_POLICY)


def _state(row: dict[str, Any]) -> str:
    return "OK" if row["status"] == 200 else "ERROR"


def _times(row: dict[str, Any]) -> tuple[int, int]:
    """Begin and end in milliseconds since the epoch: the log's time is that of the end."""
    end = int(row["timestamp"].timestamp() * 1000)
    return end - round(row["latency_ms"]), end


def _milliseconds(timestamp: str) -> int:
    return int(datetime.fromisoformat(timestamp).timestamp() * 1000)


def _hash(request: str) -> str:
    return hashlib.sha256(request.encode()).hexdigest()


def _base64(digits: str) -> str:
    return base64.b64encode(bytes.fromhex(digits)).decode()
