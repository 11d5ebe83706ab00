"""The loop that takes a candidate to its users, or off them: observations in, ledger rows out.

Each second, and at once when an engine reports trouble, it looks at the release on the ledger, at
the engines and at the logs, and does the next thing: has the engines of stable, candidate and
previous started (previous stays warm, so no rollback waits for an engine), begins a rollout, lets
``rollout.judge`` decide on the stage, and appends the row. It remembers nothing that the ledger
and the logs do not hold.

Taking a candidate off does not wait for the ledger: the users' requests go to stable at once, and
the row is tried again every second until it is written.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home
from mlops_assets.ledger import ROLLED_BACK, Decision, LedgerEntry, Overtaken
from mlops_assets.release_state import WAITING, ReleaseState
from mlops_assets.serving import release_steps
from mlops_assets.serving.desired_state import DesiredState, Withdrawal
from mlops_assets.serving.experiment_state import releases_in_experiments
from mlops_assets.serving.release_spec import ReleaseSpec
from mlops_assets.serving.rollout import ADVANCE, ROLL_BACK, Incidents, StageVerdict, judge
from mlops_assets.serving.rollout_progress import Arms, Progress, seconds
from mlops_assets.serving.upstream import Upstream

logger = logging.getLogger(__name__)

TICK_S = 1.0
RETRY_S = 10.0
"""Before an engine that could not be started is tried again."""


class Engines(Protocol):
    """What starts and stops the engines of releases: ``EngineManager``."""

    crashed: Callable[[str], object]
    mismatched: Callable[[str], object]

    async def ensure(self, entry: LedgerEntry) -> Upstream:
        """A ready and warm engine of this promotion's bundle, whose approval and bytes were
        verified. Raises LineageError."""
        ...

    def is_ready(self, release: str) -> bool:
        """Whether the bundle's engine takes requests now."""
        ...

    async def retire(self, release: str) -> None:
        """Let the bundle's engine finish what it has begun, and end it."""
        ...


@dataclass(frozen=True)
class Failure:
    """Why an engine could not be started, and when that was."""

    problem: str
    at: float
    """Of the monotonic clock."""


