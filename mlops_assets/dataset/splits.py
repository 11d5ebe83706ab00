"""Splits rows by a stable hash of their group, so that no row ever moves when data grows.

Rows are dealt line by line, as they stand; counting their groups takes eight bytes a row.
"""

import hashlib
import logging
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field

from mlops_assets.artifacts import (
    ArtifactStore,
    LineageError,
    Recipe,
    digest_file,
    digest_json,
)
from mlops_assets.code_digest import code_digest
from mlops_assets.progress import progress
from mlops_assets.refs import Row, SplitsRef, ValidatedRef, Versions

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
LIMITS = ("near_duplicate_similarity", "max_exact_leaked_share", "max_near_leaked_share")
BLOCK = 10_000  # rows between two reports of progress


class SplitSpec(BaseModel):
    """Shares of the groups; what is neither validation nor test is train."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    validation_share: float = Field(
        0.1, gt=0, le=0.4, description="Share of the groups for choosing checkpoints."
    )
    test_share: float = Field(
        0.1,
        gt=0,
        le=0.4,
        description="Share of the groups for measuring; unused where the source fixes the test.",
    )
    salt: str = Field(
        "", description="Another value deals every group anew; keep it, or no result compares."
    )
    near_duplicate_similarity: float = Field(
        0.9,
        ge=0.7,
        le=1,
        description="Jaccard similarity of two texts' word pairs from which they are near"
        " duplicates.",
    )
    max_exact_leaked_share: float = Field(
        0,
        ge=0,
        le=1,
        description="Largest share of a held-out split's rows whose text stands in an earlier"
        " split, ignoring case and spacing.",
    )
    max_near_leaked_share: float = Field(
        0.02,
        ge=0,
        le=1,
        description="Largest share of a held-out split's rows that nearly stand in an earlier"
        " split.",
    )


class Part:
    """What is known of a split while its rows are dealt."""

    def __init__(self, fields: Iterable[str]) -> None:
        self.rows = 0
        self.labels: dict[str, Counter[str]] = {name: Counter() for name in fields}
        self._points = array("Q")  # a group's own number, which tells it from the others

    def count(self, row: Row, salt: str) -> None:
        """Take in a row of this split."""
        self.rows += 1
        self._points.append(_digest(row.group, salt))
        if self.labels:
            answer = orjson.loads(row.answer)
            for name, counts in self.labels.items():
                counts[answer[name]] += 1

    @property
    def groups(self) -> int:
        """How many different groups its rows have."""
        import numpy as np

        return len(np.unique(np.frombuffer(self._points, dtype=np.uint64)))


def split_of(row: Row, spec: SplitSpec) -> str:
    """The row's split: a function of its group and the spec, of no other row.

    A row that its source pins to ``train`` goes to train or validation, never to test.
    """
    if row.split == "test":
        return "test"
    point = _point(row.group, spec.salt)
    if point < spec.validation_share:
        return "validation"
    if row.split is None and point < spec.validation_share + spec.test_share:
        return "test"
    return "train"


def split(store: ArtifactStore, validated: ValidatedRef, spec: SplitSpec) -> SplitsRef:
    """Write the three split files. Raises LineageError when a split is empty."""
    labels = [[name, list(values)] for name, values in validated.labels.items()]
    recipe = Recipe(
        "dataset_splits",
        # The rows decide the bytes. The data's version stands in the summary, so it counts
        # too: new data that gives the same rows gives the same content under another key.
        {"rows": validated.artifact.summary["rows_sha256"], "dataset": validated.dataset},
        spec.model_dump(mode="json") | {"labels": labels},
        code_digest(__name__),
    )

    def produce(directory: Path) -> Mapping[str, Any]:
        source = store.path(validated.artifact) / "rows.jsonl"
        parts = {name: Part(validated.labels) for name in SPLITS}
        prompts = prompts_digest(_watched(deal(source, directory, spec, parts), validated.rows))
        versions = Versions(validated.dataset, prompts, digest_file(directory / "test.jsonl"))
        return {
            "rows": {name: part.rows for name, part in parts.items()},
            "groups": {name: part.groups for name, part in parts.items()},
            "label_counts": {name: part.labels for name, part in parts.items()},
            "limits": spec.model_dump(include=set(LIMITS)),
            "versions": asdict(versions),
        }

    artifact = store.build(recipe, produce)
    counts = {name: artifact.summary["rows"][name] for name in SPLITS}
    settings = {**validated.settings, "dataset_splits": spec.model_dump(mode="json")}
    versions = Versions.of(artifact)
    return SplitsRef(artifact, versions, counts, dict(validated.labels), settings)


def deal(
    source: Path, directory: Path, spec: SplitSpec, parts: Mapping[str, Part]
) -> Iterator[Row]:
    """Write each line of ``source`` to its split's file, count it in ``parts``, and pass it on."""
    with ExitStack() as files, source.open("rb") as lines:
        streams = {
            name: files.enter_context((directory / f"{name}.jsonl").open("wb")) for name in parts
        }
        for line in lines:
            row = Row(**orjson.loads(line))
            name = split_of(row, spec)
            streams[name].write(line)
            parts[name].count(row, spec.salt)
            yield row
    if empty := [name for name, part in parts.items() if not part.rows]:
        raise LineageError(
            f"The split {empty[0]} is empty ({sum(part.rows for part in parts.values())} rows in"
            " all).",
            "Give the dataset more groups, or that split a larger share (op dataset_splits).",
        )


def _watched(rows: Iterable[Row], total: int) -> Iterator[Row]:
    with progress(logger, "splitting", total) as advance:
        for number, row in enumerate(rows, 1):
            yield row
            if number % BLOCK == 0:
                advance(BLOCK, "")


def prompts_digest(rows: Iterable[Row]) -> str:
    """The version of the prompts that rows carry: 64 hex digits, whatever the rows' order.

    A row's prompt is what its author said to the model, not what the customer said: the
    contents of its system turns in their order, and its function schemas. The digest is the
    SHA-256 of the canonical JSON of the sorted list of the distinct ones' own SHA-256.
    """
    prompts = {
        digest_json(
            {
                "instructions": [
                    turn["content"] for turn in row.prompt if turn["role"] == "system"
                ],
                "tools": list(row.tools),
            }
        )
        for row in rows
    }
    return digest_json(sorted(prompts))


def _point(group: str, salt: str) -> float:
    """Where the group falls in [0, 1): the first 8 bytes of SHA-256 as a fraction."""
    return _digest(group, salt) / 2**64


def _digest(group: str, salt: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{salt}\0{group}".encode()).digest()[:8], "big")
