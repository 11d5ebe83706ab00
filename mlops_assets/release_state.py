"""What users are to be served, as the ledger's rows add up.

A promotion makes a bundle the *candidate*; the gateway takes it to users step by step, and each
step is a row: `shadow`, `canary` with a percentage, `released`. The bundle that was released last
is *stable*. `rolled_back` undoes the champion, on its way or released, and restores the bundle
that was in force before it; the same can be done again and again, down to the first. What was
promoted before any gateway ran is stable: there is nothing to compare it with.

Nothing is remembered: every look replays the rows. A row that honest code cannot have written (a
step of what is no candidate, a rollback to what never was in force) changes nothing, is named by
`mlops audit`, and is no approval of anything.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mlops_assets.artifacts import LineageError
from mlops_assets.ledger import CANARY, PROMOTED, RELEASED, ROLLED_BACK, SHADOW, LedgerEntry

WAITING = "waiting"
"""The stage of a promotion that no gateway has taken up yet."""
STEPS = (SHADOW, CANARY, RELEASED, ROLLED_BACK)
"""Outcomes that move a release."""


@dataclass(frozen=True)
class ReleaseState:
    """What is served of one model. Every release is named by the row that promoted it."""

    stable: LedgerEntry | None = None
    """What users get; None before the first promotion."""
    candidate: LedgerEntry | None = None
    """What is on its way to them; None where nothing is."""
    stage: str = ""
    """Of the candidate: ``waiting``, ``shadow`` or ``canary``. Without one how the last release
    ended: ``released``, ``rolled_back``, ``waiting`` before any gateway ran, empty before the
    first promotion."""
    percent: int = 0
    """Of the users, who get the candidate; 0 without one."""
    since: str = ""
    """When the stage began, ISO 8601 in UTC."""
    previous: LedgerEntry | None = None
    """What a rollback of stable would restore; None where there is nothing."""
    champion: LedgerEntry | None = None
    """The row that a rollback would undo."""

    @property
    def restores(self) -> LedgerEntry | None:
        """What a rollback would restore now: stable while there is a candidate, else previous."""
        return self.stable if self.candidate else self.previous


def read_release(entries: Sequence[LedgerEntry], model: str) -> ReleaseState:
    """The state of ``model``'s release after these rows."""
    return _replay(entries, model).state


def released_by(entries: Sequence[LedgerEntry], row: LedgerEntry) -> LedgerEntry:
    """The promotion whose bundle this row of a release is about, or restores.

    Raises LineageError when the rows before it make this row impossible.
    """
    replay = _replay(entries, row.decision.model)
    if (found := replay.about.get(row.entry)) is not None:
        return found
    problem = replay.impossible.get(row.entry, "is not on the ledger")
    raise LineageError(
        f"ledger entry {row.entry} {problem}.",
        "It was written by another hand: bring the ledger back from a backup.",
    )


def find_impossible(entries: Sequence[LedgerEntry]) -> Iterator[str]:
    """Every row of a release that the rows before it make impossible, and why."""
    for model in sorted({row.decision.model for row in entries}):
        for entry, problem in _replay(entries, model).impossible.items():
            yield f"entry {entry} {problem}"


@dataclass
class _Replay:
    """The rows so far."""

    forced: list[LedgerEntry] = field(default_factory=list)
    """Promotions in force one after the other, the stable one last; a rollback takes it off."""
    served: bool = False
    """Whether a gateway ever released anything, or somebody rolled back."""
    candidate: LedgerEntry | None = None
    champion: LedgerEntry | None = None
    stage: str = ""
    percent: int = 0
    since: str = ""
    about: dict[int, LedgerEntry] = field(default_factory=dict)
    impossible: dict[int, str] = field(default_factory=dict)

    @property
    def state(self) -> ReleaseState:
        return ReleaseState(
            self.forced[-1] if self.forced else None,
            self.candidate,
            self.stage,
            self.percent,
            self.since,
            self.forced[-2] if len(self.forced) > 1 else None,
            self.champion,
        )

    @property
    def subject(self) -> LedgerEntry | None:
        """What a step may be about: the candidate, or a first promotion that is to be served."""
        if self.candidate is not None or self.served or not self.forced:
            return self.candidate
        return self.forced[-1]

    def take(self, row: LedgerEntry) -> None:
        """One more row of this model."""
        if row.decision.outcome == PROMOTED:
            self._promoted(row)
        elif row.decision.outcome in STEPS:
            problem = _STEP[row.decision.outcome](self, row)
            if problem:
                self.impossible[row.entry] = problem

    def _promoted(self, row: LedgerEntry) -> None:
        self.champion, self.since, self.percent = row, row.at, 0
        self.candidate = None
        if self.forced and _same(self.forced[-1], row):
            self.forced[-1] = row  # approved anew: there is nothing to roll out
            self.stage = RELEASED if self.served else WAITING
            return
        self.stage = WAITING
        if self.served:
            self.candidate = row
        else:
            self.forced.append(row)

    def _staged(self, row: LedgerEntry) -> str:
        decided = row.decision
        if self.candidate is None or not _is_about(row, self.candidate):
            return f"is a step of what is no candidate ({decided.outcome})"
        percent = decided.evidence.get("percent", 0)
        if decided.outcome == SHADOW:
            if self.stage != WAITING:
                return "begins a release that had begun already"
        elif not isinstance(percent, int) or not self.percent < percent < 100:
            return f"takes a canary from {self.percent}% to {percent!r}%"
        self.stage, self.percent, self.since = decided.outcome, percent, row.at
        self.about[row.entry] = self.candidate
        return ""

    def _released(self, row: LedgerEntry) -> str:
        subject = self.subject
        if subject is None or not _is_about(row, subject):
            return "releases what is no candidate"
        if subject is self.candidate:
            self.forced.append(subject)
        self.about[row.entry] = subject
        self._end(row, RELEASED)
        return ""

    def _rolled_back(self, row: LedgerEntry) -> str:
        undone = self.champion.entry if self.champion else 0
        if row.decision.replaces != undone:
            return f"undoes entry {row.decision.replaces}, the champion was {undone}"
        kept = self.forced if self.candidate else self.forced[:-1]
        if not kept or not _same(kept[-1], row):
            return "restores what was not in force before"
        self.forced = kept
        self.about[row.entry] = kept[-1]
        self.champion = row
        self._end(row, ROLLED_BACK)
        return ""

    def _end(self, row: LedgerEntry, stage: str) -> None:
        self.candidate, self.served = None, True
        self.stage, self.percent, self.since = stage, 0, row.at


_STEP = {
    SHADOW: _Replay._staged,
    CANARY: _Replay._staged,
    RELEASED: _Replay._released,
    ROLLED_BACK: _Replay._rolled_back,
}


def _replay(entries: Sequence[LedgerEntry], model: str) -> _Replay:
    replay = _Replay()
    for row in entries:
        if row.decision.model == model:
            replay.take(row)
    return replay


def _same(one: LedgerEntry, other: LedgerEntry) -> bool:
    """Whether two rows name the same bundle."""
    return one.decision.bundle.digest == other.decision.bundle.digest


def _is_about(row: LedgerEntry, promotion: LedgerEntry) -> bool:
    named = row.decision.evidence.get("promotion")
    return named == promotion.entry and _same(row, promotion)
