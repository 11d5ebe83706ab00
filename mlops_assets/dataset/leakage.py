"""Whether held-out rows stand, word for word or nearly, in an earlier split.

The splits count in the order train, validation, test: a row of validation or test leaks when
its text also stands in a split before its own. *Exact*: the same text ignoring case and
spacing. *Near*: see ``near_duplicates``. Near duplicates within one split are counted, never
removed. The report is an artifact of its own, so looking again costs nothing.
"""

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from mlops_assets.artifacts import ArtifactStore, Recipe
from mlops_assets.code_digest import code_digest
from mlops_assets.dataset.splits import SPLITS
from mlops_assets.near_duplicates import CHUNK, Signatures, normalised
from mlops_assets.privacy import excerpt
from mlops_assets.progress import progress
from mlops_assets.refs import SplitsRef

logger = logging.getLogger(__name__)

REPORT, SCRATCH = "leakage.json", ".scratch"
EXAMPLES = 10
NEAR, EXACT = 1, 2


@dataclass(frozen=True)
class Verdict:
    """Whether held-out rows are clean enough to measure with."""

    passed: bool
    reason: str


def report(store: ArtifactStore, splits: SplitsRef) -> Mapping[str, Any]:
    """What leaks between the splits; the limits stand in the splits' summary.

    ``splits``: for each split ``rows``, ``exact`` and ``near`` (leaked rows), ``clusters`` and
    ``clustered`` (near duplicates within the split). ``examples``: leaked rows and their partners.
    """
    similarity = float(splits.artifact.summary["limits"]["near_duplicate_similarity"])
    recipe = Recipe(
        "leakage_report",
        {"splits": splits.artifact.digest},
        {"similarity": similarity},
        code_digest(__name__),
        ("rensa", "numpy", "scipy"),
    )

    def produce(directory: Path) -> Mapping[str, Any]:
        found = measure(store.path(splits.artifact), splits.rows, similarity, directory / SCRATCH)
        text = json.dumps(found, ensure_ascii=False, indent=1)
        (directory / REPORT).write_text(text, encoding="utf-8")
        return {}

    artifact = store.build(recipe, produce)
    found = json.loads((store.path(artifact) / REPORT).read_text(encoding="utf-8"))
    return dict(found)


def judge(found: Mapping[str, Any], limits: Mapping[str, float]) -> Verdict:
    """Compare the shares of leaked rows with what is tolerated."""
    problems = []
    for name in SPLITS[1:]:
        counts = found["splits"][name]
        for kind in ("exact", "near"):
            share, most = counts[kind] / counts["rows"], limits[f"max_{kind}_leaked_share"]
            if share > most:
                problems.append(
                    f"{counts[kind]} of {counts['rows']} rows of {name} ({share:.2%}) stand"
                    f" {'word for word' if kind == 'exact' else 'nearly'} in an earlier split,"
                    f" {most:.2%} is the most allowed"
                )
    if not problems:
        return Verdict(True, "No split leaks more than is tolerated.")
    return Verdict(
        False,
        "; ".join(problems) + ". Give rows of one origin one group (`group_field`), take the"
        " copies out of the source, or change the limits of the op dataset_splits.",
    )


def measure(
    folder: Path, sizes: Mapping[str, int], similarity: float, scratch: Path
) -> dict[str, Any]:
    """The report on the three files in ``folder``; works in ``scratch``, which is gone after."""
    import numpy as np

    scratch.mkdir()
    ends = np.cumsum([sizes[name] for name in SPLITS])
    with progress(logger, "looking for leaks", int(ends[-1])) as advance:
        texts = _texts(folder, scratch / "exact", advance)
        signatures = Signatures(scratch, texts, similarity)
    leaked, partner, cluster = _compare(signatures, scratch / "exact", ends)
    shutil.rmtree(scratch)
    starts = [0, *ends[:-1].tolist()]
    return {
        "similarity": similarity,
        "splits": {
            name: {"rows": sizes[name]}
            | _counts(leaked[start : start + sizes[name]], cluster, start, sizes[name])
            for name, start in zip(SPLITS, starts, strict=True)
        },
        "examples": _examples(folder, dict(zip(SPLITS, starts, strict=True)), leaked, partner),
    }


