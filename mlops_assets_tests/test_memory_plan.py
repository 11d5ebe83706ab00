"""The memory plan: what it predicts, beside what a training takes, and what it refuses."""

from dataclasses import replace
from pathlib import Path

import pytest

from mlops_assets.artifacts import ArtifactStore, LineageError
from mlops_assets.home import Home
from mlops_assets.profiles import asset_config, find_profile, load_profile
from mlops_assets.refs import BaseModelRef, SplitsRef
from mlops_assets.threads import fitting_threads
from mlops_assets.training.adapters import adapter_config
from mlops_assets.training.arguments import on_one_gpu, uses_bf16
from mlops_assets.training.base_model import provide
from mlops_assets.training.compute_ceiling import find_ceiling
from mlops_assets.training.device import Device, available_memory, find_device
from mlops_assets.training.finetune import finetune
from mlops_assets.training.memory_plan import Training, plan_memory, translate_out_of_memory
from mlops_assets.training.model_shape import ModelShape, read_shape, shape_of
from mlops_assets.training.quiet import quiet_libraries
from mlops_assets.training.spec import BaseModelSpec, FinetuneSpec
from mlops_assets.training.trainer import load_base
from mlops_assets.training.workload import Workload
from mlops_assets_tests.allocations import Allocations
from mlops_assets_tests.small_training import no_tracker
from mlops_assets_tests.test_methods import _row, _splits

GIB = 1024**3
LLAMA_8B = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
LLAMA_8B |= {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256}
LLAMA_1B = LLAMA_8B | {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16}
QWEN_HALF_B = {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24}
QWEN_HALF_B |= {"num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936}
QWEN_HALF_B |= {"tie_word_embeddings": True}
ADAPTER_ONLY = {"rank": 16, "adapt_embeddings": False, "train_head": False}
SMALL_CONFIG = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL_CONFIG |= {"intermediate_size": 64, "vocab_size": 96}
SMALL_CONFIG |= dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0)
WORK = Workload(tokens=10**6, answers=10**5, squares=10**9, longest=2048)
H100 = Device("cuda", "NVIDIA H100 80GB HBM3", 1, 78 * GIB)
RTX_4090 = Device("cuda", "NVIDIA GeForce RTX 4090", 1, 23 * GIB)


def _llama(settings: dict[str, int], *, tied: bool) -> ModelShape:
    from transformers import LlamaConfig

    return shape_of(LlamaConfig(**settings, tie_word_embeddings=tied))


def _on(device: Device, **settings: object) -> Training:
    spec = FinetuneSpec(**ADAPTER_ONLY | {"pack_tokens": 2048} | settings)
    shape = _llama(LLAMA_8B, tied=False)
    return Training(shape, spec, WORK, device, bf16=True, by_row=True)


# --- shapes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "tied", "parameters"),
    # As the model cards of Llama 3.1 8B and Llama 3.2 1B give them.
    [(LLAMA_8B, False, 8_030_261_248), (LLAMA_1B, True, 1_235_814_400)],
)
def test_a_configuration_tells_the_parameters(
    settings: dict[str, int], tied: bool, parameters: int
) -> None:
    shape = _llama(settings, tied=tied)
    assert shape.parameters == parameters
    assert shape.lora(16, embeddings=False) == 16 * shape.linear_ends


def test_lora_of_llama_8b_has_the_published_size() -> None:
    # PEFT's print_trainable_parameters() for rank 16 on all linear layers: 41,943,040.
    assert _llama(LLAMA_8B, tied=False).lora(16, embeddings=False) == 41_943_040


