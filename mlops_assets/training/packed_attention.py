"""Attention over packed rows, each for itself: what flash attention does, where there is none.

torch's own kernel computes the square of the whole pack under a mask and throws most of it away.
Here the rows of a pack are laid side by side, padded to the longest, and attend causally: for
rows of 34 tokens in packs of 512 a step takes a sixth less time, and no mask is kept for the
backward pass. The sums are the same but for rounding.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig

NAME = "packed_sdpa"
CAUSAL = ("llama", "qwen2", "qwen3")
"""Architectures whose layers attend causally and hand the rows' lengths down to here."""
MOST_PADDING = 2
"""Places for each token; beyond it the rows attend one after the other."""


def attends_by_row(config: "PretrainedConfig") -> bool:
    """Whether every layer of the model sees all that stands before it in a row, and no less."""
    layers = getattr(config, "layer_types", None) or ["full_attention"]
    return config.model_type in CAUSAL and set(layers) == {"full_attention"}


def register() -> str:
    """Make the attention known to transformers; returns the name to load a model with.

    transformers builds no mask for an attention that it has no mask function for.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend_by_row)
    return NAME


def attend_by_row(
    module: Any,  # noqa: ARG001 # of the interface
    query: "Tensor",
    key: "Tensor",
    value: "Tensor",
    attention_mask: "Tensor | None",  # noqa: ARG001 # of the interface
    *,
    cu_seq_lens_q: "Tensor",
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> tuple["Tensor", None]:
    """The attention of a pack, (1, tokens, heads, width), from (1, heads, tokens, width) each.

    ``cu_seq_lens_q`` holds where each row begins, and the end of the last one. Raises TypeError
    without it: what is not packed does not belong here.
    """
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    lengths = cu_seq_lens_q.diff()
    attend = partial(
        scaled_dot_product_attention,
        is_causal=True,
        dropout_p=dropout,
        scale=scaling,
        enable_gqa=key.shape[1] != query.shape[1],
    )
    if lengths.numel() * int(lengths.max()) > MOST_PADDING * query.shape[2]:
        split = (torch.split(each, lengths.tolist(), dim=2) for each in (query, key, value))
        rows = [attend(*row) for row in zip(*split, strict=True)]
        return torch.cat(rows, dim=2).transpose(1, 2), None
    places, real = _side_by_side(cu_seq_lens_q, lengths)
    padded = [each[0][:, places].transpose(0, 1) for each in (query, key, value)]
    # Padding stands behind its row, where causal attention does not look.
    output = attend(*padded)
    return output.transpose(1, 2)[real][None], None


def _side_by_side(starts: "Tensor", lengths: "Tensor") -> tuple["Tensor", "Tensor"]:
    """Place in the pack of each row's tokens, (rows, longest), and which of them are real."""
    import torch

    steps = torch.arange(int(lengths.max()), device=starts.device)
    places = (starts[:-1, None] + steps).clamp(max=int(starts[-1]) - 1)
    return places, steps < lengths[:, None]
