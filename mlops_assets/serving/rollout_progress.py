"""What the logs say of a candidate so far, read on from where the last look ended.

The request log and the log of mirrored requests are the only source: a controller that was killed
reads them again from the rollout's beginning and knows what it knew. Only requests that say
something about an engine count: not those from the cache, nor those that the caller or the gateway
itself is to blame for.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from mlops_assets.ledger import SHADOW, LedgerEntry
from mlops_assets.refusals import is_refusal
from mlops_assets.release_state import ReleaseState
from mlops_assets.request_record import CANARY, CHAMPION
from mlops_assets.serving.log_tail import Position, blocks
from mlops_assets.serving.observations import Observation
from mlops_assets.serving.release_spec import ReleaseSpec
from mlops_assets.serving.rollout_evidence import Evidence

logger = logging.getLogger(__name__)

REQUESTS, PAIRS = "requests", "shadow"
"""Directories below ``MLOPS_HOME/serving``."""
OURS = {"log_unavailable", "stopping"}
"""Errors that say nothing about an engine: the gateway itself could not go on."""
TOOL_CALLS = "tool_calls"


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
        self._directory = serving / (PAIRS if self.shadow else REQUESTS)
        self._begun = seconds(steps[0].at)
        self._position = _first_segment(self._directory, self._begun)
        self._entered = 1

    def catch_up(self, steps: Sequence[LedgerEntry]) -> None:
        """Take in what was appended since the last time. ``steps``: as above, perhaps with more."""
        starts = [seconds(step.at) for step in steps]
        for lines, position in blocks(self._directory, self._position):
            for line in lines:
                for observation in self._observations(line):
                    self._enter(starts, observation.at)
                    self.evidence.add(observation)
            self._position = position
        self._enter(starts, math.inf)

    def _enter(self, starts: Sequence[float], now: float) -> None:
        while self._entered < len(starts) and starts[self._entered] <= now:
            self.evidence.enter()
            self._entered += 1

    def _observations(self, line: bytes) -> Iterator[Observation]:
        try:
            content = orjson.loads(line)
            if seconds(content["timestamp"]) < self._begun:
                return
            read = _of_pair if self.shadow else _of_request
            found = list(read(content, self._arms))
        except (ValueError, KeyError, TypeError, AttributeError):
            return  # torn when its writer was killed: nobody got that answer
        yield from found


def seconds(stamp: str) -> float:
    """An ISO 8601 time in seconds since the epoch."""
    return datetime.fromisoformat(stamp).timestamp()


def _of_request(content: dict[str, Any], arms: Arms) -> Iterator[Observation]:
    """A line of the request log."""
    arm, status = content["arm"], content["status"]
    if (arm, content["release"]) not in ((CHAMPION, arms.stable), (CANARY, arms.candidate)):
        return
    if content["cached"] or content["error"] in OURS or not (status == 200 or status >= 500):
        return
    yield _observation(arm, content, status != 200, content["finish"] == TOOL_CALLS)


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
    return Observation(
        arm=arm,
        at=seconds(content["timestamp"]),
        failed=failed,
        empty=not failed and not tool_calls and not text.strip(),
        refused=not failed and is_refusal(text),
        # What JSON cannot write comes as null.
        latency_ms=math.nan if latency is None else float(latency),
    )


def _first_segment(directory: Path, begun: float) -> Position:
    """The first segment that was written to since then: the older ones hold nothing of it."""
    for path in sorted(directory.glob("*.jsonl")):
        if path.stat().st_mtime >= begun:
            return Position(path.name, 0)
    return Position()