class Controller:
    """One model's release. All methods run in the event loop, which none of them holds up."""

    def __init__(
        self,
        home: Home,
        desired: DesiredState,
        engines: Engines,
        spec: ReleaseSpec,
        serving: Path,
    ) -> None:
        """``serving`` is the home's directory of that name."""
        self.upstreams: dict[str, Upstream] = {}
        """The engines that are ready, by the digest of their bundle."""
        self.failures: dict[str, Failure] = {}
        self.listeners: list[Callable[[ReleaseState], object]] = []
        """Told of every new state before anything else is done about it."""
        self.verdict: StageVerdict | None = None
        """The last one, of the candidate of now."""
        self._home, self._desired, self._engines = home, desired, engines
        engines.crashed, engines.mismatched = self.crashed, self.mismatched
        self._spec, self._serving = spec, serving
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._retiring: dict[str, asyncio.Task[None]] = {}
        self._incidents: dict[str, Incidents] = {}
        self._progress: tuple[tuple[int, str], Progress] | None = None
        self._told: ReleaseState | None = None
        self._wake = asyncio.Event()

    def ready(self, digest: str) -> Upstream | None:
        """The engine of a release; None while it is not ready."""
        return self.upstreams.get(digest) if self._engines.is_ready(digest) else None

    def crashed(self, digest: str) -> None:
        """An engine has died."""
        found = self._of(digest)
        self._report(digest, replace(found, crashes=found.crashes + 1))

    def mismatched(self, digest: str) -> None:
        """The bytes of a bundle are not those that were approved."""
        self._report(digest, replace(self._of(digest), digest_mismatch=True))

    def not_finite(self, digest: str) -> None:
        """An engine has answered with a number that is none."""
        found = self._of(digest)
        self._report(digest, replace(found, non_finite=found.non_finite + 1))

    async def run(self) -> None:
        """Go on until cancelled. A failure of one look is logged; the next one follows."""
        loop = asyncio.get_running_loop()
        self._desired.on_change = lambda: loop.call_soon_threadsafe(self._wake.set)
        try:
            while True:
                try:
                    await self.step()
                except Exception:
                    logger.exception("the release controller failed; it goes on")
                await self._pause()
        finally:
            self._desired.on_change = lambda: None
            under_way = [*self._starting.values(), *self._retiring.values()]
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def step(self) -> None:
        """Look once, and do what follows."""
        self._tell()
        self._follow_engines()
        if (decision := await asyncio.to_thread(self._decide)) is not None:
            await self._write(decision)
            self._tell()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(TICK_S):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    def _tell(self) -> None:
        if (state := self._desired.state) != self._told:
            self._told = state
            for listen in self.listeners:
                listen(state)

    def _of(self, digest: str) -> Incidents:
        return self._incidents.get(digest, Incidents())

    def _report(self, digest: str, incidents: Incidents) -> None:
        self._incidents[digest] = incidents
        self._wake.set()

    # Engines

    def _follow_engines(self) -> None:
        """Start what is to be served, stable first; retire what no longer is."""
        desired = self._desired
        served = [*_served(desired.state), *releases_in_experiments(desired.entries, desired.model)]
        wanted: dict[str, LedgerEntry] = {}
        for row in served:
            wanted.setdefault(row.decision.bundle.digest, row)
        for digest in [each for each in self.upstreams if each not in wanted]:
            del self.upstreams[digest]
            self._incidents.pop(digest, None)
            self._retiring[digest] = asyncio.create_task(self._retire(digest))
        for digest, entry in wanted.items():
            if digest in self.upstreams or digest in self._retiring:
                continue
            if digest not in self._starting and not self._failed_lately(digest):
                self._starting[digest] = asyncio.create_task(self._start(digest, entry))
            if digest not in self.failures:
                break  # one after the other: what users wait for gets the whole machine

    def _failed_lately(self, digest: str) -> bool:
        failure = self.failures.get(digest)
        return failure is not None and time.monotonic() < failure.at + RETRY_S

    async def _start(self, digest: str, entry: LedgerEntry) -> None:
        try:
            self.upstreams[digest] = await self._engines.ensure(entry)
            self.failures.pop(digest, None)
        except LineageError as error:
            logger.error("version %d is not served: %s", entry.decision.version, error.problem)
            self.failures[digest] = Failure(error.problem, time.monotonic())
        finally:
            del self._starting[digest]
            self._wake.set()

    async def _retire(self, digest: str) -> None:
        try:
            await self._engines.retire(digest)
        finally:
            del self._retiring[digest]

    # Decisions

    def _decide(self) -> Decision | None:
        """The next row, if there is one to be written. In a thread: the tests take a while."""
        release = self._desired.on_ledger
        candidate = release.candidate
        if candidate is None:
            return self._first(release)
        if (withdrawn := self._desired.withdrawn.get(candidate.entry)) is not None:
            return release_steps.roll_back(release, withdrawn.reason, withdrawn.evidence)
        digest = candidate.decision.bundle.digest
        if (failure := self.failures.get(digest)) and self._desired.problem is None:
            reason = f"it cannot be served: {failure.problem}"
            return release_steps.roll_back(release, reason, {"failure": failure.problem})
        arms = Arms.of(release)
        if release.stage == WAITING:
            ready = self.ready(arms.stable) and self.ready(arms.candidate)
            return release_steps.begin(candidate, self._first_percent()) if ready else None
        if self.ready(digest) is None and digest not in self._incidents:
            return None  # after a restart: its engine is on its way
        return self._judged(release, candidate, arms)

    def _first(self, release: ReleaseState) -> Decision | None:
        """The release of what was promoted before any gateway ran, once it can be served."""
        stable = release.stable
        if stable is None or release.stage != WAITING:
            return None
        ready = self.ready(stable.decision.bundle.digest)
        return release_steps.release_first(stable) if ready else None

    def _first_percent(self) -> int:
        return 0 if self._spec.shadow_share > 0 else self._spec.next_percent(0)

    def _judged(self, release: ReleaseState, candidate: LedgerEntry, arms: Arms) -> Decision | None:
        steps = release_steps.steps_of(self._desired.entries, candidate)
        evidence = self._caught_up(release, candidate, arms, steps).evidence
        now = time.time()
        verdict = self.verdict = judge(
            self._spec,
            release.stage,
            release.percent,
            now - seconds(release.since),
            evidence,
            total_s=now - seconds(steps[0].at),
            incidents=self._of(arms.candidate),
        )
        if verdict.action == ROLL_BACK:
            numbers = {"verdict": release_steps.numbers(verdict)}
            return release_steps.roll_back(release, verdict.reason, numbers)
        if verdict.action == ADVANCE:
            percent = self._spec.next_percent(release.percent)
            return release_steps.advance(candidate, percent, verdict)
        return None

    def _caught_up(
        self,
        release: ReleaseState,
        candidate: LedgerEntry,
        arms: Arms,
        steps: list[LedgerEntry],
    ) -> Progress:
        """The evidence of the stage: read on, or from the beginning when it is a new one."""
        ours = [step for step in steps if step.decision.outcome == release.stage]
        key = (candidate.entry, release.stage)
        if self._progress is None or self._progress[0] != key:
            self._progress = (key, Progress(self._spec, self._serving, arms, ours))
        self._progress[1].catch_up(ours)
        return self._progress[1]

    # Rows

    async def _write(self, decision: Decision) -> None:
        """Append the row; a rollback is in force here before it is written."""
        rows, candidate = self._desired.entries, self._desired.on_ledger.candidate
        back = decision.outcome == ROLLED_BACK
        if back and candidate is not None and candidate.entry not in self._desired.withdrawn:
            logger.warning(
                "version %d is taken back: %s", candidate.decision.version, decision.reason
            )
            self._desired.withdraw(candidate, Withdrawal(decision.reason, decision.evidence))
            self._tell()
            await asyncio.to_thread(self._desired.save)
        ledger, after = self._home.ledger, None if back else rows[-1]
        try:
            row = await asyncio.to_thread(ledger.append, decision, None, after)
            logger.info("%s of version %d: %s", row.decision.outcome, row.decision.version,
                        row.decision.reason)  # fmt: skip
        except Overtaken:
            pass  # another row came in between: what it says is looked at first
        except LineageError as error:
            logger.warning("a row of the release waits: %s", error.problem)
        await asyncio.to_thread(self._desired.refresh)


def _served(state: ReleaseState) -> Iterator[LedgerEntry]:
    """The promotions whose engines have to be ready, the most urgent first."""
    for row in (state.stable, state.candidate, state.previous):
        if row is not None:
            yield row
