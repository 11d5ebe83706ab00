"""Has enough been logged since the last look to look again? Counted, not read.

The prediction log's index says how far each segment was read. What stands behind that is counted by
its line breaks, and no further than it takes to know.
"""

from collections.abc import Mapping
from pathlib import Path

from mlops_assets.artifacts import ArtifactStore
from mlops_assets.monitoring.log.window import read_index
from mlops_assets.monitoring_refs import PredictionLogRef

BLOCK = 1 << 20


def read_position(store: ArtifactStore, ref: PredictionLogRef) -> Mapping[str, int]:
    """How many bytes of each segment, by its name, the prediction log has taken in."""
    return {part["segment"]: part["bytes"] for part in read_index(store, ref)["parts"]}


def count_new(directory: Path, position: Mapping[str, int], enough: int) -> int:
    """Lines logged behind ``position``; it may stop counting at ``enough``.

    A segment that is shorter than it was is another one, and counts from its beginning.
    """
    count = 0
    for path in sorted(directory.glob("*.jsonl")):
        seen, size = position.get(path.name, 0), path.stat().st_size
        with path.open("rb") as stream:
            stream.seek(seen if seen <= size else 0)
            while count < enough and (block := stream.read(BLOCK)):
                count += block.count(b"\n")
    return count
