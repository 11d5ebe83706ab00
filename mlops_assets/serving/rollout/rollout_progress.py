"""What the logs say of a candidate so far, read on from where the last look ended.

The logs of requests, of mirrored ones and of votes are the only source: a controller that was
killed reads them again from the rollout's beginning and knows what it knew. Only requests that say
something about an engine count: not those from the cache, nor those for whose end the caller or
the gateway itself is to blame.
"""

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from mlops_assets.feedback_record import RATING
from mlops_assets.ledger import SHADOW, LedgerEntry
from mlops_assets.refusals import is_refusal
from mlops_assets.release_state import ReleaseState
from mlops_assets.request_record import CANARY, CHAMPION, LEFT, RequestRecord
from mlops_assets.serving.records.log_tail import Position, blocks
from mlops_assets.serving.records.observations import (
    ENGINE_NOT_FINITE,
    Observation,
    counts_as_failure,
)
from mlops_assets.serving.rollout.release_spec import ReleaseSpec
from mlops_assets.serving.rollout.rollout_evidence import Evidence

REQUESTS, PAIRS, VOTES = "requests", "shadow", "feedback"
"""Directories below ``MLOPS_HOME/serving``."""
OURS = {"log_unavailable", "stopping"}
"""Errors that say nothing about an engine: the gateway itself could not go on."""
TOOL_CALLS = "tool_calls"
FIELDS = tuple(field.name for field in fields(RequestRecord))


@dataclass(frozen=True)
class Arms:
    """The two releases that are compared, by the digests of their bundles."""

    stable: str
    candidate: str

    @classmethod
    def of(cls, release: ReleaseState) -> "Arms":
        """Of a release with a candidate."""
        if release.stable is None or release.candidate is None:
            raise ValueError("no candidate is on its way")
        rows = (release.stable, release.candidate)
        return cls(*(row.decision.bundle.digest for row in rows))


class Progress:
    """The evidence about one candidate, in shadow or as a canary."""

    def __init__(
        self, spec: ReleaseSpec, serving: Path, arms: Arms, steps: Sequence[LedgerEntry]
    ) -> None:
        """``steps`` are the rows of this candidate's stage so far, at least one."""
        self.shadow = steps[-1].decision.outcome == SHADOW
        self.evidence = Evidence(spec, steps[-1].decision.outcome)
        self._arms = arms
        self._begun = seconds(steps[0].at)
        names = (PAIRS,) if self.shadow else (REQUESTS, VOTES)
        self._logs = {name: first_segment(serving / name, self._begun) for name in names}
        self._serving = serving
        self._entered = 1
        self._voted: set[str] = set()

    def catch_up(self, steps: Sequence[LedgerEntry]) -> None:
        """Take in what was appended since the last time. ``steps``: as above, perhaps with more."""
        starts = [seconds(step.at) for step in steps]
        events = heapq.merge(*(self._read(name) for name in self._logs), key=lambda each: each.at)
        for event in events:
            self._enter(starts, event.at)
            if isinstance(event, Observation):
                self.evidence.add(event)
            else:
                self.evidence.vote(event.arm, event.score, event.user)
        self._enter(starts, math.inf)

    def _enter(self, starts: Sequence[float], now: float) -> None:
        while self._entered < len(starts) and starts[self._entered] <= now:
            self.evidence.enter()
            self._entered += 1

    def _read(self, name: str) -> Iterator["Observation | Vote"]:
        """What is new in a log, in the order in which it was written."""
        for lines, position in blocks(self._serving / name, self._logs[name]):
            for line in lines:
                yield from self._events(name, line)
            self._logs[name] = position

    def _events(self, name: str, line: bytes) -> list["Observation | Vote"]:
        try:
            content = orjson.loads(line)
            if seconds(content.get("asked") or content["timestamp"]) < self._begun:
                return []  # of a vote the request's time counts: its control is of the same time
            if name != VOTES:
                read = _of_pair if name == PAIRS else _of_request
                return list(read(content, self._arms))
            vote, request = _of_vote(content, self._arms), str(content["request"])
        except (ValueError, KeyError, TypeError, AttributeError):
            return []  # torn when its writer was killed: nobody got that answer
        if vote is None or request in self._voted:
            return []  # of several votes on one answer the first counts: no test can take it back
        self._voted.add(request)
        return [vote]


@dataclass(frozen=True)
class Vote:
    """What a user said of an answer."""

    arm: str
    at: float
    """Seconds since the epoch."""
    score: float
    user: str
    """In [0, 1]."""


def seconds(stamp: str) -> float:
    """An ISO 8601 time in seconds since the epoch."""
    return datetime.fromisoformat(stamp).timestamp()


def read_request(content: dict[str, Any]) -> tuple[RequestRecord, Observation | None]:
    """A line of the request log, and what it says of the engine, if anything."""
    record = RequestRecord(**{name: content[name] for name in FIELDS if name in content})
    # Who left before the first byte had waited for long enough.
    waited = record.status == LEFT and record.first_byte_ms is None
    failed = waited or counts_as_failure(record)
    if record.cached or record.error in OURS or not (failed or record.status == 200):
        return record, None
    return record, _observation(record.arm, content, failed, record.finish == TOOL_CALLS)


def _of_request(content: dict[str, Any], arms: Arms) -> Iterator[Observation]:
    """A line of the request log."""
    ours = ((CHAMPION, arms.stable), (CANARY, arms.candidate))
    if (content["arm"], content["release"]) in ours:
        _, found = read_request(content)
        if found is not None:
            yield found


def _of_vote(content: dict[str, Any], arms: Arms) -> Vote | None:
    """A line of the feedback log."""
    arm, score = content["arm"], float(content["score"])
    ours = (arm, content["release"]) in ((CHAMPION, arms.stable), (CANARY, arms.candidate))
    if not ours or content["metric"] != RATING or not 0 <= score <= 1:
        return None
    return Vote(arm, seconds(content["timestamp"]), score, str(content.get("user") or ""))


def _of_pair(content: dict[str, Any], arms: Arms) -> Iterator[Observation]:
    """A line of the log of mirrored requests: the user's answer, and the candidate's."""
    if (content["stable"], content["candidate"]) != (arms.stable, arms.candidate):
        return
    for arm, name in ((CHAMPION, "live"), (SHADOW, "shadow")):
        side = content[name]
        at = {"timestamp": content["timestamp"]}
        yield _observation(arm, side | at, bool(side["error"]), side["tool_calls"])


def _observation(arm: str, content: dict[str, Any], failed: bool, tool_calls: bool) -> Observation:
    text, latency = content["output"], content["latency_ms"]
    broke_down = content.get("error") == ENGINE_NOT_FINITE
    return Observation(
        arm=arm,
        at=seconds(content["timestamp"]),
        failed=failed,
        empty=not failed and not tool_calls and not text.strip(),
        refused=not failed and is_refusal(text),
        # What JSON cannot write comes as null; an answer with such a number counts as well.
        latency_ms=math.nan if latency is None or broke_down else float(latency),
        user=str(content.get("user") or ""),
    )


def first_segment(directory: Path, begun: float) -> Position:
    """The first segment that was written to since then, or the last: the older ones hold nothing
    of it."""
    paths = sorted(directory.glob("*.jsonl"))
    young = (path for path in paths if path.stat().st_mtime >= begun)
    first = next(young, paths[-1] if paths else None)
    return Position(first.name, 0) if first else Position()
