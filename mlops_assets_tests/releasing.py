"""A release under way, for the tests: a controller, engines that are only addresses, and a log."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from mlops_assets.artifacts import LineageError
from mlops_assets.feedback_record import FeedbackRecord
from mlops_assets.home import Home
from mlops_assets.ledger import LedgerEntry
from mlops_assets.release_state import ReleaseState, read_release
from mlops_assets.request_record import CANARY, CHAMPION, RequestRecord
from mlops_assets.serving.gateway.upstream import Upstream
from mlops_assets.serving.rollout.controller import Controller
from mlops_assets.serving.rollout.desired_state import DesiredState
from mlops_assets.serving.rollout.release_spec import ReleaseSpec
from mlops_assets.serving.traffic.shadow_pairs import ShadowPair, Side
from mlops_assets_tests.releases import MODEL, make_bundle

QUICK = ReleaseSpec(
    shadow_share=0.0,
    hold_s=0.0,
    minimum_requests=10,
    error_margin=0.5,
    quality_margin=0.5,
    latency_margin=10.0,
)
"""A release that a few requests decide."""


@dataclass
class Addresses:
    """Engines that are ready at once, unless told otherwise."""

    started: list[str] = field(default_factory=list)
    retired: list[str] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)
    """Why the engine of a bundle cannot be started."""
    crashed: Callable[[str], object] = print
    mismatched: Callable[[str], object] = print

    async def ensure(self, entry: LedgerEntry) -> Upstream:
        digest = entry.decision.bundle.digest
        if problem := self.broken.get(digest):
            raise LineageError(problem, "Mend it.")
        self.started.append(digest)
        return Upstream(digest, "http://127.0.0.1:9/v1", "engine")

    def is_ready(self, release: str) -> bool:
        return release in self.started

    async def retire(self, release: str) -> None:
        self.retired.append(release)


class Release:
    """A gateway without its web server: what it wants, what it does, what it has logged."""

    def __init__(self, home: Home, spec: ReleaseSpec = QUICK) -> None:
        self.home, self.engines = home, Addresses()
        self.serving = home.root / "serving"
        self.desired = DesiredState(home, MODEL)
        self.controller = Controller(home, self.desired, self.engines, spec, self.serving)
        self.seen: list[ReleaseState] = []
        self.controller.listeners.append(self.seen.append)
        self._count, self.clock = 0, datetime.now(UTC)
        self._digest = cache(lambda seed: make_bundle(home, seed).digest)

    @property
    def state(self) -> ReleaseState:
        """As the ledger has it."""
        return read_release(self.home.ledger.entries(), MODEL)

    @property
    def where(self) -> str:
        """Stage, percent and stable version on the ledger."""
        stable = self.state.stable
        version = stable.decision.version if stable else 0
        return f"{self.state.stage} {self.state.percent} v{version}"

    async def until(self, reached: Callable[[], object], seconds: float = 60.0) -> None:
        """Look again and again, as the loop does."""
        async with asyncio.timeout(seconds):
            while not reached():
                self.desired.refresh()
                await self.controller.step()
                await asyncio.sleep(0)

    async def reach(self, where: str) -> None:
        await self.until(lambda: self.where == where)

    def answer(self, seed: str, arm: str, count: int = 150, **changes: Any) -> None:
        """Log requests that a release answered."""
        folder = self.serving / "requests"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "00000001.jsonl").open("a", encoding="utf-8") as stream:
            for _ in range(count):
                self._count += 1
                stream.write(json.dumps(asdict(self._record(seed, arm, changes))) + "\n")

    def vote(self, seed: str, arm: str, score: float, count: int) -> None:
        """Log votes on requests that a release answered now."""
        folder = self.serving / "feedback"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "00000001.jsonl").open("a", encoding="utf-8") as stream:
            for _ in range(count):
                self._count += 1
                now, release = self.clock.isoformat(), self._digest(seed)
                record = FeedbackRecord(
                    id=f"v{self._count}",
                    timestamp=now,
                    request=f"r{self._count}",
                    asked=now,
                    score=score,
                    release=release,
                    arm=arm,
                )
                stream.write(json.dumps(asdict(record)) + "\n")

    def pairs(self, count: int, **candidate: Any) -> None:
        """Log mirrored requests; ``candidate`` is what the candidate's side says otherwise."""
        folder = self.serving / "shadow"
        folder.mkdir(parents=True, exist_ok=True)
        stable, other = (self._digest(seed) for seed in "ab")
        live = Side("fine", 20.0)
        with (folder / "00000001.jsonl").open("a", encoding="utf-8") as stream:
            for _ in range(count):
                self._count += 1
                self.clock += timedelta(seconds=1)
                now, id = self.clock.isoformat(), f"r{self._count}"
                shadow = replace(live, **candidate)
                pair = ShadowPair(id, now, stable, other, "Hello?", live, shadow, 9)
                stream.write(json.dumps(asdict(pair)) + "\n")

    def both(self, candidate: str = "b", count: int = 150, **changes: Any) -> None:
        """Log requests of both arms, ten each every two seconds; ``changes`` are the
        candidate's."""
        for _ in range(count // 10):
            self.clock += timedelta(seconds=2)
            self.answer("a", CHAMPION, 10)
            self.answer(candidate, CANARY, 10, **changes)

    def _record(self, seed: str, arm: str, changes: dict[str, Any]) -> RequestRecord:
        told: dict[str, Any] = {
            "id": f"r{self._count}",
            "timestamp": self.clock.isoformat(timespec="milliseconds"),
            "release": self._digest(seed),
            "messages": [],
            "output": "fine",
            "status": 200,
            "arm": arm,
            "latency_ms": 10.0 + self._count * 37 % 101,
            "finish": "stop",
        }
        return RequestRecord(**told | changes)
