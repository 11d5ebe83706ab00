"""The story: the world changes, the system notices, learns and releases; then it is sabotaged.

Each step waits for the real state that shows it, and tells where that stands.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import dagster as dg

from mlops_assets.dataset.synthetic import Mix
from mlops_assets.ledger import CANARY, PROMOTED, RELEASED, ROLLED_BACK, LedgerEntry
from mlops_assets.monitoring.drift.findings import DRIFT, LAYERS, NO_DRIFT, NO_VERDICT
from mlops_assets.monitoring.feedback.lessons import CORRECTION, LABEL
from mlops_assets.monitoring_refs import DriftReportRef, PredictionLogRef
from mlops_assets_tests.loop.real_state import REASON
from mlops_assets_tests.loop.stage import SEED, Stage
from mlops_assets_tests.loop.users import Heard
from mlops_assets_tests.loop.waiting import NotSeenError

ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


@dataclass(frozen=True)
class Amounts:
    """How much of everything; the profile's thresholds have to fit."""

    requests: int
    """Answered requests that are sent before a look: a window's worth."""
    again: int
    """The same after people have labelled: the window still holds what they labelled."""
    look_after: int
    """The profile's `monitor_after_requests`."""
    labels: int
    """Requests that are drawn for labels."""


class Story:
    """Chapters on a stage."""

    def __init__(self, stage: Stage, amounts: Amounts) -> None:
        self.stage, self.amounts = stage, amounts
        self.tell, self.users, self.state = stage.timeline.tell, stage.users, stage.state
        self._draws = self._sent_before = self._told = 0
        log = self.state.ref("prediction_log", PredictionLogRef)
        self._log_before = log.artifact.digest if log else ""
        """It may be of another log than the gateway's."""

    def ordinary_traffic(self) -> None:
        """Users ask what the model was trained on."""
        self.send("the world of the training data")
        self.expect_verdict(NO_DRIFT, "no drift")

    def the_world_changes(self, mix: Mix, what: str) -> None:
        """Users ask something else, and monitoring notices."""
        self.users.habits.mix = mix
        self.tell("world", f"changes: {what}", key="shift")
        self.send("the new world")
        self.expect_verdict(DRIFT, "drift")
        self.tell("sensor", f"drift_sensor: {self._said_without_rows()}", key="nothing to learn")

    def people_label(self, names: Sequence[str], right: Callable[[str], str | None]) -> None:
        """A random slice gets labels by people who do not see the answers."""
        self._draws += 1
        kept = self.stage.people.label(names, self.amounts.labels, SEED + self._draws, right)
        who = f"{names[0]} to {names[-1]}"
        self.tell("people", f"{who} label {kept} requests without seeing the answers", key="labels")

    def it_retrains(self, trigger: str) -> int:
        """More traffic has monitoring look again; the sensor of ``trigger`` starts `retrain`, which
        ends in a request. Nothing is promoted. Returns the version that waits."""
        before, known = self.state.stable, len(self.state.runs("retrain", trigger))
        self.send("the same world", self.amounts.again)
        run = self.stage.wait(
            f"{trigger}_sensor to start `retrain`", lambda: self._newest_run(trigger, known)
        )
        said = f"{trigger}_sensor starts `retrain`: {run.tags[REASON]}"
        self.tell("sensor", said, f"run {run.run_id}", "retrain")
        ended = self.stage.wait("`retrain` to end", lambda: self._ended(run.run_id))
        if ended.status is not dg.DagsterRunStatus.SUCCESS:
            summary = (self.stage.home.gate / "summary.md").read_text()[:1500]
            raise NotSeenError(f"`retrain` ended {ended.status.value}. The last gate:\n{summary}")
        found = self.stage.wait("a request for approval", self.state.waiting)
        asked = found.request.entry.decision
        report = self.stage.home.store.root / found.request.terms.report["kind"]
        page = report / found.request.terms.report["key"] / "report.html"
        self.tell("retrain", f"the gate: version {asked.version} {asked.reason}", page, "gate")
        for criterion in found.request.terms.criteria:
            if criterion["name"] in ("champion", "suite/feedback/champion"):
                self.tell("retrain", f"{criterion['name']}: {criterion['detail']}")
        assert self.state.stable == before
        promoted = [r for r in self.state.entries if r.decision.outcome == PROMOTED]
        assert promoted[-1].decision.version == before
        self.tell("retrain", f"it ends in a request; version {before} serves on", key="request")
        return asked.version

    def a_person_approves(self, version: int, reason: str) -> None:
        """The scripted key says yes."""
        self._told = self.state.entries[-1].entry  # the gateway may act before the command ends
        self.stage.people.approve(version, reason)
        self.tell("people", f"ada approves version {version}: {reason}", key="approval")

    def it_reaches_users(self) -> str:
        """The gateway takes the candidate to its users, or off them. Returns how it ended."""
        self.users.heard = Heard()
        self.users.hurry(busy=True)
        outcome = ""
        while outcome not in (RELEASED, ROLLED_BACK):
            row = self.stage.wait("the next step of the release", self._step)
            self._told, outcome = row.entry, row.decision.outcome
            self._tell_step(row)
        self.users.hurry(busy=False)
        return outcome

    def it_clears(self) -> None:
        """The release in force was trained on the new world, so that is normal now."""
        self.send("the same world, the new version")
        self.expect_verdict(NO_DRIFT, "clear")

    def registry_follows(self, version: int) -> None:
        """The version of before serves, and the registry's aliases say so."""
        assert self.state.stable == version
        self.tell("gateway", f"version {version} serves all users again", key="restored")
        run = self.stage.wait("champion_restored to start `reconcile`", self._reconciled)
        audit = self.stage.people.command("audit").strip().splitlines()
        self.tell("registry", f"the aliases follow: {audit[-1]}", f"run {run.run_id}", "aliases")

    def drift_still_stands(self) -> None:
        """What was rolled back clears nothing; the bounds of the day decide what follows."""
        self.users.habits.votes = 0.3
        self.send("the world as it is")
        self.expect_verdict(DRIFT, "drift stands")
        said = self.stage.wait("drift_sensor to hold back", self._held_back)
        self.tell("sensor", f"drift_sensor: {said}", key="held back")

    def only_people_teach(self) -> None:
        """What the model said is no label, also where users sent it back as the right answer."""
        lines = (self.stage.home.root / "feedback/provenance.jsonl").read_text().splitlines()
        given = [json.loads(line) for line in lines]
        taught = {line["request"] for line in given if line["kind"] == CORRECTION}
        assert taught <= self.users.corrected
        assert not taught & self.users.echoed
        count = Counter(line["kind"] for line in given)
        said = f"{count[LABEL]} labels and {count[CORRECTION]} corrections are learnt from or asked"
        echoes = f"none of {len(self.users.echoed)} answers of the model that users sent back"
        self.tell("people", f"{said}, {echoes}", key="only people teach")

    def send(self, what: str, count: int = 0) -> None:
        """Enough traffic for a look at it."""
        self.users.heard, self._sent_before = Heard(), self.users.answered
        self.users.send(count or self.amounts.requests)
        heard = self.users.heard
        self.tell("users", f"{heard.answered} requests of {what}: {heard.share} answered right")

    def expect_verdict(self, verdict: str, key: str) -> None:
        """Of the next drift report that traffic gives rise to."""
        report = self.stage.wait("traffic_sensor to have drift judged", self._next_report)
        layers = ", ".join(f"{name} {report.layers.get(name, NO_VERDICT)}" for name in LAYERS)
        page = self.state.artifact(report) / "drift.html"
        said = f"{report.verdict} over {report.records} records: {layers}".replace("_", " ")
        self.tell("monitor", f"traffic_sensor starts `monitor`; {said}", page, key)
        if report.verdict != verdict:
            found = json.loads((self.state.artifact(report) / "drift.json").read_bytes())
            raise NotSeenError(f"The verdict is {report.verdict}, not {verdict}: {found['reason']}")

    def _next_report(self) -> DriftReportRef | None:
        """The report on the traffic sent last. A look that was under way before may have taken in
        a part of it; as long as enough for another look is left, another follows."""
        log = self.state.ref("prediction_log", PredictionLogRef)
        report = self.state.ref("drift_report", DriftReportRef)
        if log is None or report is None or log.artifact.digest == self._log_before:
            return None
        taken_in = log.artifact.summary["answered"] - self._sent_before
        if taken_in < self.amounts.requests - self.amounts.look_after:
            return None
        judged = self.stage.home.store.recipe(report.artifact).inputs
        return report if log.artifact.digest in judged.values() else None

    def _said_without_rows(self) -> str:
        def look() -> str | None:
            said = self.state.said("drift_sensor")
            return said if "new rows" in said else None

        return self.stage.wait("drift_sensor to say that there is nothing to learn from", look)

    def _newest_run(self, trigger: str, known: int) -> dg.DagsterRun | None:
        runs = self.state.runs("retrain", trigger)
        return runs[0] if len(runs) > known else None

    def _ended(self, run_id: str) -> dg.DagsterRun | None:
        run = self.state.instance.get_run_by_id(run_id)
        return run if run and run.status in ENDED else None

    def _reconciled(self) -> dg.DagsterRun | None:
        runs = self.state.runs("reconcile", "rollback")
        return self._ended(runs[0].run_id) if runs else None

    def _held_back(self) -> str | None:
        said = self.state.said("drift_sensor")
        return said if said.startswith("No retraining") else None

    def _step(self) -> LedgerEntry | None:
        return next(iter(self.state.steps(self._told)), None)

    def _tell_step(self, row: LedgerEntry) -> None:
        decided = row.decision
        percent = decided.evidence.get("percent", 0)
        where = {CANARY: f"canary {percent}%", ROLLED_BACK: "rolled back to"}
        what = f"{where.get(decided.outcome, decided.outcome)} version {decided.version}"
        said = f"{what}: {decided.reason}"
        self.tell("gateway", said, f"ledger entry {row.entry}", decided.outcome)
