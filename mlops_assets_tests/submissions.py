"""Candidates that are ready to be registered, small but whole, for the tests."""

import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from mlops_assets import provenance
from mlops_assets.artifacts import Artifact, ArtifactStore, Recipe
from mlops_assets.home import Home
from mlops_assets.ledger import PROMOTED, Decision
from mlops_assets.promotion import package, registry
from mlops_assets.promotion.submission import RegistrationSpec, Submission
from mlops_assets.promotion.version_tags import make_tags
from mlops_assets.refs import (
    AdapterRef,
    BaseModelRef,
    EvalReportRef,
    GateRef,
    ReleaseBundle,
    SplitsRef,
)
from mlops_assets.release_check import template_digest
from mlops_assets.verdicts import GATE, PASS, Criterion
from mlops_assets_tests.conftest import VERSIONS

NAME = "support-tickets"
CODE = provenance.Provenance("c" * 40, False, "l" * 64, "s" * 64, "ada@example.org")
SETTINGS = {
    "raw_dataset": {"path": "data/raw/tickets.jsonl", "license": "CC-BY-4.0"},
    "base_model": {"source": "tiny"},
    "lora_adapter": {"rank": 8, "method": "sft"},
}
RECORD: dict[str, Any] = {
    "versions": asdict(VERSIONS),
    "splits_digest": "s" * 64,
    "settings": json.dumps(SETTINGS),
    "hardware": {"cpu": "x"},
    "libraries": {"torch": "2"},
    "train_loss": 0.5,
    "validation_loss": 0.6,
    "tokens": 314_616,
    "flops": 7.7e11,
    "usage": {"seconds": 36.0, "joules": None, "counter": ""},
}
"""An adapter's summary."""


def safetensors(seed: str) -> bytes:
    """A safetensors file of one tensor that holds ``seed``."""
    data = seed.encode()
    tensor = {"weight": {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}}
    header = json.dumps(tensor).encode()
    return struct.pack("<Q", len(header)) + header + data


def build(
    store: ArtifactStore,
    kind: str,
    seed: str,
    files: Mapping[str, str | bytes],
    summary: Mapping[str, Any] | None = None,
    **inputs: str,
) -> Artifact:
    """An artifact of these files, made from these inputs."""

    def produce(directory: Path) -> Mapping[str, Any]:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            (directory / name).write_bytes(data)
        return summary or {}

    return store.build(Recipe(kind, {"seed": seed, **inputs}, {}, "1"), produce)


def make_report(bundle: ReleaseBundle, champion: str | None, **changes: Any) -> dict[str, Any]:
    """``report.json`` with all that the card shows."""
    scores = {"base": 0.1, "tuned": 0.75, "champion": None, "majority": 0.2, "tfidf": 0.8}
    report = {
        "items": 400,
        "exact_match": scores,
        "valid_json": {"base": 0.5, "tuned": 1.0, "champion": None},
        "fields": {"queue": {"accuracy": scores, "macro_f1": scores}},
        "slices": {"channel": {"email|web": {"count": 400, "exact_match": scores}}},
        "suites": {
            "safety": {
                "kind": "safety",
                "items": 12,
                "digest": "0" * 64,
                "metrics": {"refused": {"base": 0.25, "tuned": 0.5, "champion": None}},
            }
        },
        "candidate": bundle.digest,
        "champion": champion,
        "provenance": {"base_name": "tiny", "base_parameters": 1000},
    }
    return report | changes


def make_submission(
    home: Home,
    seed: str = "a",
    *,
    champion: str | None = None,
    verdict: str = PASS,
    record: Mapping[str, Any] | None = None,
    files: Mapping[str, bytes] | None = None,
    base_license: str = "Apache-2.0",
    spec: RegistrationSpec | None = None,
    **report: Any,
) -> Submission:
    """A candidate with an adapter of its own, measured and judged."""
    splits = build(home.store, "dataset_splits", "splits", {"test.jsonl": "{}"})
    base = build(home.store, "base_model", "base", {"config.json": "{}"}, splits=splits.digest)
    weights = {"adapter_model.safetensors": safetensors(seed), **(files or {})}
    adapter = build(
        home.store,
        "lora_adapter",
        seed,
        weights,
        record if record is not None else RECORD,
        base=base.digest,
        splits=splits.digest,
    )
    prompt = build(home.store, "prompt", "none", {"prompt.json": "{}"})
    return submit(
        home.store,
        SplitsRef(splits, VERSIONS, {"test": 400}, {}, SETTINGS),
        BaseModelRef(base, "tiny", 1000, license=base_license),
        AdapterRef(adapter, base, VERSIONS, "mlflow-run", "dagster-run", prompt),
        champion=champion,
        verdict=verdict,
        spec=spec,
        **report,
    )


