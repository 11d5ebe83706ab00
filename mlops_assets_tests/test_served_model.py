"""What was approved is what is served: the merged model, and the real engine's answers."""

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.artifacts import Artifact, ArtifactStore, LineageError, Recipe
from mlops_assets.evaluation.records import RECORDS, TEST, read_records
from mlops_assets.home import Home
from mlops_assets.model_loading import load_model
from mlops_assets.refs import EvalReportRef, ReleaseBundle, SplitsRef, read_rows
from mlops_assets.release_check import template_digest
from mlops_assets.serving.engines.engine_manager import EngineManager
from mlops_assets.serving.engines.engine_plans import request_fields
from mlops_assets.serving.engines.engine_spec import EngineSpec
from mlops_assets.serving.engines.lora_adapters import is_loadable
from mlops_assets.serving.engines.served_model import find_served_model, served_model, served_recipe
from mlops_assets.template_messages import with_system
from mlops_assets.training.adapters import adapter_config, save_weights
from mlops_assets.training.quiet import quiet_libraries
from mlops_assets.training.spec import FinetuneSpec
from mlops_assets_tests.conftest import VERSIONS, LineageRun
from mlops_assets_tests.engine_homes import ask, is_running, streamed

pytestmark = pytest.mark.slow

LORA = {"rank": 4, "alpha": 8.0}
KINDS: dict[str, dict[str, Any]] = {
    "lora": LORA,
    "rslora": {"adapter": "rslora"} | LORA,
    "dora": {"adapter": "dora"} | LORA,
    "full": {"adapter": "full"},
}


def copy_base(lineage: LineageRun, root: Path) -> ArtifactStore:
    """A store with the lineage's base model."""
    shutil.copytree(lineage.home / "artifacts" / "base_model", root / "base_model")
    return ArtifactStore(root)


