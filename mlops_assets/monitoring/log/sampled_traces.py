"""Sampled requests as traces in MLflow, with what users said of them.

Traces and votes are looked for before they are written, and a trace's id follows from its
request's: nothing is there twice, whatever was killed when. Votes are attached whenever they come,
also to a trace of an earlier run.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from mlops_assets.artifacts import SHORT, ArtifactStore, LineageError
from mlops_assets.feedback_record import FeedbackRecord, read_feedback
from mlops_assets.home import Home
from mlops_assets.monitoring.log.trace_entities import (
    VOTE,
    correction_name,
    make_correction,
    make_feedback,
    make_info,
    make_span,
    trace_id,
)
from mlops_assets.monitoring.log.trace_sample import TraceSampleSpec, sample
from mlops_assets.monitoring_refs import PredictionLogRef
from mlops_assets.tracking import mlflow_environment_kept, mlflow_reachable, prepare_experiment

if TYPE_CHECKING:
    from mlflow.entities import Assessment, TraceInfo

EXPERIMENT = "mlops-assets-production"
MOST_JUDGED = 20_000
"""Requests whose votes are looked at, of the newest: what is held in memory at once."""
AT_ONCE = 100  # requests that one query asks for
SPANS_AT_ONCE = 20  # that one message to MLflow holds
SHOWN = 20  # traces that the asset lists
TRACE_COLUMNS = {
    "time (UTC)": "string",
    "request": "string",
    "release": "string",
    "arm": "string",
    "status": "int",
    "trace": "string",
}

Votes = Mapping[str, Mapping[str, FeedbackRecord]]
"""By request and metric the vote that counts."""


@dataclass
class Traced:
    """What one run wrote."""

    experiment: str = ""
    """MLflow's id; empty where nothing was to be written."""
    known: int = 0
    """Sampled requests that had a trace already."""
    attached: int = 0
    """Votes and corrections that were attached."""
    written: list[dict[str, Any]] = field(default_factory=list)
    """Rows of the log, newest first."""


def trace_sample(
    home: Home, store: ArtifactStore, log: PredictionLogRef, spec: TraceSampleSpec
) -> Traced:
    """Write the sample of the log and the votes that have come. Raises LineageError when MLflow
    cannot be used."""
    votes = newest_votes(read_feedback(home.feedback))
    rows = list(sample(store, log, votes.keys(), spec))
    if not rows and not votes:
        return Traced()
    with mlflow_reachable(home), mlflow_environment_kept():
        experiment = prepare_experiment(home, EXPERIMENT)
        found = {each.client_request_id for each in _find(experiment, [row["id"] for row in rows])}
        new = [row for row in rows if row["id"] not in found]
        _write(home, experiment, new)
        attached = sum(
            _attach(info, votes[info.client_request_id])
            for info in _find(experiment, votes)
            if info.client_request_id
        )
    return Traced(experiment, len(rows) - len(new), attached, new)


def trace_rows(traced: Traced) -> list[dict[str, Any]]:
    """The newest traces that were written, for people: when, how it ended, its id in MLflow."""
    return [
        {
            "time (UTC)": f"{row['timestamp']:%Y-%m-%d %H:%M:%S}",
            "request": row["id"],
            "release": row["release"][:SHORT],
            "arm": row["arm"],
            "status": row["status"],
            "trace": trace_id(row["id"]),
        }
        for row in traced.written[:SHOWN]
    ]


def newest_votes(records: Iterable[FeedbackRecord]) -> Votes:
    """The last vote on each metric of the requests that were last voted on."""
    votes: dict[str, dict[str, FeedbackRecord]] = {}
    for record in records:
        votes[record.request] = votes.pop(record.request, {}) | {record.metric: record}
        if len(votes) > MOST_JUDGED:
            del votes[next(iter(votes))]
    return votes


def _find(experiment: str, requests: Iterable[str]) -> "Iterator[TraceInfo]":
    """The traces of these requests, with what people said of them."""
    import mlflow

    client, left = mlflow.MlflowClient(), iter(requests)
    while batch := list(islice(left, AT_ONCE)):
        listed = ", ".join(f"'{trace_id(each)}'" for each in batch)
        found = client.search_traces(
            locations=[experiment],
            filter_string=f"request_id IN ({listed})",
            max_results=AT_ONCE,
            include_spans=False,
        )
        yield from (trace.info for trace in found)


def _write(home: Home, experiment: str, rows: Iterable[dict[str, Any]]) -> None:
    from mlflow.tracing.client import TracingClient

    client, left = TracingClient(home.mlflow_uri), iter(rows)
    while batch := list(islice(left, SPANS_AT_ONCE)):
        # Spans first: only what ``start_trace`` has closed has a request's id to be found by.
        try:
            client.log_spans(experiment, [make_span(row) for row in batch])
        except NotImplementedError as error:
            raise LineageError(
                f"The MLflow server at {home.mlflow_label} takes no spans.",
                "Bring it to 3.4 or newer, or set rate and max_judged of sampled_traces to 0.",
            ) from error
        for row in batch:
            client.start_trace(make_info(row, experiment))


def _attach(info: "TraceInfo", votes: Mapping[str, FeedbackRecord]) -> int:
    """Attach what is not attached yet; returns how much that was."""
    attached = 0
    for vote in votes.values():
        attached += _log_once(info, vote, make_feedback(vote))
        if vote.correction:
            attached += _log_once(info, vote, make_correction(vote))
        else:
            _take_back(info, correction_name(vote))
    return attached


def _log_once(info: "TraceInfo", vote: FeedbackRecord, made: "Assessment") -> bool:
    """Log it unless it is there; what the user said before of the same is taken back by it."""
    import mlflow

    for each in _said(info, made.name):
        if type(each) is type(made):
            if each.metadata[VOTE] == vote.id:
                return False
            made.overrides = each.assessment_id
    mlflow.log_assessment(info.trace_id, made)
    return True


def _take_back(info: "TraceInfo", correction: str) -> None:
    """The vote that counts has no correction: one of an earlier vote counts no more."""
    import mlflow
    from mlflow.entities import Expectation

    for each in _said(info, correction):
        if isinstance(each, Expectation):
            mlflow.delete_assessment(info.trace_id, each.assessment_id)


def _said(info: "TraceInfo", name: str) -> "list[Assessment]":
    """What votes say under this name and nobody has taken back; what others add in MLflow is
    theirs."""
    ours = (each for each in info.assessments if each.metadata and VOTE in each.metadata)
    return [each for each in ours if each.name == name and each.valid is not False]
