"""A model's sizes, read from its ``config.json`` alone: no weight is loaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_assets.artifacts import LineageError


@dataclass(frozen=True)
class ModelShape:
    """Numbers of weights by role, and the widths that decide what training keeps in memory."""

    linear: int
    """Weights of the layers' linear maps: what LoRA adapts and NF4 quantises."""
    linear_ends: int
    """Inputs and outputs of these maps, summed: a LoRA has rank times as many weights."""
    linear_inputs: int
    """Their inputs alone, summed."""
    linear_maps: int
    """How many there are."""
    largest_linear: int
    embeddings: int
    head: int
    """Weights of the output layer; 0 where it is the input embeddings' own matrix."""
    other: int
    """Norms and biases."""
    vocabulary: int
    hidden: int
    query: int
    """Width of all heads' queries together."""
    key_value: int
    """Width of all heads' keys together."""
    mlp: int
    layers: int

    @property
    def parameters(self) -> int:
        """All weights."""
        return self.linear + self.embeddings + self.head + self.other

    def lora(self, rank: int, *, embeddings: bool) -> int:
        """Weights of a LoRA of this rank on every linear map, and on the input embeddings."""
        ends = self.linear_ends + (self.vocabulary + self.hidden if embeddings else 0)
        return rank * ends


def read_shape(base: Path) -> ModelShape:
    """The shape of the model in a local directory.

    Raises LineageError for what is no transformer with a head for text, such as a Mamba.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
        return shape_of(config)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise LineageError(
            f"The base model's config.json does not describe a causal language model ({error}).",
            "Use a decoder-only transformer whose architecture is part of transformers.",
        ) from error


def linear_layers(model: Any) -> dict[str, Any]:
    """The linear maps inside the model's layers by name, those of GPT-2's own kind included."""
    import torch
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
    }


def shape_of(config: Any) -> ModelShape:
    """The shape that a transformers configuration describes, built on the meta device."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    linear = [_ends(module) for module in linear_layers(model).values()]
    weights = sum(inputs * outputs for inputs, outputs in linear)
    tied = head.weight is embeddings.weight
    ends = 0 if tied else head.weight.numel()
    text = config.get_text_config()
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    groups = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    return ModelShape(
        linear=weights,
        linear_ends=sum(inputs + outputs for inputs, outputs in linear),
        linear_inputs=sum(inputs for inputs, _ in linear),
        linear_maps=len(linear),
        largest_linear=max(inputs * outputs for inputs, outputs in linear),
        embeddings=embeddings.weight.numel(),
        head=ends,
        other=model.num_parameters() - weights - embeddings.weight.numel() - ends,
        vocabulary=head.weight.shape[0],
        hidden=text.hidden_size,
        query=width * text.num_attention_heads,
        key_value=width * groups,
        mlp=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        layers=text.num_hidden_layers,
    )


def _ends(layer: Any) -> tuple[int, int]:
    """Inputs and outputs; a Conv1D has them the other way round than a linear layer."""
    first, second = layer.weight.shape
    return (second, first) if hasattr(layer, "in_features") else (first, second)
