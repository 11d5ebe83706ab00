"""Tickets without a fault, to which tests add the faults they look for."""

import json
from pathlib import Path
from typing import Any

from mlops_assets.artifacts import ArtifactStore
from mlops_assets.dataset import expectations, sources, validation
from mlops_assets.dataset.spec import RawDatasetSpec
from mlops_assets.dataset.synthetic import LABELS
from mlops_assets.refs import RawDatasetRef, ValidatedRef


def ticket(number: int, **changes: Any) -> dict[str, Any]:
    """A sound ticket; 24 in a row have every label equally often."""
    labels = {name: values[number % len(values)] for name, values in LABELS.items()}
    text = changes.pop("text", f"question number {number} about something")
    reply = changes.pop("reply", json.dumps(labels))
    return {
        "id": f"t-{number}",
        "timestamp": "2026-01-01T00:00:00Z",
        "customer_id": f"c-{number}",
        "channel": "email",
        "product": labels["product"],
        "language_style": "plain",
        "messages": [
            {"role": "user", "content": text},
            {"role": "assistant", "content": reply},
        ],
    } | changes


def observed(tmp_path: Path, lines: list[Any]) -> RawDatasetRef:
    path = tmp_path / "data.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return sources.observe(RawDatasetSpec(path=str(path)))


def validated(
    store: ArtifactStore, tmp_path: Path, lines: list[Any], **settings: Any
) -> ValidatedRef:
    limits = {"min_rows": 1, "max_quarantined_share": 0.5} | settings
    return validation.validate(
        store, observed(tmp_path, lines), expectations.ValidationSpec(**limits)
    )