@pytest.mark.parametrize(
    ("kind", "linear_maps"),
    [("qwen2", 7), ("mistral", 7), ("phi3", 4), ("gemma2", 7), ("gpt_neox", 4), ("gpt2", 4)],
)
def test_other_transformers_have_a_shape(kind: str, linear_maps: int) -> None:
    from peft import get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(kind, **SMALL_CONFIG)
    shape, model = shape_of(config), AutoModelForCausalLM.from_config(config)
    assert shape.parameters == model.num_parameters()
    assert shape.linear_maps == linear_maps * config.num_hidden_layers
    spec = FinetuneSpec(rank=4, adapt_embeddings=False, train_head=False)
    with quiet_libraries():
        adapted = get_peft_model(model, adapter_config(model, spec))
    trained, _ = adapted.get_nb_trainable_parameters()
    assert trained == shape.lora(4, embeddings=False)


def test_what_is_no_transformer_is_refused(tmp_path: Path) -> None:
    from transformers import AutoConfig

    AutoConfig.for_model("mamba", hidden_size=64, num_hidden_layers=2).save_pretrained(tmp_path)
    with pytest.raises(LineageError, match="does not describe a causal language model"):
        read_shape(tmp_path)


@pytest.mark.parametrize(
    ("settings", "gigabytes"),
    [({}, 16.1), ({"quantization": "nf4"}, 5.8), ({"adapter": "full"}, 46.1)],
)
def test_weights_of_llama_8b(settings: dict[str, str], gigabytes: float) -> None:
    spec = FinetuneSpec(**(settings if "adapter" in settings else ADAPTER_ONLY | settings))
    parts = replace(_on(H100), spec=spec).parts(recompute=False)
    assert parts["base weights"] / 1e9 == pytest.approx(gigabytes, abs=0.1)


# --- decisions --------------------------------------------------------------------------


def test_activations_are_recomputed_only_where_memory_asks_for_it() -> None:
    assert not plan_memory(_on(H100)).checkpointing
    small = plan_memory(_on(RTX_4090))
    assert small.checkpointing
    assert small.fits
    assert plan_memory(_on(H100, gradient_checkpointing="always")).checkpointing


@pytest.mark.parametrize(
    ("profile", "architecture", "settings"),
    [
        ("llama3.1-8b-qlora", "llama", LLAMA_8B),
        ("qwen2.5-0.5b-lora", "qwen2", QWEN_HALF_B),
    ],
)
def test_the_shipped_profiles_fit_a_gpu_without_flash_attention(
    profile: str, architecture: str, settings: dict[str, int]
) -> None:
    from transformers import AutoConfig

    spec = FinetuneSpec(**asset_config("lora_adapter", load_profile(find_profile(profile, ""))))
    shape = shape_of(AutoConfig.for_model(architecture, **settings))
    plan = plan_memory(Training(shape, spec, WORK, RTX_4090, bf16=True))
    assert not plan.checkpointing


def test_one_of_several_gpus_is_used(tmp_path: Path) -> None:
    from transformers import TrainingArguments

    config = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    for seen, used in ((0, 0), (1, 1), (8, 1)):
        config._n_gpu = seen
        assert on_one_gpu(config).train_batch_size == 8
        assert config.n_gpu == used


def test_what_cannot_fit_is_refused_with_advice_that_fits() -> None:
    with pytest.raises(LineageError, match="Training would need") as refused:
        plan_memory(_on(RTX_4090, gradient_checkpointing="never", packs_per_step=2))
    assert "gradient_checkpointing: always" in refused.value.remedy
    assert "RTX 4090 has 23.0 GiB free" in refused.value.problem
    advised = _on(RTX_4090, gradient_checkpointing="always", packs_per_step=2)
    assert plan_memory(advised).fits  # the advice is good


def test_advice_names_what_to_combine_when_one_setting_is_not_enough() -> None:
    tiny = replace(RTX_4090, available=4 * GIB)
    with pytest.raises(LineageError) as refused:
        plan_memory(_on(tiny))
    assert refused.value.remedy.startswith("Combine lora_adapter's ")
    assert "quantization: nf4" in refused.value.remedy
    assert "smaller base model" in refused.value.remedy


