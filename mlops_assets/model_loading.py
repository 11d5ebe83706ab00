"""Loads a base model, with or without an adapter, from verified local directories.

Nothing here runs code that came with a model: weights are safetensors only, remote code is
never trusted, the hub is never asked, and what was tuned may be of three kinds and no other:
a LoRA (DoRA and rsLoRA too), a prefix, or all weights of the base's architecture.

Evaluation measures and serving serves what this makes of the two, so it stands beside the stages.
"""

import json
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_assets.artifacts import LineageError
from mlops_assets.pickle_files import may_be_pickle

ADAPTER_CONFIG, FULL_WEIGHTS = "adapter_config.json", "model.safetensors"
LOW_RANK, PREFIX = "LORA", "PREFIX_TUNING"
REMEDY = "Materialise the assets `base_model` and `lora_adapter` again."


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to answer, with the tokens that end an answer."""

    model: Any
    tokenizer: Any
    device: str
    end_tokens: tuple[int, ...]
    pad_token: int
    context: int | None
    """Longest prompt and answer together (tokens); None where the model names no limit."""

    @property
    def prefix_tokens(self) -> int:
        """Positions that a tuned prefix takes from the context."""
        return _prefix_tokens(self.model)

    @property
    def parameters(self) -> int:
        """All weights, those of an adapter that stays beside the base included."""
        return sum(weight.numel() for weight in self.model.parameters())


def is_prefix(adapter: Path | None) -> bool:
    """Whether the adapter is a prefix, which stays beside the weights."""
    config = adapter / ADAPTER_CONFIG if adapter else None
    if config is None or not config.is_file():
        return False
    return bool(json.loads(config.read_bytes()).get("peft_type") == PREFIX)


def load_model(
    base: Path, adapter: Path | None, device: str | None = None, dtype: str | None = None
) -> LoadedModel:
    """The base model as ``adapter`` tunes it, where there is one.

    Low-rank matrices are merged into the weights, so answering costs what the base costs; a
    prefix stays beside them. It is loaded to the best device there is, unless one is named.
    ``dtype`` is a name such as ``float32``, or ``auto`` for that of the files. Raises
    LineageError when a directory holds pickled weights, or cannot be loaded.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # one of its own for each model, on any stream
    for directory in filter(None, (base, adapter)):
        _refuse_pickles(directory)
    device = device or _best_device()
    # bf16 on CPU is emulated in part, and the answers would depend on the processor.
    dtype = dtype or ("float32" if device == "cpu" else "auto")
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            base, trust_remote_code=False, local_files_only=True, padding_side="left"
        )
        model = AutoModelForCausalLM.from_pretrained(
            base,
            trust_remote_code=False,
            local_files_only=True,
            use_safetensors=True,
            dtype=dtype,
        )
        if adapter is not None:
            model = _tuned(model, adapter)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise LineageError(f"The model in {base} cannot be loaded: {error}", REMEDY) from error
    return _ready(model.to(device).eval(), tokenizer, device)


def _ready(model: Any, tokenizer: Any, device: str) -> LoadedModel:
    if not tokenizer.chat_template:
        raise LineageError("The base model's tokenizer has no chat template.", REMEDY)
    configured = model.generation_config.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    ends = {token for token in (*listed, tokenizer.eos_token_id) if token is not None}
    if not ends:
        raise LineageError("The base model names no token that ends an answer.", REMEDY)
    pad = tokenizer.pad_token_id
    limit = getattr(model.config, "max_position_embeddings", None)
    return LoadedModel(
        model,
        tokenizer,
        device,
        tuple(sorted(ends)),
        min(ends) if pad is None else pad,
        limit and limit - _prefix_tokens(model),
    )


def _tuned(model: Any, adapter: Path) -> Any:
    if not (adapter / ADAPTER_CONFIG).is_file():
        return _with_weights(model, adapter / FULL_WEIGHTS)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # misses a kernel we do not use
    from peft import PeftModel

    config = json.loads((adapter / ADAPTER_CONFIG).read_bytes())
    # peft imports the modules that `megatron_core` and `auto_mapping` name.
    names_code = config.get("megatron_config") or config.get("auto_mapping")
    if config.get("peft_type") not in (LOW_RANK, PREFIX) or names_code:
        raise LineageError(
            f"The adapter in {adapter} is neither a plain LoRA nor a plain prefix.", REMEDY
        )
    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5.23 by a name that version 6 takes away: not our call.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        adapted: Any = PeftModel.from_pretrained(model, str(adapter), is_trainable=False)
        mergeable = config["peft_type"] == LOW_RANK
        return adapted.merge_and_unload(safe_merge=True) if mergeable else adapted


def _with_weights(model: Any, weights: Path) -> Any:
    """Every weight of the base's architecture, from one file; a missing or odd one is an error."""
    from safetensors.torch import load_model

    load_model(model, weights, strict=True)
    return model


def _prefix_tokens(model: Any) -> int:
    config = getattr(model, "active_peft_config", None)
    return config.num_virtual_tokens if config else 0


def _refuse_pickles(directory: Path) -> None:
    pickled = sorted(path.name for path in directory.rglob("*") if may_be_pickle(path))
    if pickled:
        raise LineageError(
            f"{directory} holds pickled weights ({', '.join(pickled)}), which could run code.",
            "Convert them to safetensors and materialise the asset that made them again.",
        )


def _best_device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