@pytest.fixture(scope="module")
def store(lineage: LineageRun, tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    return copy_base(lineage, tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def base(store: ArtifactStore) -> Artifact:
    return base_of(store)


def base_of(store: ArtifactStore) -> Artifact:
    [directory] = (store.root / "base_model").iterdir()
    found = store.find("base_model", directory.name)
    assert found is not None
    return found


def make_bundle(
    store: ArtifactStore, base: Artifact, kind: str, settings: dict[str, Any]
) -> ReleaseBundle:
    """A release of an adapter of this kind whose weights are random."""
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    def produce(directory: Path) -> dict[str, Any]:
        spec = FinetuneSpec(**settings)
        model: Any = AutoModelForCausalLM.from_pretrained(store.path(base))
        config = adapter_config(model, spec)
        torch.manual_seed(1)
        with quiet_libraries():
            model = model if config is None else get_peft_model(model, config)
        with torch.no_grad():
            for weight in model.parameters():
                if weight.requires_grad:
                    weight.add_(0.05 * torch.randn_like(weight))
        save_weights(model, spec, "base", directory)
        return {}

    adapter = store.build(Recipe("lora_adapter", {"kind": kind}, settings, "1"), produce)
    template = template_digest(store.path(base))
    return ReleaseBundle(base, adapter, template, "p" * 64, {}, VERSIONS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_served_model_computes_what_was_measured(
    store: ArtifactStore, base: Artifact, kind: str
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    bundle = make_bundle(store, base, kind, KINDS[kind])
    served = store.path(served_model(store, bundle))
    measured = load_model(store.path(bundle.base), store.path(bundle.adapter))
    plain = load_model(store.path(bundle.base), None)
    loaded: Any = AutoModelForCausalLM.from_pretrained(served, dtype="float32")
    ids = torch.arange(2, 42)[None]
    with torch.inference_mode():
        wanted, found, untuned = (
            model(input_ids=ids).logits for model in (measured.model, loaded, plain.model)
        )
    assert torch.equal(found, wanted)
    assert not torch.allclose(found, untuned, atol=1e-3)
    assert template_digest(served) == bundle.chat_template
    settings = json.loads((served / "generation_config.json").read_bytes())
    assert settings["eos_token_id"] == list(measured.end_tokens)
    assert settings["do_sample"] is False
    assert find_served_model(store, bundle) == served_model(store, bundle)


def test_the_same_bytes_come_out_elsewhere(lineage: LineageRun, tmp_path: Path) -> None:
    digests = set()
    for name in ("one", "two"):
        elsewhere = copy_base(lineage, tmp_path / name)
        bundle = make_bundle(elsewhere, base_of(elsewhere), "lora", LORA)
        digests.add(served_model(elsewhere, bundle).digest)
    assert len(digests) == 1


def test_what_cannot_be_merged_is_refused(store: ArtifactStore, base: Artifact) -> None:
    prefix = make_bundle(store, base, "prefix", {"adapter": "prefix", "prefix_tokens": 4})
    with pytest.raises(LineageError, match="tuned prefix"):
        served_model(store, prefix)
    source = store.path(base)

    def quantise(directory: Path) -> dict[str, Any]:
        config = json.loads((source / "config.json").read_bytes())
        few_bits = config | {"quantization_config": {"load_in_4bit": True}}
        (directory / "config.json").write_text(json.dumps(few_bits))
        return {}

    quantised = store.build(Recipe("base_model", {"few": "bits"}, {}, "1"), quantise)
    lora = make_bundle(store, base, "lora", LORA)
    with pytest.raises(LineageError, match="few bits"):
        served_model(store, replace(lora, base=quantised))
    assert find_served_model(store, prefix) is None


def test_weights_that_are_not_finite_are_refused(store: ArtifactStore, base: Artifact) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    full = store.path(make_bundle(store, base, "full", KINDS["full"]).adapter)

    def spoil(directory: Path) -> dict[str, Any]:
        weights = load_file(full / "model.safetensors")
        next(iter(weights.values()))[0] = torch.nan
        save_file(weights, directory / "model.safetensors", {"format": "pt"})
        return {}

    spoilt = store.build(Recipe("lora_adapter", {"spoilt": "yes"}, {}, "1"), spoil)
    bundle = replace(make_bundle(store, base, "lora", LORA), adapter=spoilt)
    with pytest.raises(LineageError, match="not finite"):
        served_model(store, bundle)


@pytest.mark.parametrize(
    ("changes", "loadable"),
    [
        ({}, True),
        ({"use_rslora": True}, True),
        ({"use_dora": True}, False),
        ({"modules_to_save": ["lm_head"]}, False),
        ({"target_modules": ["q_proj", "embed_tokens"]}, False),
        ({"bias": "all"}, False),
        ({"r": 128}, False),
        ({"peft_type": "PREFIX_TUNING"}, False),
    ],
)
def test_vllm_loads_plain_low_rank_adapters_only(
    tmp_path: Path, changes: dict[str, Any], loadable: bool
) -> None:
    plain = {"peft_type": "LORA", "r": 16, "target_modules": ["q_proj"], "bias": "none"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(plain | changes))
    assert is_loadable(tmp_path, 64) is loadable


def test_generation_settings_as_request_fields() -> None:
    greedy = request_fields({"max_new_tokens": 48, "do_sample": False})
    assert greedy == {"max_tokens": 48, "temperature": 0.0}
    sampled = {"max_new_tokens": 8, "do_sample": True, "temperature": 0.7, "top_p": 0.9}
    assert request_fields(sampled) == {"max_tokens": 8, "temperature": 0.7, "top_p": 0.9}


def test_the_engine_answers_as_the_evaluation_recorded(lineage: LineageRun, tmp_path: Path) -> None:
    home = Home(lineage.copy(tmp_path).home)
    champion, report = home.ledger.champion(), home.latest("eval_report")
    splits = home.latest("dataset_splits")
    assert champion is not None
    assert isinstance(report, EvalReportRef)
    assert isinstance(splits, SplitsRef)
    assert report.bundle.digest == champion.decision.bundle.digest
    records = read_records(home.store.path(report.artifact) / RECORDS, "tuned")
    recorded = {record.item: record.output for record in records if record.suite == TEST}
    rows = list(read_rows(home.store.path(splits.artifact) / "test.jsonl"))[:24]

    forged = home.store.build(served_recipe(report.bundle), lambda _: {"forged": True})

    async def scenario() -> dict[str, str]:
        manager = EngineManager(home, EngineSpec())
        try:
            upstream = await manager.ensure(champion)
            pid = manager.state()[0].pid
            found = {}
            for row in rows:
                messages = list(with_system(upstream.system, row).prompt)
                status, said = await ask(upstream, "", messages=messages)
                assert status == 200
                found[row.id] = said["choices"][0]["message"]["content"]
                assert set(said["usage"]) >= {"prompt_tokens", "completion_tokens"}
            for row in rows[:4]:
                messages = list(with_system(upstream.system, row).prompt)
                assert await streamed(upstream, messages) == found[row.id]
            # It computes on a file of its own that nobody can open, or rewrite, any more.
            assert "model.safetensors (deleted)" in Path(f"/proc/{pid}/maps").read_text()
            assert not list((home.root / "serving" / "engines").rglob("*.safetensors"))
        finally:
            await manager.close()
        assert pid is not None
        assert not is_running(pid)
        assert find_served_model(home.store, report.bundle) != forged
        return found

    assert asyncio.run(scenario()) == {row.id: recorded[row.id] for row in rows}
