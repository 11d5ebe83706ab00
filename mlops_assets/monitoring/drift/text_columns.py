"""The text columns of the drift report: the requests, and the answers where they are free text.

Of each side's seeded sample so many texts are encoded as the settings say. Where no encoder is
installed the columns are left out, and the report says so.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlops_assets.artifacts import ArtifactStore
from mlops_assets.monitoring.drift.design_effect import clusters
from mlops_assets.monitoring.drift.embedding import Separation, as_finding, separate
from mlops_assets.monitoring.drift.findings import DATA, PREDICTION, Finding, too_few
from mlops_assets.monitoring.drift.sketches import rank_of
from mlops_assets.monitoring.drift.spec import DriftSpec
from mlops_assets.monitoring.drift.text_embeddings import TextEmbeddings
from mlops_assets.privacy import redact

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

REQUESTS, ANSWERS = ("request_embedding", DATA, "text"), ("answer_embedding", PREDICTION, "answer")
"""Name, layer, and where a sample holds the texts."""
NO_ENCODER = "no sentence encoder is installed (extra `encoder`)"
SHOWN, LONGEST_SHOWN = 4, 180  # texts of each side, and their characters


@dataclass(frozen=True)
class TextDrift:
    """What came of the text columns."""

    findings: list[Finding] = field(default_factory=list)
    farthest: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """By column: the texts of ``production`` that resemble the reference least, and those of the
    ``reference`` that production resembles least; redacted and shortened."""


def compare_texts(
    store: ArtifactStore,
    reference: "pa.Table",
    current: "pa.Table",
    encoder: Path | None,
    labels: Mapping[str, Sequence[str]],
    records: int,
    spec: DriftSpec,
) -> TextDrift:
    """Compare the texts of two samples, tables with ``id``, ``text`` and ``answer``, production's
    with ``user`` too.

    ``encoder`` is the directory of one. ``labels`` are the classes of each field of the answers,
    none where they are free text. ``records`` are those of the smaller side, of which the samples
    were drawn. Raises LineageError when the directory holds no encoder.
    """
    found = TextDrift()
    embeddings = TextEmbeddings(store, encoder) if encoder else None
    for name, layer, source in (REQUESTS,) if labels else (REQUESTS, ANSWERS):
        drawn = [_drawn(sample, source, spec) for sample in (reference, current)]
        sides = [sample[source].to_pylist() for sample in drawn]
        left_out = too_few(records, spec.min_records) or too_few(
            min(map(len, sides)), min(spec.min_records, spec.embedding_rows), "texts"
        )
        if embeddings is None or left_out:
            left_out = left_out or NO_ENCODER
            apart = Separation.unknown(*map(len, sides))
        else:
            before, now = map(embeddings.of, sides)
            apart = separate(before, now, spec.seed, clusters(drawn[1]["user"]))
            found.farthest[name] = {
                "production": _farthest(sides[1], apart.current),
                "reference": _farthest(sides[0], -apart.reference),
            }
        finding = as_finding(name, apart, spec.min_effect, layer)
        found.findings.append(replace(finding, left_out=left_out))
    return found


def _drawn(sample: "pa.Table", source: str, spec: DriftSpec) -> "pa.Table":
    """The rows whose texts are encoded, drawn by the seed; one without a word has no meaning."""
    import pyarrow as pa

    rows = zip(sample["id"].to_pylist(), sample[source].to_pylist(), strict=True)
    drawn = sorted(
        (rank_of(each, spec.seed), text, row)
        for row, (each, text) in enumerate(rows)
        if text.strip()
    )
    return sample.take(pa.array([row for *_, row in drawn[: spec.embedding_rows]], pa.int64()))


def _farthest(texts: Sequence[str], positions: "NDArray[np.float32]") -> list[str]:
    order = sorted(range(len(texts)), key=lambda index: -positions[index])
    shown = (_short(texts[index]) for index in order[: 4 * SHOWN])
    return list(dict.fromkeys(shown))[:SHOWN]


def _short(text: str) -> str:
    return textwrap.shorten(redact(text)[0], LONGEST_SHOWN, placeholder=" …")
