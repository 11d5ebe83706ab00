"""What an asset hands to the next, as the JSON in which it is stored."""

import json
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter

from mlops_assets.artifacts import LineageError
from mlops_assets.monitoring_refs import (
    AnswerQualityRef,
    DriftReferenceRef,
    DriftReportRef,
    FeedbackRowsRef,
    PredictionLogRef,
)
from mlops_assets.refs import (
    AdapterRef,
    BaseModelRef,
    DecisionRef,
    EvalReportRef,
    GateRef,
    RawDatasetRef,
    RegisteredModelRef,
    SplitsRef,
    ValidatedRef,
)

Ref = (
    RawDatasetRef
    | ValidatedRef
    | SplitsRef
    | BaseModelRef
    | AdapterRef
    | EvalReportRef
    | GateRef
    | RegisteredModelRef
    | DecisionRef
    | PredictionLogRef
    | DriftReferenceRef
    | AnswerQualityRef
    | DriftReportRef
    | FeedbackRowsRef
)
_TYPES: dict[str, type[Any]] = {kind.__name__: kind for kind in Ref.__args__}


def dump_ref(ref: Ref) -> bytes:
    """JSON of a ref with its type's name."""
    return json.dumps({"type": type(ref).__name__} | asdict(ref), indent=1).encode()


def load_ref(data: bytes) -> Ref:
    """The inverse of ``dump_ref``. Raises LineageError for anything else."""
    try:
        fields = json.loads(data)
        kind = _TYPES[fields.pop("type")]
        ref: Ref = TypeAdapter(kind).validate_python(fields)
    except (ValueError, KeyError, TypeError) as error:
        raise LineageError(
            "A stored asset reference cannot be read.", "Materialise the asset again."
        ) from error
    return ref
