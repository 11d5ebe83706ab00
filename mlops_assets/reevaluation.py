"""Is a candidate that passed to be judged again, because another became the champion meanwhile?

Two that promote at once each passed against the champion of before; the ledger lets one of them
win. Nothing waits for the other to lose: whether the latest verdict is out of date follows from it
and from the ledger's rows, whenever somebody looks.
"""

from dataclasses import dataclass

from mlops_assets.artifacts import SHORT
from mlops_assets.home import Home
from mlops_assets.ledger import PASSED, PROMOTED, REJECTED, LedgerEntry
from mlops_assets.refs import GateRef
from mlops_assets.verdicts import PASS


@dataclass(frozen=True)
class Outdated:
    """A verdict that lets the candidate pass, against a champion that is no more."""

    gate: GateRef
    champion: LedgerEntry
    """The promotion in force, which the gate has not seen."""

    @property
    def key(self) -> str:
        """The same for the same verdict and champion: one evaluation answers it."""
        return f"champion:{self.gate.artifact.digest}:{self.champion.entry}"

    @property
    def reason(self) -> str:
        decided = self.champion.decision
        compared = self.gate.champion[:SHORT] if self.gate.champion else "no champion"
        return (
            f"{self.gate.bundle.digest[:SHORT]} passed against {compared}, and version"
            f" {decided.version} of {decided.model} was promoted since"
        )


def find_outdated(home: Home) -> Outdated | str:
    """The latest verdict if its candidate has to meet a new champion; otherwise why not."""
    gate = home.latest("gate_verdict")
    if not isinstance(gate, GateRef) or gate.verdict != PASS:
        return "The latest candidate did not pass the gate."
    entries, digest = home.ledger.entries(), gate.bundle.digest
    judged = [row for row in entries if _judges(row, gate)]
    if not judged:
        return "The ledger holds no such verdict: the candidate was the champion already."
    row = judged[-1]
    champion = home.ledger.champion(row.decision.model)
    if champion is None or champion.decision.bundle.digest in (gate.champion, digest):
        return "The latest candidate was compared with the champion of now, or is it."
    for later in entries:
        decided = later.decision
        if (
            later.entry > row.entry
            and decided.outcome in (PROMOTED, REJECTED)
            and (decided.model, decided.bundle.digest) == (row.decision.model, digest)
        ):
            return f"The latest candidate was {decided.outcome} (ledger entry {later.entry})."
    return Outdated(gate, champion)


def _judges(row: LedgerEntry, gate: GateRef) -> bool:
    """Whether this is the row of the verdict; the ledger then says of which model."""
    said = row.decision.evidence.get("gate")
    return (
        row.decision.outcome == PASSED
        and isinstance(said, dict)
        and said.get("digest") == gate.artifact.digest
    )