def _texts(folder: Path, keys: Path, advance: Any) -> Iterator[str]:
    """The prompts of all splits in order; the hash of each is written to ``keys``."""
    import hashlib

    with keys.open("wb") as stream:
        for number, line in enumerate(_lines(folder), 1):
            text = normalised(_prompt(orjson.loads(line)))
            stream.write(hashlib.blake2b(text.encode(), digest_size=8).digest())
            if number % CHUNK == 0:
                advance(CHUNK, "")
            yield text


def _lines(folder: Path) -> Iterator[bytes]:
    for name in SPLITS:
        with (folder / f"{name}.jsonl").open("rb") as stream:
            yield from stream


def _prompt(row: Mapping[str, Any]) -> str:
    return "\n".join(message["content"] for message in row["messages"][:-1])


def _compare(signatures: Signatures, exact: Path, ends: Any) -> tuple[Any, Any, Any]:
    """For each row: how it leaks (0, NEAR, EXACT), its partner in an earlier split, and the
    first row of its cluster of near duplicates within its own split."""
    import numpy as np

    rows = signatures.rows
    split = np.searchsorted(ends, np.arange(rows), side="right").astype(np.uint8)
    leaked = np.zeros(rows, dtype=np.uint8)
    partner = np.full(rows, -1, dtype=np.int32)
    cluster = np.arange(rows, dtype=np.int32)

    def note(earlier: Any, later: Any, kind: int) -> None:
        crossing = split[earlier] < split[later]
        leaked[later[crossing]] = np.maximum(leaked[later[crossing]], kind)
        partner[later[crossing]] = earlier[crossing]
        np.minimum.at(cluster, later[~crossing], earlier[~crossing])

    note(*_repeats(np.fromfile(exact, dtype=np.uint64)), EXACT)

    def worth(earlier: Any, later: Any) -> Any:
        crossing = split[earlier] < split[later]
        return np.where(crossing, leaked[later] == 0, cluster[later] == later)

    for earlier, later in signatures.near_pairs(worth):
        note(earlier, later, NEAR)
    while not np.array_equal(cluster, roots := cluster[cluster]):
        cluster = roots
    return leaked, partner, cluster


def _repeats(keys: Any) -> tuple[Any, Any]:
    """Rows with equal keys, each paired with the first of them."""
    import numpy as np

    order = np.argsort(keys, kind="stable")
    ranked = keys[order]
    fresh = np.r_[True, ranked[1:] != ranked[:-1]]
    firsts = order[np.maximum.accumulate(np.where(fresh, np.arange(len(keys)), 0))]
    return firsts[~fresh], order[~fresh]


def _counts(leaked: Any, cluster: Any, start: int, rows: int) -> dict[str, int]:
    """Leaked rows, and clusters of two and more with the rows in them."""
    import numpy as np

    sizes = np.bincount(cluster[start : start + rows] - start, minlength=rows)
    return {
        "exact": int((leaked == EXACT).sum()),
        "near": int((leaked == NEAR).sum()),
        "clusters": int((sizes > 1).sum()),
        "clustered": int(sizes[sizes > 1].sum()),
    }


def _examples(
    folder: Path, starts: Mapping[str, int], leaked: Any, partner: Any
) -> list[dict[str, str]]:
    """The first leaked rows, exact ones before near ones, each beside its partner."""
    import numpy as np

    (found,) = np.nonzero(leaked)
    chosen = found[np.argsort(-leaked[found].astype(int), kind="stable")][:EXAMPLES].tolist()
    wanted = {*chosen, *(int(partner[row]) for row in chosen)}
    seen = {
        number: orjson.loads(line) for number, line in enumerate(_lines(folder)) if number in wanted
    }

    def split_of(number: int) -> str:
        return max((name for name in SPLITS if starts[name] <= number), key=lambda n: starts[n])

    return [
        {
            "kind": "exact" if leaked[row] == EXACT else "near",
            "split": split_of(row),
            "id": str(seen[row]["id"]),
            "text": excerpt(_prompt(seen[row])),
            "stands_in": split_of(int(partner[row])),
            "as": str(seen[int(partner[row])]["id"]),
            "its_text": excerpt(_prompt(seen[int(partner[row])])),
        }
        for row in chosen
    ]
