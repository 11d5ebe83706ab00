"""Rows of a pack attend each for itself: the same as alone, and as under transformers' mask."""

from pathlib import Path

import pytest

from mlops_assets.training.arguments import uses_packed_attention
from mlops_assets.training.packed_attention import NAME, attend_by_row, attends_by_row, register
from mlops_assets.training.spec import FinetuneSpec
from mlops_assets.training.trainer import load_base

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SMALL |= {"intermediate_size": 64, "vocab_size": 96, "max_position_embeddings": 512}
SMALL |= dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0)
ALIKE, UNEQUAL = (7, 9, 8, 9, 5), (3, 90, 2, 1)
"""Lengths of rows: side by side with little padding, and where padding would be most of it."""


def _save(folder: Path, kind: str, **settings: object) -> Path:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SMALL | settings))
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("lengths", [ALIKE, UNEQUAL], ids=["alike", "unequal"])
@pytest.mark.parametrize("attention", [NAME, "sdpa"])
@pytest.mark.parametrize("heads", [4, 2], ids=["all heads", "grouped heads"])
def test_packed_rows_do_not_see_each_other(
    tmp_path: Path, lengths: tuple[int, ...], attention: str, heads: int
) -> None:
    """Logits and gradients of packed rows equal those of each row alone."""
    import torch
    from transformers import AutoModelForCausalLM

    register()
    base = _save(tmp_path / "base", "llama", num_key_value_heads=heads)
    model = AutoModelForCausalLM.from_pretrained(base, attn_implementation=attention)
    rows = [torch.randint(1, 96, (length,)) for length in lengths]
    ends = torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32)
    packed = model(
        input_ids=torch.cat(rows)[None],
        position_ids=torch.cat([torch.arange(length) for length in lengths])[None],
        cu_seq_lens_q=ends,
        cu_seq_lens_k=ends,
        use_cache=False,  # as in training; a cache would hide the positions that start anew
    ).logits[0]
    packed.square().mean().backward()
    gradient = model.model.embed_tokens.weight.grad.clone()
    model.zero_grad()
    model.set_attn_implementation("sdpa")
    alone = torch.cat([model(input_ids=row[None], use_cache=False).logits[0] for row in rows])
    alone.square().mean().backward()
    assert torch.allclose(packed, alone, atol=1e-5, rtol=0)
    assert torch.allclose(gradient, model.model.embed_tokens.weight.grad, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("kind", "settings", "by_row"),
    [
        ("llama", {}, True),
        ("qwen2", {}, True),
        ("qwen2", {"use_sliding_window": True, "max_window_layers": 0}, False),
        ("gemma2", {}, False),
        ("gpt2", {}, False),
    ],
)
def test_only_models_that_see_the_whole_row_attend_so(
    tmp_path: Path, kind: str, settings: dict[str, object], by_row: bool
) -> None:
    from transformers import AutoConfig

    config = AutoConfig.for_model(kind, **SMALL | settings)
    assert attends_by_row(config) is by_row
    config.save_pretrained(tmp_path)
    assert uses_packed_attention(tmp_path, FinetuneSpec()) is by_row
    assert not uses_packed_attention(tmp_path, FinetuneSpec(method="dpo"))


@pytest.mark.parametrize(("method", "attention"), [("sft", NAME), ("dpo", "sdpa")])
def test_a_training_takes_it_where_rows_are_packed(
    tmp_path: Path, method: str, attention: str
) -> None:
    base = _save(tmp_path, "llama")
    model = load_base(base, FinetuneSpec(method=method))
    assert model.config._attn_implementation == attention


def test_what_is_not_packed_is_refused() -> None:
    import torch

    states = torch.zeros(1, 4, 5, 8)
    with pytest.raises(TypeError, match="cu_seq_lens_q"):
        attend_by_row(None, states, states, states, None)
