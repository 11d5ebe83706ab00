"""What the dataset's assets show, for rows of every shape."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mlops_assets.dataset.defs import defs
from mlops_assets.resources import RESOURCES

TOOLS = [{"type": "function", "function": {"name": "track", "parameters": {"type": "object"}}}]


def asked(number: int) -> dict[str, Any]:
    return {"role": "user", "content": f"Where is parcel {number} | {number % 7}?"}


def said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def free_text(number: int) -> dict[str, Any]:
    return {"messages": [asked(number), said(f"On its way, stop {number}.")]}


def labelled(number: int) -> dict[str, Any]:
    return {"messages": [asked(number), said(json.dumps({"queue": "ab"[number % 2]}))]}


def tool_call(number: int) -> dict[str, Any]:
    function = {"name": "track", "arguments": {"parcel": number}}
    call = {"id": "c", "type": "function", "function": function}
    turns = [
        {"role": "system", "content": "Be brief."},
        asked(number),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": ""},
        said(f"At stop {number}."),
    ]
    return {"messages": turns, "tools": TOOLS}


def preference(number: int) -> dict[str, Any]:
    question = asked(number)["content"]
    return {"prompt": question, "chosen": f"At stop {number}.", "rejected": "No idea."}


def materialize(path: Path, labels: dict[str, list[str]]) -> dict[str, Any]:
    """The metadata of each asset and check, as plain values."""
    settings = {"labels": labels, "slices": [], "require_timestamp": False, "min_rows": 10}
    config = {"raw_dataset": {"path": str(path)}, "validated_dataset": settings}
    result = dg.materialize(
        [*(defs.assets or ()), *(defs.asset_checks or ())],  # type: ignore[list-item]
        resources=RESOURCES,
        run_config={"ops": {name: {"config": given} for name, given in config.items()}},
    )
    shown = {
        event.asset_key.to_user_string(): event.materialization.metadata
        for event in result.get_asset_materialization_events()
        if event.asset_key
    }
    assert all(check.passed for check in result.get_asset_check_evaluations())
    return {
        name: {
            key: value if isinstance(value, dg.TableMetadataValue) else value.value
            for key, value in metadata.items()
        }
        for name, metadata in shown.items()
    }


@pytest.mark.parametrize(
    ("record", "labels", "bad", "classes"),
    [
        (free_text, {}, [], "The answers are free text."),
        (tool_call, {}, ["{"], "The answers are free text."),
        (preference, {}, [], "The answers are free text."),
        (labelled, {"queue": []}, [], "data:image/png;base64,"),
    ],
)
def test_pages_of_rows_of_every_shape(
    tmp_path: Path, record: Any, labels: dict[str, list[str]], bad: list[str], classes: str
) -> None:
    path = tmp_path / "data.jsonl"
    lines = [json.dumps(record(number)) for number in range(80)]
    path.write_text("".join(f"{line}\n" for line in [*lines, *bad]), encoding="utf-8")
    shown = materialize(path, labels)
    valid, splits = shown["validated_dataset"], shown["dataset_splits"]
    assert (valid["rows_in"], valid["rows"]) == (80 + len(bad), 80)
    assert valid["quarantined"] == len(bad)
    reasons = [row.data.get("reason") for row in valid["quarantine_by_reason"].records]
    assert reasons == (["broken_json"] if bad else [None])
    assert classes in valid["class_balance"]
    assert valid["contradicted_rows"] == 0
    assert splits["rows"] == 80
    assert ("| queue |" if labels else "free text") in splits["label_mix"]
    assert len(valid["preview"].splitlines()) == len(splits["preview"].splitlines()) == 7
