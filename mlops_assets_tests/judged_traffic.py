"""Requests, votes and labels, made up for the tests of answer quality."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mlops_assets.artifacts import Artifact, ArtifactStore, Recipe
from mlops_assets.feedback_record import FeedbackRecord
from mlops_assets.monitoring.drift.findings import Finding
from mlops_assets.monitoring.log import prediction_log
from mlops_assets.monitoring.quality.answer_quality import Said, quality_of
from mlops_assets.monitoring.quality.label_store import Draw, Drawn, Label, draw_ids
from mlops_assets.monitoring.quality.quality_spec import QualitySpec
from mlops_assets.monitoring.quality.release_in_force import InForce
from mlops_assets.monitoring_refs import PredictionLogRef
from mlops_assets.request_record import RequestRecord

RELEASE, BEFORE = "a" * 64, "b" * 64
START = datetime(2026, 7, 1, tzinfo=UTC)
ANSWER, OTHER = '{"queue":"billing"}', '{"queue":"shipping"}'
ALPHA = 0.01
SPEC = QualitySpec(window=300, baseline=600, min_requests=100, min_votes=30, min_labels=20)


@dataclass
class Traffic:
    """What was asked, in order of time, and what people said of it."""

    requests: list[RequestRecord] = field(default_factory=list)
    votes: list[FeedbackRecord] = field(default_factory=list)
    draws: list[Draw] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)

    def ask(self, count: int, **changes: Any) -> Sequence[RequestRecord]:
        """More requests; a value that is a function is asked for each of them."""
        begin = len(self.requests)
        for number in range(begin, begin + count):
            said = {key: one(number) if callable(one) else one for key, one in changes.items()}
            self.requests.append(_request(number, **said))
        return self.requests[begin:]

    def vote(self, requests: Sequence[RequestRecord], **said: Any) -> None:
        """Everybody who asked one of these says the same of it."""
        for one in requests:
            vote = {"score": 1.0, "user": one.user, **said}
            self.votes.append(
                FeedbackRecord(
                    id=f"v{len(self.votes)}", timestamp=one.timestamp, request=one.id, **vote
                )
            )

    def draw(self, count: int, seed: int = 1) -> Draw:
        """Draw out of all that was asked."""
        releases = {one.id: one.release for one in self.requests}
        ids = draw_ids(releases, count, seed)
        times = self.requests[0].timestamp, self.requests[-1].timestamp
        chosen = tuple(Drawn(id, releases[id]) for id in ids)
        made = Draw(times[1], seed, *times, len(self.requests), "log", chosen)
        self.draws.append(made)
        return made

    def label(self, draw: Draw, labels: Sequence[str], person: str = "ada") -> None:
        """Label the first requests of a draw."""
        self.labels += [
            Label(one.request, label, person, draw.at, draw.id, one.release)
            for one, label in zip(draw.requests, labels, strict=False)
        ]

    def measure(
        self,
        store: ArtifactStore,
        folder: Path,
        spec: QualitySpec = SPEC,
        in_force: InForce | None = None,
    ) -> dict[str, Any]:
        """The content of ``quality.json``."""
        in_force = in_force or InForce(RELEASE, BEFORE, make_report(store))
        return quality_of(store, self.log(store, folder), self.said, in_force, spec)

    def log(self, store: ArtifactStore, folder: Path) -> PredictionLogRef:
        """The prediction log of these requests."""
        (folder / "log").mkdir(parents=True, exist_ok=True)
        lines = "".join(f"{json.dumps(vars(one))}\n" for one in self.requests)
        (folder / "log" / "segment.jsonl").write_text(lines)
        settings = prediction_log.PredictionLogSpec(directory="log")
        return prediction_log.collect(store, settings, folder)

    @property
    def said(self) -> Said:
        """What people said of it."""
        return Said(self.votes, self.draws, self.labels)


def findings(content: dict[str, Any]) -> dict[str, Finding]:
    """Of the content of ``quality.json``, by name."""
    return {one["name"]: Finding(**one) for one in content["findings"]}


def make_report(store: ArtifactStore, share: float = 0.9) -> Artifact:
    """An evaluation report on 500 test rows, as far as it is read."""

    def produce(directory: Path) -> dict[str, Any]:
        content = {
            "items": 500,
            "exact_match": {"tuned": share},
            "fields": {"queue": {"accuracy": {"tuned": share}}},
        }
        (directory / "report.json").write_text(json.dumps(content))
        return {}

    return store.build(Recipe("eval_report", {}, {"share": share}, "1"), produce)


def _request(number: int, **said: Any) -> RequestRecord:
    fields: dict[str, Any] = {
        "id": f"r{number}",
        "timestamp": (START + timedelta(minutes=number)).isoformat(),
        "release": RELEASE,
        "messages": ({"role": "user", "content": f"where is parcel {number}"},),
        "output": ANSWER,
        "status": 200,
        "user": f"u{number % 50}",
        "latency_ms": 100.0 + number % 40,
        "cost": 0.001 * (1 + number % 7),
        "tokens_out": 10 + number % 5,
        "cached": "exact" if number % 2 else "",
        "slices": {"channel": "email" if number % 3 else "chat"},
    }
    return RequestRecord(**fields | said)
