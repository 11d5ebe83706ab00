"""When a closed segment of the request log may go: its records lie in the artifact store by then,
and nobody reads the segment any more.

Segments go oldest first, so that what is gone is always the beginning of the log. Their records
stay: what ``retired_segments`` keeps in their place names the part that holds them.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from mlops_assets.artifacts import (
    MANIFEST,
    SHORT,
    Artifact,
    ArtifactStore,
    LineageError,
    digest_file,
)
from mlops_assets.home import Home
from mlops_assets.prunable import Decided, Decisions, Item
from mlops_assets.release_state import read_release
from mlops_assets.retired_segments import (
    LOG_PART,
    RetiredSegment,
    retired_segments,
    write_retired,
)
from mlops_assets.serving.accounting.counted_log import sum_of_segment
from mlops_assets.serving.accounting.usage_ledger import usage_ledger
from mlops_assets.serving.records.log_tail import BEGINNING, Position
from mlops_assets.serving.serving_home import ServingHome
from mlops_assets.serving.traffic.experiment_state import read_experiments

SEGMENT = "segment"


@dataclass(frozen=True)
class Needs:
    """Who may still read a segment."""

    counted: Position
    """Up to where the budget ledger has the log."""
    young: datetime
    """What was written to since then is kept for its age."""
    votes: datetime
    """Requests since then take votes."""
    watched: datetime | None
    """When the oldest rollout or experiment began that is under way; None without any."""

    def why(self, path: Path, keep_days: float) -> str | None:
        """Why the segment stays, or None."""
        written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        if written >= self.young:
            return f"younger than {keep_days:g} days"
        if written >= self.votes:
            return "its requests take votes still"
        if self.watched is not None and written >= self.watched:
            return "a rollout or an experiment is made from it"
        if (self.counted.segment, self.counted.offset) < (path.name, path.stat().st_size):
            return "not counted into the budgets yet: start the gateway"
        return None


def decide_segments(home: Home, keep_days: float, feedback_days: float, now: datetime) -> Decisions:
    """Which segments of the request log may go, and the artifacts that stand in for them.

    Raises LineageError when the ledger or the budget ledger cannot be read.
    """
    files = ServingHome.of(home)
    needs = _needs(home, files, keep_days, feedback_days, now)
    parts, retired = _parts(home.store), retired_segments(files.requests)
    names = [each.part.key for each in retired]
    items: list[Decided] = []
    paths = sorted(files.requests.glob("*.jsonl"))
    for path in paths:
        why = "written to now" if path == paths[-1] else needs.why(path, keep_days)
        if why is None and any(stays for _, stays in items):
            why = "an older one stays"
        part = None if why else parts.get(digest_file(path))
        if part is not None and _is_sound(home.store, part):
            names.append(part.key)
            items.append((_gone(files, path, part), False))
        else:
            why = why or "its records are in no sound part: run the job monitor"
            items.append((_item(path, why), True))
    return Decisions(items, names)


def _needs(
    home: Home, files: ServingHome, keep_days: float, feedback_days: float, now: datetime
) -> Needs:
    ledger = usage_ledger(files)
    return Needs(
        counted=ledger.snapshot()[1] if ledger.path.exists() else BEGINNING,
        young=now - timedelta(days=keep_days),
        votes=now - timedelta(days=feedback_days),
        watched=min(_under_way(home), default=None),
    )


def _under_way(home: Home) -> Iterator[datetime]:
    """When each rollout and experiment began that is not at its end."""
    entries = home.ledger.entries()
    for model in {row.decision.model for row in entries}:
        if (candidate := read_release(entries, model).candidate) is not None:
            yield datetime.fromisoformat(candidate.at)
        for experiment in read_experiments(entries, model):
            if experiment.ended is None:
                yield datetime.fromisoformat(experiment.started.at)


def _parts(store: ArtifactStore) -> Mapping[str, Artifact]:
    """The newest part of each segment, by the SHA-256 of the segment."""
    manifests = (store.root / LOG_PART).glob(f"[!.]*/{MANIFEST}")
    found: dict[str, Artifact] = {}
    for path in sorted(manifests, key=lambda each: each.stat().st_mtime):
        content = json.loads(path.read_bytes())
        part = Artifact(LOG_PART, path.parent.name, content["digest"])
        found[content["recipe"]["inputs"]["segment"]] = part
    return found


def _is_sound(store: ArtifactStore, part: Artifact) -> bool:
    try:
        store.path(part)
    except LineageError:
        return False
    return True


def _item(path: Path, why: str) -> Item:
    return Item(SEGMENT, f"{path.parent.name}/{path.name}", path.stat().st_size, why, path)


def _gone(files: ServingHome, path: Path, part: Artifact) -> Item:
    item = _item(path, f"its records are in {LOG_PART} {part.key[:SHORT]}")
    return replace(item, remove=partial(_retire, files, path, part))


def _retire(files: ServingHome, path: Path, part: Artifact) -> None:
    """Write down what stands in for the segment, then delete it: a crash between leaves both, and
    the segment counts."""
    usage = tuple(
        (*name, use.requests, use.tokens_in, use.tokens_out, use.nanos)
        for name, use in sorted(sum_of_segment(path).items())
    )
    size, sha256 = path.stat().st_size, digest_file(path)
    write_retired(files.requests, RetiredSegment(path.name, size, sha256, part, usage))
    path.unlink()
