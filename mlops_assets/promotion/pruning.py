"""Deletes what the retention policy lets go, so that a crash leaves nothing that looks whole.

A version leaves the registry before its files do. A directory is moved to the trash in one
step, and deleted file by file only there; what a crash leaves in the trash is deleted by the
next prune. While it deletes nobody else may write: it holds the lock that runs hold.
"""

import logging
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home, run_lock
from mlops_assets.progress import progress
from mlops_assets.promotion.registered_versions import (
    delete_versions,
    read_versions,
)
from mlops_assets.promotion.retention import NO_OTHERS, Plan, make_plan, trash
from mlops_assets.promotion.spec import RetentionSpec
from mlops_assets.prunable import Decisions, Item

logger = logging.getLogger(__name__)

Decide = Callable[[datetime], Decisions]
"""What a stage decides about its own files, as of a moment."""


@dataclass(frozen=True)
class Pruned:
    """A plan, and whether it was carried out."""

    plan: Plan
    deleted: bool

    def as_json(self) -> dict[str, object]:
        """For machines; sizes in bytes."""
        return {
            "deleted": self.deleted,
            "bytes": self.plan.size,
            "delete": [item.as_json() for item in self.plan.delete],
            "keep": [item.as_json() for item in self.plan.keep],
        }


def prune(
    home: Home,
    spec: RetentionSpec,
    *,
    delete: bool,
    now: datetime | None = None,
    others: Decide = lambda _: NO_OTHERS,
) -> Pruned:
    """Plan what may go; with ``delete``, delete it. ``others`` decides about what lies outside of
    the store and the registry.

    Raises LineageError when there is nothing at ``home``, when ledger or registry cannot be
    read, or, with ``delete``, while a run is at work there.
    """
    if not home.root.is_dir():
        raise LineageError(f"There is nothing in {home.root}.", "Check MLOPS_HOME.")
    now = now or datetime.now(UTC)
    if not delete:
        return Pruned(make_plan(home, spec, read_versions(home), now, others(now)), deleted=False)
    # A full disk is why people prune: the lock must not ask for free space.
    run_lock.hold(home, f"prune-{uuid.uuid4().hex}", needs_space=False)
    try:
        plan = make_plan(home, spec, read_versions(home), now, others(now))
        carry_out(home, plan)
    finally:
        run_lock.release()
    return Pruned(plan, deleted=True)


def carry_out(home: Home, plan: Plan) -> None:
    """Delete what ``plan`` lets go. Raises LineageError when the registry refuses; nothing that
    a version names is then gone."""
    delete_versions(home, [item.version for item in plan.delete if item.version])
    items = [item for item in plan.delete if item.path]
    with progress(logger, "deleting", len(items)) as advance:
        for item in items:
            _delete(home, item)
            advance(1, "")


def _delete(home: Home, item: Item) -> None:
    if item.remove is not None:
        item.remove()
    elif item.path is not None:
        _throw_away(home, item.path)


def _throw_away(home: Home, path: Path) -> None:
    bin = trash(home)
    if path.parent != bin:
        bin.mkdir(mode=0o700, exist_ok=True)
        path = path.rename(bin / f"{path.name[:40]}-{uuid.uuid4().hex[:8]}")
    shutil.rmtree(path)
