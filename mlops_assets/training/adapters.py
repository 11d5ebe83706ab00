"""Which weights are trained, and how they are written: a PEFT adapter, or the whole model."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_assets.artifacts import LineageError
from mlops_assets.training.model_shape import linear_layers
from mlops_assets.training.spec import FinetuneSpec

if TYPE_CHECKING:
    from peft import LoraConfig, PeftConfig
    from transformers import PreTrainedModel

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
FULL_WEIGHTS = "model.safetensors"


def adapter_config(model: "PreTrainedModel", spec: FinetuneSpec) -> "PeftConfig | None":
    """PEFT's configuration of the adapter; None where every weight is trained.

    Raises LineageError for a model that cannot be adapted as the spec asks.
    """
    from peft import PrefixTuningConfig

    if spec.adapter == "full":
        return None
    if spec.adapter == "prefix":
        return PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=spec.prefix_tokens)
    return _lora(model, spec)


def _lora(model: "PreTrainedModel", spec: FinetuneSpec) -> "LoraConfig":
    """LoRA on every linear layer, and on or in full what the spec adds.

    Raises LineageError for a model whose input and output embeddings are one matrix.
    """
    from peft import LoraConfig

    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if (spec.adapt_embeddings or spec.train_head) and head.weight is embeddings.weight:
        raise LineageError(
            "The base model's input and output embeddings are one matrix, which cannot be adapted"
            " on one side only.",
            "Set lora_adapter's adapt_embeddings and train_head to false.",
        )
    names = {module: name.rpartition(".")[2] for name, module in model.named_modules()}
    adapted = {name.rpartition(".")[2] for name in linear_layers(model)}
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        use_rslora=spec.adapter == "rslora",
        use_dora=spec.adapter == "dora",
        target_modules=sorted(adapted | ({names[embeddings]} if spec.adapt_embeddings else set())),
        modules_to_save=[names[head]] if spec.train_head else None,
    )


def save_weights(model: Any, spec: FinetuneSpec, base: str, directory: Path) -> None:
    """Weights and configuration only, the same bytes for the same training.

    A fully tuned model is one file of all its weights: configuration and tokenizer stay those
    of ``base``, which the adapter's configuration names.
    """
    with tempfile.TemporaryDirectory() as scratch:
        if spec.adapter == "full":
            model.save_pretrained(scratch, safe_serialization=True, max_shard_size="1TB")
            shutil.copyfile(Path(scratch, FULL_WEIGHTS), directory / FULL_WEIGHTS)
            return
        # False: only the adapter, and no look at the hub for the base's vocabulary.
        model.save_pretrained(scratch, safe_serialization=True, save_embedding_layers=False)
        shutil.copyfile(Path(scratch, WEIGHTS), directory / WEIGHTS)
        config = json.loads(Path(scratch, CONFIG).read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base  # not where it lay on this machine
    for name in {"target_modules", "modules_to_save"} & config.keys():  # PEFT writes sets anyhow
        config[name] = config[name] and sorted(config[name])
    (directory / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def trainable_parameters(model: Any) -> tuple[int, int]:
    """How many weights are trained, and how many there are, those of the adapter included."""
    if hasattr(model, "get_nb_trainable_parameters"):  # knows what 4 bits hide
        trainable, total = model.get_nb_trainable_parameters()
        return trainable, total
    return model.num_parameters(only_trainable=True), model.num_parameters()
