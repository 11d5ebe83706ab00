"""Which requests become traces: a share drawn by a hash of their ids, and those that users judged.

The draw depends on seed and id alone: it is the same in every run, however the log is cut.
"""

import hashlib
from collections.abc import Collection, Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from mlops_assets.artifacts import ArtifactStore
from mlops_assets.monitoring.log.window import PartRows, newest, read
from mlops_assets.monitoring_refs import PredictionLogRef
from mlops_assets.request_record import SHADOW, SIMULATED


class TraceSampleSpec(BaseModel):
    """Which requests are shown in MLflow."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rate: float = Field(
        0.05, ge=0, le=1, description="Share of the requests that are drawn, by a hash of their id."
    )
    max_drawn: int = Field(
        100, ge=0, le=10_000, description="Most requests that are drawn; the newest are."
    )
    max_judged: int = Field(
        100,
        ge=0,
        le=10_000,
        description="Most requests that users judged and that are shown besides; the newest are.",
    )
    seed: int = Field(7, ge=0, description="Seed of the draw.")


def is_drawn(id: str, spec: TraceSampleSpec) -> bool:
    """Whether the request with this id belongs to the draw."""
    digest = hashlib.sha256(f"{spec.seed}:{id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < spec.rate * 2**64


def sample(
    store: ArtifactStore, log: PredictionLogRef, judged: Collection[str], spec: TraceSampleSpec
) -> Iterator[dict[str, Any]]:
    """Rows of the log (columns of ``parts.schema``), newest first.

    ``judged`` are ids of requests. Rows of the shipped samples and of a shadow are left out.
    """
    drawn, voted = spec.max_drawn, min(spec.max_judged, len(judged))
    for part in reversed(newest(store, log)):
        chosen = []
        for at, id in _requests(store, part):
            if drawn and is_drawn(id, spec):
                drawn -= 1
            elif voted and id in judged:
                voted -= 1
            else:
                continue
            chosen.append(at)
        if chosen:
            yield from read(store, part).take(chosen).to_pylist()
        if not drawn and not voted:
            return


def _requests(store: ArtifactStore, part: PartRows) -> Iterator[tuple[int, str]]:
    """Place and id of each request of a user, newest first."""
    table = read(store, part, ["id", "release", "arm"]).to_pydict()
    for at in range(part.stop - part.start - 1, -1, -1):
        if table["release"][at] != SIMULATED and table["arm"][at] != SHADOW:
            yield at, table["id"][at]
