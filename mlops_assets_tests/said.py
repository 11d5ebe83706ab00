"""What people said of answers, and the log it is about, written as the gateway writes them."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mlops_assets.artifacts import Recipe
from mlops_assets.feedback_record import FeedbackRecord
from mlops_assets.home import Home
from mlops_assets.monitoring.log.prediction_log import PredictionLogSpec, collect
from mlops_assets.monitoring.quality.label_store import Label, labels_directory, write_labels
from mlops_assets.monitoring_refs import PredictionLogRef
from mlops_assets.privacy import DEFAULT_REGIONS
from mlops_assets.refs import (
    Row,
    SplitsRef,
    Versions,
    write_jsonl,
)
from mlops_assets.request_record import RequestRecord

LABELS = {"queue": ("billing", "shipping", "login"), "priority": ("low", "high")}
VERSIONS = Versions("d" * 32, "p" * 64, "e" * 64)


def answer(queue: str = "billing", priority: str = "low") -> str:
    return json.dumps({"queue": queue, "priority": priority})


def request(number: int, text: str = "", user: str = "", **more: Any) -> RequestRecord:
    """A question that was answered wrongly."""
    fields = {
        "id": f"r{number}",
        "timestamp": f"2026-03-01T{number // 60 % 24:02d}:{number % 60:02d}:00.000+00:00",
        "release": "f" * 64,
        "messages": ({"role": "user", "content": text or words(number)},),
        "output": answer("shipping"),
        "slices": {"channel": "chat"},
        "status": 200,
        "tenant": "shop",
        "user": user or f"user{number}",
    }
    return RequestRecord(**fields | more)


def words(number: int) -> str:
    """A text that is like no other's."""
    return " ".join(f"{word}{number}" for word in ("lamp", "sofa", "drum", "kite", "moss"))


def vote(asked: RequestRecord, correction: str = "", **more: Any) -> FeedbackRecord:
    fields = {
        "id": f"feedback-{asked.id}",
        "timestamp": asked.timestamp.replace("2026-03-01", "2026-03-02"),
        "request": asked.id,
        "asked": asked.timestamp,
        "score": 0.0,
        "correction": correction,
        "tenant": asked.tenant,
        "user": asked.user,
        "release": asked.release,
    }
    return FeedbackRecord(**fields | more)


def label(asked: RequestRecord, said: str, person: str = "ann") -> Label:
    return Label(asked.id, said, person, "2026-03-03T00:00:00+00:00", "draw", asked.release)


def write_log(home: Home, requests: Sequence[RequestRecord]) -> PredictionLogRef:
    """The requests as the gateway's log, read by the asset ``prediction_log``."""
    folder = home.root / "serving" / "requests"
    _write(folder / "0001.jsonl", requests)
    return collect(home.store, PredictionLogSpec(directory=str(folder)), Path("/"))


def write_votes(home: Home, votes: Sequence[FeedbackRecord]) -> None:
    _write(home.feedback / "0001.jsonl", votes)


def write_given(home: Home, labels: Sequence[Label]) -> None:
    if labels:
        write_labels(labels_directory(home), labels)


def _write(path: Path, items: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(asdict(item)) + "\n" for item in items))


def make_splits(
    home: Home, privacy: dict[str, str] | None = None, labels: Any = LABELS, **texts: Sequence[Any]
) -> SplitsRef:
    """Splits of these texts by split's name, of one text each where nothing is said."""
    said = {"train": ["what to train"], "validation": ["what to choose"], "test": ["what to test"]}
    rows = {
        name: [row(f"{name}-{at}", text) for at, text in enumerate(asked)]
        for name, asked in (said | texts).items()
    }

    def produce(folder: Path) -> dict[str, Any]:
        for name, found in rows.items():
            write_jsonl(folder / f"{name}.jsonl", found)
        return {"limits": {"near_duplicate_similarity": 0.9}}

    inputs = {name: json.dumps([asdict(one) for one in found]) for name, found in rows.items()}
    artifact = home.store.build(Recipe("dataset_splits", inputs, {}, "1"), produce)
    policy = {"email": "redact"} if privacy is None else privacy
    settings = {"privacy": policy, "ner_model": "", "phone_regions": list(DEFAULT_REGIONS)}
    settings |= {"max_characters": 500}
    counts = {name: len(found) for name, found in rows.items()}
    return SplitsRef(artifact, VERSIONS, counts, labels, {"validated_dataset": settings})


def row(id: str, text: str | dict[str, Any]) -> Row:
    """A row that asks this, or one that feedback gave."""
    if isinstance(text, dict):
        return Row(text["id"], text["timestamp"], text["group"], tuple(text["messages"]), {})
    turns = ({"role": "user", "content": text}, {"role": "assistant", "content": answer()})
    return Row(id, "2026-01-01T00:00:00Z", id, turns, {})


def later(said: FeedbackRecord, **more: Any) -> FeedbackRecord:
    """The same person's next vote on the same request."""
    return replace(said, id=f"{said.id}-again", timestamp=said.timestamp[:-6] + "+00:00", **more)
