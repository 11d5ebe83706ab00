"""How the base model is loaded and handed to the trainer of the chosen method."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_assets.artifacts import LineageError
from mlops_assets.training.adapters import adapter_config
from mlops_assets.training.arguments import uses_bf16, uses_flash_attention, uses_packed_attention
from mlops_assets.training.encoding import Encoded
from mlops_assets.training.packed_attention import register
from mlops_assets.training.preference import make_preference_trainer
from mlops_assets.training.sft import make_sft_trainer
from mlops_assets.training.spec import FinetuneSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer


def make_trainer(
    base: Path,
    tokenizer: "PreTrainedTokenizerBase",
    data: Mapping[str, Encoded],
    spec: FinetuneSpec,
    scratch: Path,
) -> "Trainer":
    """The trainer over ``data["train"]`` that validates on ``data["validation"]``.

    It writes nothing but to ``scratch``, and there only if the libraries insist. Raises
    LineageError when the base model cannot be trained as the spec asks.
    """
    model = load_base(base, spec)
    adapter = adapter_config(model, spec)
    if spec.method == "sft":
        trainer = make_sft_trainer(model, adapter, tokenizer, data, spec, scratch)
    else:
        compares = spec.adapter == "full" and spec.method != "orpo"
        reference = load_base(base, spec) if compares else None
        trainer = make_preference_trainer(model, adapter, reference, tokenizer, data, spec, scratch)
    if spec.quantization == "nf4" and not uses_bf16(spec):
        _train_in_fp32(trainer.model)
    return trainer


def _train_in_fp32(model: Any) -> None:
    """TRL holds what it trains over 4 bits in bf16; without bf16 arithmetic that cannot compute."""
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()


def load_base(base: Path, spec: FinetuneSpec) -> "PreTrainedModel":
    """The base model's weights, in 4 bits where the spec says so."""
    from transformers import AutoModelForCausalLM

    _require_kernels(spec)
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        base,
        dtype=_weights_type(spec),
        quantization_config=_quantization(spec),
        attn_implementation=_attention(base, spec),
        use_kernels=spec.hub_kernels,
        local_files_only=True,
        trust_remote_code=False,
    )
    return model


def _attention(base: Path, spec: FinetuneSpec) -> str:
    """The implementation of attention. All keep packed rows apart: the first two by their
    lengths, sdpa by a mask that transformers builds from the positions."""
    if uses_flash_attention(spec):
        return "flash_attention_2"
    return register() if uses_packed_attention(base, spec) else "sdpa"


def _require_kernels(spec: FinetuneSpec) -> None:
    import torch
    from transformers.utils import is_kernels_available

    if spec.hub_kernels and not (torch.cuda.is_available() and is_kernels_available()):
        raise LineageError(
            "lora_adapter's hub_kernels needs a GPU and the package kernels.",
            "Install kernels beside the GPU, or set hub_kernels to false.",
        )


def _weights_type(spec: FinetuneSpec) -> Any:
    """What the base's weights are held in: trained ones need fp32, a step is lost in bf16."""
    import torch

    bf16 = uses_bf16(spec) and spec.adapter != "full"
    return torch.bfloat16 if bf16 else torch.float32


def _quantization(spec: FinetuneSpec) -> Any:
    from transformers import BitsAndBytesConfig

    if spec.quantization == "none":
        return None
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=_weights_type(spec),
    )
