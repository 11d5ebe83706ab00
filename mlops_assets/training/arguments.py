"""What every method hands to its trainer: the optimiser, the schedule, when to log and validate."""

import math
from pathlib import Path
from typing import Any

from mlops_assets.training.packed_attention import attends_by_row
from mlops_assets.training.spec import FinetuneSpec

LOG_POINTS = 100  # points of the loss curve
VALIDATIONS = 5  # times that the validation loss is measured


def training_arguments(
    spec: FinetuneSpec, passes: int, batch: int, scratch: Path
) -> dict[str, Any]:
    """Keywords for the method's config: ``passes`` of ``batch`` sequences make one epoch.

    ``gradient_checkpointing: auto`` must have been decided by the memory plan before.
    """
    import torch

    steps = spec.epochs * math.ceil(passes / spec.accumulation)
    return {
        "output_dir": str(scratch),
        "num_train_epochs": spec.epochs,
        "learning_rate": spec.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": math.ceil(steps * spec.warmup_share),
        "weight_decay": spec.weight_decay,
        "per_device_train_batch_size": batch,
        "per_device_eval_batch_size": batch,
        "gradient_accumulation_steps": spec.accumulation,
        "gradient_checkpointing": spec.gradient_checkpointing == "always",
        "use_cpu": not torch.cuda.is_available(),  # else bf16 is refused on CPUs
        "bf16": uses_bf16(spec),
        "seed": spec.seed,
        "logging_steps": max(1, steps // LOG_POINTS),
        "logging_nan_inf_filter": False,  # a loss that is not a number must be seen
        "include_num_input_tokens_seen": "all" if spec.packed else "non_padding",
        "eval_strategy": "no" if _spoilt_by_validation(spec) else "steps",
        "eval_steps": max(1, steps // VALIDATIONS),
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
    }


def on_one_gpu(config: Any) -> Any:
    """The config, kept to one of several GPUs: that is what is planned, and what the recipe says.

    transformers would spread each pass over all that it sees, and take as many rows at once.
    """
    config._n_gpu = min(config.n_gpu, 1)
    return config


def uses_bf16(spec: FinetuneSpec) -> bool:
    """Whether to compute in bf16: when asked to, or where a GPU has it."""
    import torch

    if spec.precision == "auto":  # older GPUs emulate it, slower than they compute in fp32
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return spec.precision == "bf16"


def uses_flash_attention(spec: FinetuneSpec) -> bool:
    """Whether attention goes row by row without a mask: in bf16, where the kernels are there.

    They are the package `flash_attn`, or come from the hub if the spec allows that.
    """
    import torch
    from transformers.utils import is_flash_attn_2_available

    if not torch.cuda.is_available() or not uses_bf16(spec):
        return False
    return bool(is_flash_attn_2_available(kernels_fallback_ok=spec.hub_kernels))


def uses_packed_attention(base: Path, spec: FinetuneSpec) -> bool:
    """Whether the packed rows of this model attend each for itself, on a CPU."""
    import torch
    from transformers import AutoConfig

    if not spec.packed or torch.cuda.is_available():
        return False
    config = AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    return attends_by_row(config)


def _spoilt_by_validation(spec: FinetuneSpec) -> bool:
    """Whether validating ends training: bitsandbytes on a CPU packs weights for inference.

    Packed weights pass no gradient on, silently, and stay packed; so validate at the end only.
    """
    import torch

    return spec.quantization == "nf4" and not torch.cuda.is_available()
