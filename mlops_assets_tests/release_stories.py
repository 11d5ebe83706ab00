"""A ledger told in words, for tests of what is released."""

from dataclasses import dataclass

from mlops_assets.home import Home
from mlops_assets.ledger import CHAMPIONS, PROMOTED, ROLLED_BACK, Decision, LedgerEntry
from mlops_assets.release_state import ReleaseState, read_release
from mlops_assets_tests.releases import MODEL, make_bundle

NAMES = "abc"
"""The bundle of each version."""


@dataclass
class Story:
    """A ledger that is written word by word: `promote a`, `canary a 25`, `back a`."""

    home: Home

    @property
    def state(self) -> ReleaseState:
        return read_release(self.home.ledger.entries(), MODEL)

    def tell(self, words: str) -> LedgerEntry:
        said, name, *percent = words.split()
        outcome = {"promote": PROMOTED, "back": ROLLED_BACK}.get(said, said)
        entries, champion = self.home.ledger.entries(), self.home.ledger.champion(MODEL)
        bundle = make_bundle(self.home, name)
        promoted = [
            row.entry
            for row in entries
            if (row.decision.outcome, row.decision.bundle.digest) == (PROMOTED, bundle.digest)
        ]
        evidence = {"promotion": max(promoted, default=0)}
        if percent:
            evidence["percent"] = int(percent[0])
        undone = champion.entry if champion else 0
        replaces = undone if outcome in CHAMPIONS else None
        key, version = f"{len(entries)} {words}", NAMES.index(name) + 1
        return self.home.ledger.append(
            Decision(key, outcome, words, MODEL, version, bundle, evidence, replaces)
        )