def submit(
    store: ArtifactStore,
    splits: SplitsRef,
    base: BaseModelRef,
    adapter: AdapterRef,
    *,
    champion: str | None = None,
    verdict: str = PASS,
    spec: RegistrationSpec | None = None,
    **report: Any,
) -> Submission:
    """An adapter with a report and a gate verdict that are written by hand."""
    template = template_digest(store.path(base.artifact))
    assert adapter.prompt is not None
    bundle = ReleaseBundle(
        adapter.base,
        adapter.artifact,
        template,
        adapter.prompt,
        {"max_new_tokens": 32},
        adapter.versions,
    )
    content = json.dumps(make_report(bundle, champion, **report))
    measured = build(
        store,
        "eval_report",
        f"{bundle.digest}{champion}",
        {"report.json": content},
        splits=splits.artifact.digest,
        candidate=bundle.digest,
    )
    evaluated = EvalReportRef(measured, bundle, champion)
    judged = judge(store, evaluated, verdict)
    chosen = spec or RegistrationSpec()
    return Submission(NAME, splits, base, adapter, evaluated, judged, spec=chosen)


def judge(store: ArtifactStore, evaluated: EvalReportRef, verdict: str = PASS) -> GateRef:
    """A gate of two criteria with this verdict on a report."""
    bundle, report, champion = evaluated.bundle, evaluated.artifact, evaluated.champion
    criteria = [
        Criterion("floor/exact_match", verdict, "75.0%, at least 60.0%"),
        Criterion("leakage", PASS, "no held-out text in an earlier split"),
    ]
    content = {
        "verdict": verdict,
        "candidate": bundle.digest,
        "report": report.digest,
        "champion": champion,
        "criteria": [asdict(criterion) for criterion in criteria],
        "spec": {"alpha": 0.05},
    }
    seed = f"{bundle.digest}{champion}{verdict}"
    files = {GATE: json.dumps(content)}
    sealed = build(store, "gate_verdict", seed, files, report=report.digest)
    return GateRef(sealed, bundle, report, champion, verdict)


def client(home: Home) -> Any:
    """MLflow's own client of the home's registry."""
    from mlflow import MlflowClient

    return MlflowClient(home.mlflow_uri)


def register(home: Home, submission: Submission, code: provenance.Provenance = CODE) -> int:
    """Register as the asset does, with a plain MLflow run."""

    @contextmanager
    def attach() -> Iterator[str]:
        connection = client(home)
        location = home.mlflow_artifacts.as_uri()
        known = connection.get_experiment_by_name("tests")
        where = known.experiment_id if known else connection.create_experiment("tests", location)
        yield connection.create_run(where).info.run_id

    def make_package() -> registry.Package:
        return package.make_package(home.store, submission)

    tags = make_tags(home.store, submission, code)
    return registry.register(home, submission.name, tags, make_package, attach)


def promote(home: Home, submission: Submission, version: int) -> None:
    """A row that promotes, as an approval writes one."""
    champion = home.ledger.champion(NAME)
    entry = champion.entry if champion else 0
    bundle = submission.evaluated.bundle
    home.ledger.append(
        Decision(f"{entry}", PROMOTED, "test", NAME, version, bundle, {}, replaces=entry)
    )


def forbid_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let whoever asks MLflow from now on fail."""

    @contextmanager
    def refuse(home: Home) -> Iterator[Any]:
        raise AssertionError("MLflow was asked")
        yield

    monkeypatch.setattr(registry, "registry_client", refuse)
