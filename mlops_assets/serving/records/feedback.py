"""What users say of answers: checked against the request log, and on disk before it is
acknowledged.

Whoever votes names a request of its own key, and the vote counts for the user who asked: one for
each request and metric, of several the last. The record carries arm and variant of the request,
so that a release's quality and an experiment's metric need no second look at the log.
"""

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mlops_assets.feedback_record import RATING, FeedbackRecord, read_feedback
from mlops_assets.request_record import RequestRecord
from mlops_assets.serving.gateway.refusal import (
    NOT_FOUND,
    RATE_LIMIT,
    Refusal,
    invalid,
    overloaded,
    unavailable,
)
from mlops_assets.serving.records.logged_requests import find_request
from mlops_assets.serving.records.request_log import LogFailed, SegmentLog
from mlops_assets.serving.traffic.traffic_spec import TrafficSettings

logger = logging.getLogger(__name__)

THUMBS = {"up": 1.0, "down": 0.0}
SEARCHES = 2
"""At the same time: each reads the log at full speed."""
MOST_WAITING = 64
"""Votes that are taken on at the same time."""


class Vote(BaseModel):
    """The body of ``POST /v1/feedback``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    request_id: str = Field(
        min_length=1,
        max_length=64,
        description="The completion's `id`, which is also the header X-Request-Id.",
    )
    metric: str = Field(
        RATING, pattern="^[a-z0-9][a-z0-9._-]{0,63}$", description="What the vote is about."
    )
    rating: Literal["up", "down"] | None = Field(None, description="Thumbs.")
    score: float | None = Field(None, ge=0, le=1, description="In place of thumbs: 0 to 1.")
    correction: str = Field("", max_length=32_768, description="What would have been right.")
    comment: str = Field("", max_length=8192, description="Why.")
    user: str = Field("", max_length=256, description="As in the request; it must be the same.")

    @model_validator(mode="after")
    def _one_of_two(self) -> "Vote":
        if (self.rating is None) == (self.score is None):
            raise ValueError("give either `rating` (up or down) or `score` (0 to 1)")
        return self

    @property
    def value(self) -> float:
        """The vote as a score."""
        return THUMBS[self.rating] if self.rating is not None else float(self.score or 0.0)


class Feedback:
    """Takes votes. To be made inside the event loop."""

    def __init__(
        self,
        log: SegmentLog,
        requests: Path,
        settings: TrafficSettings,
        hash_user: Callable[[str, str], str],
    ) -> None:
        """``requests`` is the directory of the request log; ``hash_user`` gives the name that a
        tenant's user has there."""
        self._log, self._requests, self._settings = log, requests, settings
        self._hash_user = hash_user
        self._searches = asyncio.Semaphore(SEARCHES)
        self._waiting = 0
        self._day = _today()
        self._votes = Counter(
            record.user
            for record in read_feedback(log.directory)
            if record.timestamp.startswith(self._day)
        )

    async def give(self, tenant: str, body: bytes) -> FeedbackRecord:
        """Take a vote; when this returns it is on disk.

        Raises Refusal: 400 for what is no vote, 404 for a request that this key never made or that
        is too old, 429 above the user's votes a day and when too many wait, 503 when the log cannot
        be written.
        """
        vote = _parse(body)
        if self._waiting >= MOST_WAITING:
            raise overloaded()
        self._waiting += 1
        try:
            request = await self._find(vote, tenant)
        finally:
            self._waiting -= 1
        self._count(request.user)
        record = FeedbackRecord(
            id=f"feedback-{secrets.token_hex(12)}",
            timestamp=datetime.now(UTC).isoformat(timespec="milliseconds"),
            request=request.id,
            asked=request.timestamp,
            metric=vote.metric,
            score=vote.value,
            correction=vote.correction,
            comment=vote.comment,
            tenant=tenant,
            user=request.user,
            feature=request.feature,
            release=request.release,
            arm=request.arm,
            experiment=dict(request.experiment),
        )
        await self._write(record)
        return record

    async def _find(self, vote: Vote, tenant: str) -> RequestRecord:
        oldest = datetime.now(UTC) - timedelta(days=self._settings.feedback_days)
        async with self._searches:
            found = await asyncio.to_thread(
                find_request, self._requests, vote.request_id, oldest.timestamp()
            )
        if found is None or found.tenant != tenant or not _is_since(found.timestamp, oldest):
            # Another key's request is answered like none at all: ids tell nothing.
            raise Refusal(
                404,
                NOT_FOUND,
                f"There is no request {vote.request_id!r} of this key in the last"
                f" {self._settings.feedback_days:g} days.",
                param="request_id",
                code="request_not_found",
            )
        if found.status != 200:
            raise invalid("The request got no answer, so there is nothing to judge.", "request_id")
        if vote.user and self._hash_user(tenant, vote.user) != found.user:
            raise invalid("Another user asked this; only who asked may vote.", "user")
        return found

    def _count(self, user: str) -> None:
        if self._day != (today := _today()):
            self._day, self._votes = today, Counter()
        if self._votes[user] >= self._settings.feedback_per_day:
            raise Refusal(
                429,
                RATE_LIMIT,
                f"A user may vote {self._settings.feedback_per_day:,} times a day.",
                _until_midnight(),
                code="feedback_limit_exceeded",
            )
        self._votes[user] += 1

    async def _write(self, record: FeedbackRecord) -> None:
        try:
            self._log.append(record)
            await asyncio.to_thread(self._log.sync)
        except LogFailed as error:
            logger.error("feedback could not be recorded: %s", error)
            raise unavailable(
                "The gateway cannot record feedback now.", 5.0, code="log_unavailable"
            ) from None


def _parse(body: bytes) -> Vote:
    try:
        return Vote.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        said = first["msg"].removeprefix("Value error, ")
        raise invalid(f"{where}: {said}." if where else f"{said}.", where or None) from None


def _is_since(timestamp: str, oldest: datetime) -> bool:
    return datetime.fromisoformat(timestamp) >= oldest


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _until_midnight() -> float:
    now = datetime.now(UTC)
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight - now).total_seconds()
