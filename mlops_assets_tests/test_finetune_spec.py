"""The settings of a fine-tuning: each is read by the chosen method and adapter, or refused."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from mlops_assets.artifacts import Artifact
from mlops_assets.refs import BaseModelRef, SplitsRef
from mlops_assets.training.finetune import adapter_recipe
from mlops_assets.training.spec import WITHOUT_EFFECT, FinetuneSpec
from mlops_assets_tests.conftest import VERSIONS

LOW_RANK = {"rank", "alpha", "dropout", "adapt_embeddings", "train_head"}
OTHER = {  # a value other than the default for every setting but method and adapter
    "rank": 8,
    "alpha": 8.0,
    "dropout": 0.1,
    "adapt_embeddings": False,
    "train_head": False,
    "prefix_tokens": 8,
    "quantization": "nf4",
    "precision": "fp32",
    "prompt": "label-list",
    "epochs": 3,
    "learning_rate": 1e-4,
    "warmup_share": 0.1,
    "weight_decay": 0.1,
    "word_dropout": 0.1,
    "label_smoothing": 0.1,
    "beta": 0.5,
    "likelihood_weight": 0.5,
    "pack_tokens": 64,
    "packs_per_step": 2,
    "row_tokens": 64,
    "rows_per_step": 4,
    "accumulation": 2,
    "gradient_checkpointing": "always",
    "hub_kernels": True,
    "seed": 1,
}
PACKED, PADDED = {"pack_tokens", "packs_per_step"}, {"row_tokens", "rows_per_step"}
UNREAD = {
    ("sft", "lora"): PADDED | {"beta", "likelihood_weight", "prefix_tokens"},
    ("sft", "prefix"): PACKED | LOW_RANK | {"beta", "likelihood_weight", "gradient_checkpointing"},
    ("dpo", "lora"): PACKED | {"word_dropout", "label_smoothing", "prefix_tokens"},
    ("orpo", "dora"): PACKED
    | {"word_dropout", "label_smoothing", "prefix_tokens", "likelihood_weight"},
    ("kto", "full"): PACKED
    | LOW_RANK
    | {"word_dropout", "label_smoothing", "prefix_tokens", "quantization", "likelihood_weight"},
    ("sft", "full"): PADDED
    | LOW_RANK
    | {"beta", "likelihood_weight", "prefix_tokens", "quantization"},
}


@pytest.mark.parametrize(("method", "adapter"), UNREAD)
@pytest.mark.parametrize("name", OTHER)
def test_a_setting_is_read_or_refused(method: str, adapter: str, name: str) -> None:
    settings = {"method": method, "adapter": adapter, name: OTHER[name]}
    if name in UNREAD[method, adapter]:
        with pytest.raises(ValidationError, match=f"does not read {name}"):
            FinetuneSpec(**settings)
    else:
        assert FinetuneSpec(**settings).read()[name] == OTHER[name]


def test_every_setting_is_known_to_the_table() -> None:
    assert {"method", "adapter", *OTHER, *WITHOUT_EFFECT} == set(FinetuneSpec.model_fields)


@pytest.mark.parametrize("name", FinetuneSpec.model_fields)
def test_every_setting_is_documented(name: str) -> None:
    page = Path(__file__).parents[1] / "docs" / "training.md"
    assert f"`{name}" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(("method", "adapter"), UNREAD)
def test_what_is_not_read_is_not_part_of_the_recipe(method: str, adapter: str) -> None:
    read = FinetuneSpec(method=method, adapter=adapter).read()
    assert set(FinetuneSpec.model_fields) - set(read) == UNREAD[method, adapter] | WITHOUT_EFFECT


def test_kto_needs_rows_to_compare() -> None:
    with pytest.raises(ValidationError, match="rows_per_step must be 2 or more"):
        FinetuneSpec(method="kto", rows_per_step=1)


def test_how_often_it_is_saved_is_a_setting_of_every_training_and_of_no_recipe() -> None:
    spec = FinetuneSpec(method="dpo", adapter="full", checkpoint_seconds=60)
    assert "checkpoint_seconds" not in spec.read()


@pytest.mark.parametrize(
    ("gpu", "emulated", "same_as"),
    [(False, True, "fp32"), (True, True, "fp32"), (True, False, "bf16")],
)
def test_the_recipe_says_what_the_precision_comes_to(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, emulated: bool, same_as: str
) -> None:
    """Another machine would not find an adapter, or go on from a checkpoint, of the other type."""

    def supported(*, including_emulation: bool = True) -> bool:
        return including_emulation or not emulated

    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", supported)
    made = Artifact("any", "key", "digest")
    splits, base = SplitsRef(made, VERSIONS, {}, {}), BaseModelRef(made, "base", 1)
    keys = {
        precision: adapter_recipe(splits, base, FinetuneSpec(precision=precision)).key
        for precision in ("auto", "fp32", "bf16")
    }
    assert [name for name in keys if keys[name] == keys["auto"]] == ["auto", same_as]
