"""Splits rows by a stable hash of their group, so that no row ever moves when data grows."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from mlops_assets.artifacts import (
    ArtifactStore,
    LineageError,
    Recipe,
    canonical_json,
    digest_file,
    digest_json,
)
from mlops_assets.code_digest import code_digest
from mlops_assets.dataset.sources import normalised
from mlops_assets.refs import Row, SplitsRef, ValidatedRef, Versions, read_rows, write_jsonl

SPLITS = ("train", "validation", "test")
INSTRUCTING_ROLES = ("system", "developer")


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
    """Write the three split files.

    Raises LineageError when a split is empty or a text stands in two of them.
    """
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
        rows = read_rows(store.path(validated.artifact) / "rows.jsonl")
        parts = divide(rows, spec)
        counts = {name: write_jsonl(directory / f"{name}.jsonl", parts[name]) for name in SPLITS}
        groups = {name: len({row.group for row in parts[name]}) for name in SPLITS}
        versions = Versions(
            validated.dataset,
            prompts_digest(row for part in parts.values() for row in part),
            digest_file(directory / "test.jsonl"),
        )
        return {"rows": counts, "groups": groups, "versions": asdict(versions)}

    artifact = store.build(recipe, produce)
    counts = {name: artifact.summary["rows"][name] for name in SPLITS}
    settings = {**validated.settings, "dataset_splits": spec.model_dump(mode="json")}
    versions = Versions.of(artifact)
    return SplitsRef(artifact, versions, counts, dict(validated.labels), settings)


def prompts_digest(rows: Iterable[Row]) -> str:
    """The version of the prompts that rows carry: 64 hex digits, whatever the rows' order.

    A row's prompt is what its author said to the model, not what the customer said: the
    contents of its system and developer turns in their order, and its function schemas. The
    digest is the SHA-256 of the canonical JSON of the sorted list of the distinct ones.
    """
    prompts = {
        canonical_json(
            {
                "instructions": [
                    turn["content"] for turn in row.prompt if turn["role"] in INSTRUCTING_ROLES
                ],
                "tools": list(row.tools),
            }
        ).decode()
        for row in rows
    }
    return digest_json(sorted(prompts))


def divide(rows: Iterable[Row], spec: SplitSpec) -> dict[str, list[Row]]:
    """The rows of each split. Raises LineageError as ``split`` does."""
    parts: dict[str, list[Row]] = {name: [] for name in SPLITS}
    place: dict[str, str] = {}
    for row in rows:
        name = split_of(row, spec)
        parts[name].append(row)
        text = normalised("\n".join(message["content"] for message in row.prompt))
        if place.setdefault(text, name) != name:
            raise LineageError(
                f"The text of row {row.id} stands in two splits, {place[text]} and {name}.",
                "Its two rows have different groups: quarantine one of them in validated_dataset.",
            )
    sizes = Counter({name: len(part) for name, part in parts.items()})
    if empty := [name for name in SPLITS if not sizes[name]]:
        raise LineageError(
            f"The split {empty[0]} is empty ({sum(sizes.values())} rows in all).",
            "Give the dataset more groups, or that split a larger share (op dataset_splits).",
        )
    return parts


def _point(group: str, salt: str) -> float:
    """Where the group falls in [0, 1): the first 8 bytes of SHA-256 as a fraction."""
    digest = hashlib.sha256(f"{salt}\0{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
