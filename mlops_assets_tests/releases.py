"""Candidates that wait for approval and people with keys, for the tests."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlops_assets.approval_requests import Standing
from mlops_assets.approvers import Approver, add_approver
from mlops_assets.artifacts import Artifact, Recipe
from mlops_assets.home import Home
from mlops_assets.promotion.request import open_request
from mlops_assets.promotion.spec import PromotionSpec
from mlops_assets.refs import GateRef, RegisteredModelRef, ReleaseBundle
from mlops_assets.release_check import template_digest
from mlops_assets.signing import load_key, new_key, public_key
from mlops_assets.verdicts import GATE, PASS, Criterion
from mlops_assets_tests.conftest import VERSIONS

MODEL = "support-tickets"
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
BASE = {
    "config.json": "{}",
    "tokenizer.json": '{"vocabulary": 300}',
    "chat_template.jinja": "{{ messages }}",
}

LORA = '{"peft_type": "LORA", "r": 8, "target_modules": ["q_proj", "v_proj"]}'


def build(home: Home, kind: str, seed: str, files: Mapping[str, str]) -> Artifact:
    """An artifact of these files."""

    def produce(directory: Path) -> Mapping[str, Any]:
        for name, text in files.items():
            (directory / name).write_text(text)
        return {}

    return home.store.build(Recipe(kind, {"seed": seed}, {}, "1"), produce)


def make_bundle(home: Home, seed: str = "a") -> ReleaseBundle:
    """A release with an adapter of its own."""
    base = build(home, "base_model", "base", BASE)
    files = {"adapter_model.safetensors": f"weights {seed}", "adapter_config.json": LORA}
    adapter = build(home, "lora_adapter", seed, files)
    prompt = build(home, "prompt", "plain", {"system.txt": "Answer with one queue."})
    template = template_digest(home.store.path(base))
    return ReleaseBundle(base, adapter, template, prompt, {"max_new_tokens": 32}, VERSIONS)


def make_gate(
    home: Home, bundle: ReleaseBundle, champion: str | None = None, verdict: str = PASS
) -> GateRef:
    """A gate of two criteria with this verdict."""
    report = build(home, "eval_report", bundle.digest, {"report.json": "{}", "report.html": "fine"})
    criteria = [
        Criterion("floor/exact_match", verdict, "93.9%, at least 60.0%"),
        Criterion("leakage", PASS, "no held-out text in an earlier split"),
    ]
    content = {
        "verdict": verdict,
        "candidate": bundle.digest,
        "report": report.digest,
        "champion": champion,
        "criteria": [asdict(criterion) for criterion in criteria],
        "spec": {},
    }
    seed = f"{bundle.digest}{champion}{verdict}"
    artifact = build(home, "gate_verdict", seed, {GATE: json.dumps(content)})
    return GateRef(artifact, bundle, report, champion, verdict)


def request(
    home: Home,
    version: int = 1,
    seed: str = "a",
    *,
    author: str = "",
    now: datetime = NOON,
    **policy: Any,
) -> Standing:
    """Have version ``version`` of the model requested, against the champion of now."""
    bundle, champion = make_bundle(home, seed), home.ledger.champion(MODEL)
    gate = make_gate(home, bundle, champion.decision.bundle.digest if champion else None)
    registered = RegisteredModelRef(MODEL, version, bundle, gate.report)
    return open_request(home, registered, gate, PromotionSpec(**policy), author, "run", now)


@dataclass(frozen=True)
class Person:
    """Somebody with a key."""

    name: str
    key: Any


def enlist(home: Home, name: str, **details: Any) -> Person:
    """A person with a key of their own, on the list of approvers."""
    person = stranger(home, name)
    add_approver(home, Approver(name=name, public_key=public_key(person.key), **details))
    return person


def stranger(home: Home, name: str) -> Person:
    """A person with a key, not on the list."""
    path = home.root / "keys" / f"{name}.pem"
    return Person(name, load_key(path, path) if path.exists() else new_key(path))
