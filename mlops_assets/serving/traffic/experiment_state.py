"""Experiments as the ledger has them: which run, on what terms, and how each ended.

An experiment decides which release users get, so it is a row of the decision ledger like every
step of a release: it has one key and is written once, whoever asks; it is in the hash chain, in
every copy that the gateway keeps, and the gateway reads it with the release. The row is about the
bundle that is tried (variant b), and its evidence states the terms before the first user is
assigned.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlops_assets.ledger import PROMOTED, ROLLED_BACK, LedgerEntry
from mlops_assets.serving.traffic.assignment import A, Assignment, B

logger = logging.getLogger(__name__)

EXPERIMENT, EXPERIMENT_ENDED = "experiment", "experiment_ended"
"""Outcomes of the ledger."""
NAME = "^[a-z0-9][a-z0-9_-]{0,63}$"
METRIC = "^[a-z0-9][a-z0-9._-]{0,63}$"


class Terms(BaseModel):
    """What an experiment is about; stated before it starts, and not changed after."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=NAME, description="Names it on the ledger and in the logs.")
    version_a: int = Field(ge=1, description="Registered version of what there is.")
    version_b: int = Field(ge=1, description="Registered version of what is tried.")
    release_a: str = Field(pattern="^[0-9a-f]{64}$", description="Digest of its bundle.")
    release_b: str = Field(pattern="^[0-9a-f]{64}$", description="Digest of its bundle.")
    promotion_a: int = Field(ge=1, description="Ledger entry that promoted it.")
    promotion_b: int = Field(ge=1, description="Ledger entry that promoted it.")
    metric: str = Field(
        pattern=METRIC, description="Metric of the feedback that is to get better: its mean score."
    )
    baseline: float = Field(gt=0, lt=1, description="The metric's value now, as it is expected.")
    minimum_effect: float = Field(
        gt=0, lt=1, description="Smallest difference that is worth finding (MDE)."
    )
    alpha: float = Field(ge=0.0001, le=0.2, description="Probability of a false difference.")
    power: float = Field(ge=0.5, le=0.99, description="Probability to find that difference.")
    users_needed: int = Field(ge=1, description="Voting users of each variant that this takes.")
    share: float = Field(gt=0, le=1, description="Of the eligible users, who take part.")
    salt: str = Field(min_length=1, max_length=128, description="Of the assignment's hash.")
    flag: str = Field("", max_length=128, description="Who is eligible; empty for everybody.")


@dataclass(frozen=True)
class Experiment:
    """An experiment and where it stands."""

    terms: Terms
    started: LedgerEntry
    ended: LedgerEntry | None = None
    halted: str = ""
    """Why nobody is assigned any more although nobody has ended it."""

    @property
    def runs(self) -> bool:
        """Whether users are assigned."""
        return self.ended is None and not self.halted

    @property
    def assignment(self) -> Assignment:
        """As requests need it."""
        terms = self.terms
        releases = {A: terms.release_a, B: terms.release_b}
        return Assignment(terms.name, terms.salt, terms.share, releases, terms.flag)


def start_key(model: str, name: str) -> str:
    """The ledger's key of a start."""
    return f"experiment/{model}/{name}"


def end_key(model: str, name: str) -> str:
    """The ledger's key of an end."""
    return f"{start_key(model, name)}/ended"


def read_experiments(entries: Sequence[LedgerEntry], model: str) -> list[Experiment]:
    """Every experiment of a model, in the order of their starts."""
    ours = [row for row in entries if row.decision.model == model]
    return [_read(row, ours) for row in ours if _terms(row) is not None]


def running_experiments(entries: Sequence[LedgerEntry], model: str) -> list[Assignment]:
    """The assignments in force."""
    return [one.assignment for one in read_experiments(entries, model) if one.runs]


def releases_in_experiments(entries: Sequence[LedgerEntry], model: str) -> Iterator[LedgerEntry]:
    """The promotions whose engines running experiments need."""
    wanted = {
        entry
        for one in read_experiments(entries, model)
        if one.runs
        for entry in (one.terms.promotion_a, one.terms.promotion_b)
    }
    return (row for row in entries if row.entry in wanted)


def _read(row: LedgerEntry, ours: Sequence[LedgerEntry]) -> Experiment:
    terms = _terms(row)
    assert terms is not None  # noqa: S101
    later = [each for each in ours if each.entry > row.entry]
    key = end_key(row.decision.model, terms.name)
    ended = next((each for each in later if each.decision.key == key), None)
    halted = _unpromoted(terms, ours) or _rolled_back(terms, ours, later)
    return Experiment(terms, row, ended, halted)


def _unpromoted(terms: Terms, ours: Sequence[LedgerEntry]) -> str:
    """Why this cannot be served: a row of the experiment is no approval of what it names."""
    promoted = {
        (row.entry, row.decision.bundle.digest) for row in ours if row.decision.outcome == PROMOTED
    }
    for named in ((terms.promotion_a, terms.release_a), (terms.promotion_b, terms.release_b)):
        if named not in promoted:
            return f"ledger entry {named[0]} does not promote what it compares"
    return ""


def _rolled_back(terms: Terms, ours: Sequence[LedgerEntry], later: Sequence[LedgerEntry]) -> str:
    """Which row took one of its releases back, whichever row had brought that into force."""
    undone = {
        row.entry
        for row in ours
        if row.decision.bundle.digest in (terms.release_a, terms.release_b)
    }
    for row in later:
        if row.decision.outcome == ROLLED_BACK and row.decision.replaces in undone:
            return f"ledger entry {row.entry} rolled one of its releases back"
    return ""


def _terms(row: LedgerEntry) -> Terms | None:
    """None for rows of other kinds, and for what no command of ours can have written."""
    if row.decision.outcome != EXPERIMENT:
        return None
    try:
        terms = Terms.model_validate(row.decision.evidence.get("terms"))
    except ValidationError:
        logger.warning("ledger entry %d states no terms of an experiment", row.entry)
        return None
    if row.decision.key != start_key(row.decision.model, terms.name):
        logger.warning("ledger entry %d is not keyed as an experiment", row.entry)
        return None
    return terms
