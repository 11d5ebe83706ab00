"""The MLflow model directory of a release bundle: model card, signature, adapter; no pickle.

``MLmodel`` carries the signature and a flavour of our own, which names ``bundle.json``. It
has no ``python_function`` flavour on purpose: MLflow could only load that by unpickling. The
adapter's files are copied; the base model is named by its digest alone, because it is large
and shared by many versions.
"""

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlops_assets.artifacts import SHORT, Artifact, ArtifactStore, Recipe
from mlops_assets.code_digest import code_digest
from mlops_assets.promotion.origin import ORIGIN, origin_digest, render_origin
from mlops_assets.refs import AdapterRef, EvalReportRef, ReleaseBundle

FLAVOR = "mlops_bundle"
CARD, BUNDLE, ADAPTER = "README.md", "bundle.json", "adapter"
TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
SYSTEMS = ("base", "tuned", "champion", "majority", "tfidf")


def package_recipe(name: str, bundle_digest: str, report_digest: str, origin: str) -> Recipe:
    """What decides a package's bytes; ``origin`` is the digest of ``origin.json``."""
    inputs = {"bundle": bundle_digest, "report": report_digest, "origin": origin}
    return Recipe("mlflow_model", inputs, {"name": name}, code_digest(__name__), ("mlflow",))


def build_package(
    store: ArtifactStore, name: str, adapter: AdapterRef, evaluated: EvalReportRef
) -> Artifact:
    """The model directory, built or found. Raises LineageError when an input was changed."""
    bundle = evaluated.bundle

    def produce(directory: Path) -> dict[str, Any]:
        report = json.loads((store.path(evaluated.artifact) / "report.json").read_bytes())
        card = render_card(name, adapter, evaluated, report)
        (directory / CARD).write_text(card, encoding="utf-8")
        content = asdict(bundle) | {"digest": bundle.digest}
        (directory / BUNDLE).write_text(json.dumps(content, indent=1), encoding="utf-8")
        (directory / ORIGIN).write_bytes(render_origin(adapter))
        shutil.copytree(store.path(bundle.adapter), directory / ADAPTER)
        _write_mlmodel(directory, bundle)
        return {"head": card_head(card)}

    made_from = bundle.digest, evaluated.artifact.digest, origin_digest(adapter)
    return store.build(package_recipe(name, *made_from), produce)


def render_card(
    name: str, adapter: AdapterRef, evaluated: EvalReportRef, report: Mapping[str, Any]
) -> str:
    """The model card in Markdown."""
    from jinja2 import Environment, StrictUndefined

    # Markdown, not HTML: cells are escaped by the filter `cell`.
    environment = Environment(undefined=StrictUndefined, trim_blocks=False, autoescape=False)  # noqa: S701
    environment.filters |= {"percent": percent, "cell": _cell, "code": lambda text: f"`{text}`"}
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        name=name,
        headline=headline(report),
        report=report,
        report_digest=evaluated.artifact.digest,
        bundle=evaluated.bundle,
        adapter=adapter,
        fields=list(report["fields"]),
        systems=[system for system in SYSTEMS if report["exact_match"].get(system) is not None],
        weakest=weakest_slice(report),
    )


def card_head(card: str) -> str:
    """The card up to its first section, short enough for the registry's description."""
    return card.split("\n## ", 1)[0].strip()[:4_000]


def headline(report: Mapping[str, Any]) -> str:
    """One sentence with the score that matters."""
    scores, form = report["exact_match"], "one JSON object" if report["fields"] else "a short text"
    return (
        f"A small language model tuned to answer with {form}: {percent(scores['tuned'])}"
        f" of {report['items']:,} test rows answered exactly, against {percent(scores['base'])}"
        " for its base model."
    )


def weakest_slice(report: Mapping[str, Any]) -> str:
    """The slice with the lowest exact match among those of 30 rows and more."""
    scored = [
        (values["exact_match"]["tuned"], dimension, value, values["count"])
        for dimension, found in report["slices"].items()
        for value, values in found.items()
        if values["count"] >= 30 and values["exact_match"]["tuned"] is not None
    ]
    if not scored:
        return "The data has no slices with 30 test rows: where it is weak is not known."
    score, dimension, value, count = min(scored)
    return (
        f"Weakest slice of 30 rows and more: {_cell(dimension)} {_cell(value)},"
        f" {percent(score)} of {count} rows."
    )


def percent(value: Any) -> str:
    """A share for people; a dash where it is missing."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return "-"
    return f"{value:.1%}"


def _cell(text: str) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def _write_mlmodel(directory: Path, bundle: ReleaseBundle) -> None:
    from mlflow.models import Model, ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, Object, Property, Schema

    message = Object([Property(name, DataType.string) for name in ("role", "content")])
    signature = ModelSignature(
        inputs=Schema([ColSpec(Array(message), name="messages")]),
        outputs=Schema([ColSpec(DataType.string, name="content")]),
    )
    flavor = {
        "bundle": BUNDLE,
        "adapter": ADAPTER,
        "bundle_digest": bundle.digest,
        "base_digest": bundle.base.digest,
    }
    Model(
        signature=signature,
        flavors={FLAVOR: flavor},
        model_uuid=bundle.digest[:32],
        metadata={"bundle": bundle.digest[:SHORT]},
    ).save(str(directory / "MLmodel"))
