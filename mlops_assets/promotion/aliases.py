"""What the registry's aliases ought to say: a projection of the ledger.

``candidate`` is the newest registered version. ``challenger`` passed the gate and waits for
its approval; it has no such alias any longer once it is approved, rejected, expired, or
compared with a champion that is no more. ``champion`` is the version in force, ``previous`` the
one that a rollback would restore.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from mlops_assets.approval_standing import pending
from mlops_assets.approvers import Approvers
from mlops_assets.ledger import LedgerEntry
from mlops_assets.release_state import read_release

logger = logging.getLogger(__name__)

CANDIDATE, CHALLENGER, CHAMPION, PREVIOUS = "candidate", "challenger", "champion", "previous"


@dataclass(frozen=True)
class Registered:
    """What the registry holds of one model."""

    versions: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    """Tags by version."""
    aliases: Mapping[str, int] = field(default_factory=dict)

    def find(self, **tags: str) -> int | None:
        """The newest version with these tags."""
        matching = [
            version
            for version, found in self.versions.items()
            if all(found.get(name) == value for name, value in tags.items())
        ]
        return max(matching, default=None)


def find_changes(
    entries: Sequence[LedgerEntry], model: str, registered: Registered, now: datetime
) -> dict[str, int | None]:
    """Aliases of ``model`` to be set (to a version) or removed (None).

    A bundle of the ledger that the registry does not hold (its database was lost) gets no
    alias, with a warning.
    """
    wanted = _wanted(entries, model, registered, now)
    return {
        alias: version
        for alias, version in wanted.items()
        if registered.aliases.get(alias) != version
    }


def _wanted(
    entries: Sequence[LedgerEntry], model: str, registered: Registered, now: datetime
) -> dict[str, int | None]:
    ours = [row for row in entries if row.decision.model == model]
    release = read_release(ours, model)
    # Whether a request is open does not depend on who may answer it.
    waiting = [found.request.entry for found in pending(ours, Approvers(), now)]
    named = {
        CHALLENGER: waiting[-1] if waiting else None,
        CHAMPION: release.champion,
        PREVIOUS: release.restores,
    }
    return {CANDIDATE: max(registered.versions, default=None)} | {
        alias: _version(alias, entry, registered) for alias, entry in named.items()
    }


def _version(alias: str, entry: LedgerEntry | None, registered: Registered) -> int | None:
    version = version_of(entry, registered) if entry else None
    if entry and version is None:
        logger.warning("the registry does not hold the %s of the ledger", alias)
    return version


def version_of(entry: LedgerEntry, registered: Registered) -> int | None:
    """The version that a ledger row names, by its bundle: numbers start anew in a new
    registry."""
    digest = entry.decision.bundle.digest
    if registered.versions.get(entry.decision.version, {}).get("bundle_digest") == digest:
        return entry.decision.version
    return registered.find(bundle_digest=digest)
