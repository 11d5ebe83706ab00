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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home
from mlops_assets.ledger import ROLLED_BACK, SHADOW, Decision, LedgerEntry, Overtaken
from mlops_assets.release_state import WAITING, ReleaseState
from mlops_assets.serving.engines.release_engines import Engines, ReleaseEngines
from mlops_assets.serving.rollout import release_steps
from mlops_assets.serving.rollout.desired_state import DesiredState, Known, Withdrawal
from mlops_assets.serving.rollout.release_spec import ReleaseSpec
from mlops_assets.serving.rollout.rollout import ADVANCE, ROLL_BACK, Incidents, StageVerdict, judge
from mlops_assets.serving.rollout.rollout_evidence import Evidence
from mlops_assets.serving.rollout.rollout_progress import Arms, Progress, seconds
from mlops_assets.serving.traffic.experiment_state import releases_in_experiments
from mlops_assets.serving.traffic.shadow_report import ShadowReports

logger = logging.getLogger(__name__)

TICK_S = 1.0


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
        self.listeners: list[Callable[[ReleaseState], object]] = []
        """Told of every new state before anything else is done about it."""
        self.verdict: StageVerdict | None = None
        """The last one, of the candidate of now."""
        engines.crashed, engines.mismatched = self.crashed, self.mismatched
        self._wake = asyncio.Event()
        self._engines = ReleaseEngines(engines, self._wake.set)
        self.ready = self._engines.ready
        self._home, self._desired = home, desired
        self._spec, self._serving, self._reports = spec, serving, ShadowReports(home)
        self._incidents: dict[str, Incidents] = {}
        self._progress: tuple[tuple[int, str], Progress] | None = None
        self._told: ReleaseState | None = None

    def crashed(self, digest: str) -> None:
        """An engine has died."""
        found = self._of(digest)
        self._report(digest, replace(found, crashes=found.crashes + 1))

    def mismatched(self, digest: str) -> None:
        """The bytes of a bundle are not those that were approved."""
        self._report(digest, replace(self._of(digest), digest_mismatch=True))

    def withheld(self, digest: str) -> bool:
        """Whether a release is not served because it failed: its files, or its engine's start."""
        return digest in self._engines.failures or self._of(digest).digest_mismatch

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
            await self._engines.close()

    async def step(self) -> None:
        """Look once, and do what follows."""
        self._tell()
        self._follow_engines()
        known = self._desired.known  # one look at the ledger, for deciding and for writing
        if (decision := await asyncio.to_thread(self._decide, known)) is not None:
            await self._write(decision, known)
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
            if self._told is None or state.candidate != self._told.candidate:
                self._forgive()
            self._told = state
            for listen in self.listeners:
                listen(state)

    def _forgive(self) -> None:
        """A rollout begins or ends: what engines did before says nothing about it. Bytes that are
        still not what was approved stay so."""
        self._incidents = {
            digest: Incidents(digest_mismatch=True)
            for digest, found in self._incidents.items()
            if found.digest_mismatch and self.ready(digest) is None
        }

    def _of(self, digest: str) -> Incidents:
        return self._incidents.get(digest, Incidents())

    def _report(self, digest: str, incidents: Incidents) -> None:
        self._incidents[digest] = incidents
        self._wake.set()

    def _follow_engines(self) -> None:
        desired = self._desired
        served: dict[str, LedgerEntry] = {}
        for row in _served(desired.state, desired.entries):
            served.setdefault(row.decision.bundle.digest, row)
        for digest in self._engines.follow(served):
            self._incidents.pop(digest, None)

    # Decisions

    def _decide(self, known: Known) -> Decision | None:
        """The next row, if there is one to be written. In a thread: the tests take a while."""
        release = known.release
        candidate = release.candidate
        if candidate is None:
            return self._first(release)
        if (withdrawn := self._desired.withdrawn.get(candidate.entry)) is not None:
            return release_steps.roll_back(release, withdrawn.reason, withdrawn.evidence)
        digest = candidate.decision.bundle.digest
        if (failure := self._engines.failures.get(digest)) and self._desired.problem is None:
            reason = f"it cannot be served: {failure.problem}"
            return release_steps.roll_back(release, reason, {"failure": failure.problem})
        arms = Arms.of(release)
        if release.stage == WAITING:
            return self._begun(release, candidate, arms)
        if self.ready(digest) is None and digest not in self._incidents:
            return None  # after a restart: its engine is on its way
        steps = release_steps.steps_of(known.entries, candidate)
        return self._judged(release, candidate, arms, steps)

    def _first(self, release: ReleaseState) -> Decision | None:
        """The release of what was promoted before any gateway ran, once it can be served."""
        stable = release.stable
        if stable is None or release.stage != WAITING:
            return None
        ready = self.ready(stable.decision.bundle.digest)
        return release_steps.release_first(stable) if ready else None

    def _begun(self, release: ReleaseState, candidate: LedgerEntry, arms: Arms) -> Decision | None:
        """The first step, once both engines are ready; none, if the candidate's broke meanwhile."""
        nothing, found = Evidence(self._spec, SHADOW), self._of(arms.candidate)
        verdict = judge(self._spec, SHADOW, 0, 0.0, nothing, total_s=0.0, incidents=found)
        if verdict.action == ROLL_BACK:
            numbers = {"verdict": release_steps.numbers(verdict)}
            return release_steps.roll_back(release, verdict.reason, numbers)
        ready = self.ready(arms.stable) and self.ready(arms.candidate)
        return release_steps.begin(candidate, self._first_percent()) if ready else None

    def _first_percent(self) -> int:
        return 0 if self._spec.shadow_share > 0 else self._spec.next_percent(0)

    def _judged(
        self,
        release: ReleaseState,
        candidate: LedgerEntry,
        arms: Arms,
        steps: list[LedgerEntry],
    ) -> Decision | None:
        spec = release_steps.with_steps(self._spec, steps)
        evidence = self._evidence(spec, release, candidate, arms, steps)
        now = time.time()
        verdict = self.verdict = judge(
            spec,
            release.stage,
            release.percent,
            now - seconds(release.since),
            evidence,
            total_s=now - seconds(steps[0].at),
            incidents=self._of(arms.candidate),
        )
        if verdict.action not in (ADVANCE, ROLL_BACK):
            return None
        numbers = {"verdict": release_steps.numbers(verdict)}
        if release.stage == SHADOW:
            numbers |= self._reports.on(candidate, arms, release.since, numbers["verdict"])
        if verdict.action == ROLL_BACK:
            return release_steps.roll_back(release, verdict.reason, numbers)
        percent = spec.next_percent(release.percent)
        return release_steps.advance(candidate, percent, verdict.reason, numbers)

    def _evidence(
        self,
        spec: ReleaseSpec,
        release: ReleaseState,
        candidate: LedgerEntry,
        arms: Arms,
        steps: list[LedgerEntry],
    ) -> Evidence:
        """The evidence of the stage: read on, or from the beginning when it is a new one.

        While the logs cannot be read there is none: nothing lets the candidate on, but what needs
        no statistics and the deadline take it back.
        """
        ours = [step for step in steps if step.decision.outcome == release.stage]
        key = (candidate.entry, release.stage)
        try:
            if self._progress is None or self._progress[0] != key:
                self._progress = (key, Progress(spec, self._serving, arms, ours))
            self._progress[1].catch_up(ours)
        except Exception:
            logger.exception("the logs of the release cannot be read")
            self._progress = None  # it was read half: going on would count requests twice
            return Evidence(spec, release.stage)
        return self._progress[1].evidence

    # Rows

    async def _write(self, decision: Decision, known: Known) -> None:
        """Append the row; a rollback is in force here before it is written.

        Any other row is written behind those that it was decided on, or not at all. A rollback
        names the one champion that it undoes, whatever came in between.
        """
        candidate, back = known.release.candidate, decision.outcome == ROLLED_BACK
        if back and candidate is not None and candidate.entry not in self._desired.withdrawn:
            logger.warning(
                "version %d is taken back: %s", candidate.decision.version, decision.reason
            )
            self._desired.withdraw(candidate, Withdrawal(decision.reason, decision.evidence))
            self._tell()
            await asyncio.to_thread(self._desired.save)
        ledger, after = self._home.ledger, None if back else known.entries[-1]
        try:
            row = await asyncio.to_thread(ledger.append, decision, None, after)
            outcome, reason = row.decision.outcome.replace("_", " "), row.decision.reason
            logger.info("version %d, %s: %s", row.decision.version, outcome, reason)
        except Overtaken:
            pass  # another row came in between: what it says is looked at first
        except LineageError as error:
            logger.warning("a row of the release waits: %s", error.problem)
        await asyncio.to_thread(self._desired.refresh)


def _served(state: ReleaseState, entries: Sequence[LedgerEntry]) -> Iterator[LedgerEntry]:
    """The promotions whose engines have to be ready, the most urgent first."""
    for row in (state.stable, state.candidate, state.previous):
        if row is not None:
            yield row
    if state.stable is not None:
        yield from releases_in_experiments(entries, state.stable.decision.model)