def test_advice_names_what_fp32_costs_and_no_value_that_is_refused() -> None:
    fp32 = replace(_on(RTX_4090, pack_tokens=32), bf16=False)
    with pytest.raises(LineageError) as refused:
        plan_memory(fp32)
    assert "precision: bf16 (" in refused.value.remedy
    assert "pack_tokens" not in refused.value.remedy
    assert plan_memory(replace(fp32, bf16=True)).fits


def test_a_gpu_that_is_full_all_the_same_is_told_in_a_sentence() -> None:
    import torch

    training = _on(H100, gradient_checkpointing="never")
    told = pytest.raises(LineageError, match="H100 80GB HBM3 ran out of memory")
    with told as full, translate_out_of_memory(training, plan_memory(training)):
        raise torch.OutOfMemoryError
    assert "gradient_checkpointing: always" in full.value.remedy


def test_a_mask_over_the_whole_pack_is_counted_without_flash_attention() -> None:
    flash = _on(H100, packs_per_step=4)
    masked = replace(flash, by_row=False)
    extra = masked.parts(False)["activations"] - flash.parts(False)["activations"]
    assert extra == 32 * 8192**2 * 2  # layers, tokens of the row twice, bytes of bf16


# --- what is free -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "used", "cached", "free"),
    [("max", 9, 0, 8192), ("5000", 3000, 500, 2500), ("100000", 3000, 0, 8192), ("10", 99, 0, 0)],
)
def test_a_container_may_have_less_than_the_machine(
    tmp_path: Path, limit: str, used: int, cached: int, free: int
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 99 kB\nMemAvailable: 8 kB\n")
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text(f"{used}\n")
    (tmp_path / "memory.stat").write_text(f"anon 1\ninactive_file {cached}\n")
    assert available_memory(tmp_path / "meminfo", (tmp_path,)) == free


def test_kernels_from_the_hub_are_refused_without_a_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(LineageError, match="hub_kernels needs a GPU"):
        load_base(tmp_path, FinetuneSpec(hub_kernels=True))


# --- prediction beside measurement ------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    return ArtifactStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def splits(store: ArtifactStore) -> SplitsRef:
    return _splits(store, [_row(number) for number in range(72)])


@pytest.fixture(scope="module")
def base(store: ArtifactStore, splits: SplitsRef) -> BaseModelRef:
    shape = {"vocabulary": 400, "hidden_size": 128, "mlp_size": 320, "layers": 4, "heads": 4}
    return provide(store, splits, BaseModelSpec(**shape))


SMALL = {"epochs": 1, "pack_tokens": 256}
LEAN = SMALL | {"rank": 8, "adapt_embeddings": False, "train_head": False}
PAIRS = {"method": "dpo", "adapter": "full", "epochs": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(SMALL | {"label_smoothing": 0.1}, id="lora-embeddings-head"),
        pytest.param(LEAN | {"precision": "bf16"}, id="lora-bf16"),
        pytest.param(LEAN | {"gradient_checkpointing": "always"}, id="lora-recomputed"),
        pytest.param(LEAN | {"quantization": "nf4"}, id="qlora"),
        pytest.param(
            LEAN | {"adapter": "dora", "pack_tokens": 128, "packs_per_step": 2}, id="dora"
        ),
        pytest.param({"adapter": "full", "epochs": 1, "pack_tokens": 64}, id="full-small-packs"),
        pytest.param(SMALL | {"adapter": "full", "accumulation": 2}, id="full-accumulated"),
        pytest.param(PAIRS, id="dpo-full"),
    ],
)
def test_the_peak_is_predicted_within_a_quarter(
    store: ArtifactStore, splits: SplitsRef, base: BaseModelRef, settings: dict[str, object]
) -> None:
    spec = FinetuneSpec(**settings)
    with fitting_threads(base.parameters):  # measured beforehand: its matrices are large
        find_ceiling(find_device(), uses_bf16(spec), Home.from_environment().ceilings)
    with Allocations() as allocations:
        ref = finetune(store, splits, base, spec, no_tracker, "run")
    predicted = ref.artifact.summary["memory_planned"]
    assert 0.9 * allocations.peak < predicted < 1.25 * allocations.peak
