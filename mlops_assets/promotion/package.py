"""The MLflow model directory of a release bundle: card, bill of materials, adapter; no pickle.

``MLmodel`` carries the signature and a flavour of our own, which names ``bundle.json``. It
has no ``python_function`` flavour on purpose: MLflow could only load that by unpickling. The
adapter's files are copied; the base model is named by its digest alone, because it is large
and shared by many versions.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlops_assets.artifacts import SHORT, Artifact, ArtifactStore, Recipe, digest_file
from mlops_assets.code_digest import code_digest
from mlops_assets.promotion.bill_of_materials import BILL, render_bill
from mlops_assets.promotion.model_card import card_head, render_card
from mlops_assets.promotion.origin import ORIGIN, origin_digest, render_origin
from mlops_assets.promotion.registry import Package
from mlops_assets.promotion.safe_files import check_files, check_size
from mlops_assets.promotion.submission import Submission, whole_settings
from mlops_assets.refs import ReleaseBundle
from mlops_assets.verdicts import GATE, read_gate

KIND = "mlflow_model"
FLAVOR = "mlops_bundle"
CARD, BUNDLE, ADAPTER, CONFIG = "README.md", "bundle.json", "adapter", "config.yaml"


def build_package(store: ArtifactStore, submission: Submission) -> Artifact:
    """The model directory, built or found.

    Raises LineageError when an input was changed, when the adapter holds anything but
    safetensors and plain text, or when the package would be larger than the settings allow.
    """
    evaluated, limit = submission.evaluated, submission.spec.max_package_mib
    bundle, bill = evaluated.bundle, render_bill(submission)
    adapter = store.path(bundle.adapter)
    check_size(adapter, limit, f"The adapter {bundle.adapter.key[:SHORT]}")

    def produce(directory: Path) -> dict[str, Any]:
        report = json.loads((store.path(evaluated.artifact) / "report.json").read_bytes())
        card = render_card(submission, report, read_gate(store, submission.gate))
        (directory / CARD).write_text(card, encoding="utf-8")
        content = asdict(bundle) | {"digest": bundle.digest}
        (directory / BUNDLE).write_text(json.dumps(content, indent=1), encoding="utf-8")
        (directory / ORIGIN).write_bytes(render_origin(submission.adapter))
        (directory / CONFIG).write_bytes(whole_settings(store, submission))
        (directory / BILL).write_bytes(bill)
        shutil.copyfile(store.path(submission.gate.artifact) / GATE, directory / GATE)
        shutil.copytree(adapter, directory / ADAPTER)
        _write_mlmodel(directory, bundle)
        check_files(directory)
        check_size(directory, limit, f"The package of bundle {bundle.digest[:SHORT]}")
        return {"head": card_head(card), "bundle": bundle.digest}

    return store.build(_recipe(store, submission, bill), produce)


def make_package(store: ArtifactStore, submission: Submission) -> Package:
    """The package as the registry takes it. Raises as ``build_package``."""
    built = build_package(store, submission)
    bill = store.path(built) / BILL
    tags = {
        "package_key": built.key,
        "package_digest": built.digest,
        "bill_of_materials_digest": digest_file(bill),
    }
    return Package(store.path(built), built.summary["head"], tags)


def find_package(store: ArtifactStore, tags: Mapping[str, str]) -> Path | None:
    """The directory that was registered with these tags, verified; None if it is gone.

    Raises LineageError when a byte of it was changed.
    """
    found = store.find(KIND, tags.get("package_key") or "-")
    return store.path(found) if found else None


def _recipe(store: ArtifactStore, submission: Submission, bill: bytes) -> Recipe:
    """What decides a package's bytes."""
    evaluated = submission.evaluated
    inputs = {
        "bundle": evaluated.bundle.digest,
        "report": evaluated.artifact.digest,
        "gate": submission.gate.artifact.digest,
        "origin": origin_digest(submission.adapter),
        "config": hashlib.sha256(whole_settings(store, submission)).hexdigest(),
        "bill": hashlib.sha256(bill).hexdigest(),
    }
    stated = {
        "name": submission.name,
        "base_license": submission.base.license,
        "data_license": submission.data_license,
        "runs": [submission.adapter.mlflow_run, submission.adapter.dagster_run],
    }
    libraries = ("mlflow", "huggingface_hub", "cyclonedx-python-lib")
    return Recipe(KIND, inputs, stated, code_digest(__name__), libraries)


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
