"""What users say of answers: appended to a log of its own, and joined to requests by their id.

A line counts for the request that it names only if both are of the same tenant: who reads the
two logs compares them.
"""

import re
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from mlops_assets.request_record import FeedbackRecord
from mlops_assets.serving.api_keys import ApiKey
from mlops_assets.serving.refusal import invalid, unavailable
from mlops_assets.serving.request_log import LogFailed

if TYPE_CHECKING:
    from mlops_assets.serving.gateway import Gateway

REQUEST_ID = re.compile(r"^chatcmpl-[0-9a-f]{32}$")


class FeedbackBody(BaseModel):
    """The body of ``/v1/feedback``."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    request_id: str = Field(pattern=REQUEST_ID, description="Id of the completion.")
    value: Annotated[FiniteFloat, Field(ge=-1e9, le=1e9)] | bool = Field(
        description="The number; true and false are 1 and 0."
    )
    name: str = Field(
        "rating", pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$", description="What was measured."
    )
    comment: str = Field("", max_length=4000, description="In the user's words.")
    user: str = Field("", max_length=256, description="As in the request.")


def take_feedback(gateway: "Gateway", key: ApiKey, body: bytes) -> dict[str, Any]:
    """Write it to the log; returns what the caller is told. Raises Refusal."""
    try:
        given = FeedbackBody.model_validate_json(body)
    except ValidationError as error:
        raise invalid(_explain(error)) from None
    record = FeedbackRecord(
        id=f"feedback-{secrets.token_hex(16)}",
        timestamp=datetime.now(UTC).isoformat(timespec="milliseconds"),
        request=given.request_id,
        tenant=key.name,
        user=gateway.hash_user(key.name, given.user or key.name),
        name=given.name,
        value=float(given.value),
        comment=given.comment,
    )
    try:
        gateway.feedback.append(record)
    except LogFailed:
        gateway.metrics.log_errors.inc()
        raise unavailable("Feedback cannot be recorded now.", 5.0, code="log_unavailable") from None
    return {"id": record.id, "object": "feedback", "request_id": record.request}


def _explain(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"][:1]) or "The body"
    return f"{where}: {first['msg'].lower()}."
