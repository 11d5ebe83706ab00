"""Greedy decoding of many prompts: what a server answers, whatever they are batched with.

Prompts are sorted by length and padded on the left. What they all begin with (a system prompt,
the template's head) is computed once, and a row that ended leaves its batch.

Batching moves logits by some 1e-6 in fp32: sums are taken in another order, so where two tokens
are that close, a batch would decide by its size. A row whose two likeliest tokens are ever nearer
than ``TIE`` is therefore answered again alone, without padding or anything shared. So every
answer is that of the row alone as long as batching moves no logit by half of ``TIE``, and the
batch size changes time and memory, never an answer. That holds for fp32; in bf16 logits move by
more, and nothing is promised.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlops_assets.artifacts import LineageError
from mlops_assets.model_loading import LoadedModel
from mlops_assets.progress import Advance
from mlops_assets.threads import side_by_side

TIE = 1e-3
"""Difference of two logits under which a batch decides nothing; a thousand times what batching
moves them by."""
SHARED_FROM = 8
"""Tokens; computing fewer once costs more than it saves."""


@dataclass(frozen=True)
class Decoded:
    """The tokens generated after each prompt, up to and with the first end token."""

    tokens: list[list[int]]
    shared: int
    """Tokens that all prompts begin with and that were computed once."""
    alone: int
    """Rows that were answered again alone, because two tokens were nearly as likely."""


@dataclass(frozen=True)
class _Network:
    """A model with the keys and values that every conversation of a call begins with."""

    model: Any
    start: Any
    ends: frozenset[int]
    device: str

    def cache(self, rows: int) -> Any:
        """A cache of its own for a batch of so many rows."""
        cache = copy.deepcopy(self.start)
        if rows > 1:
            cache.batch_repeat_interleave(rows)
        return cache


def decode(
    loaded: LoadedModel,
    prompts: Sequence[list[int]],
    budget: int,
    batch_size: int,
    advance: Advance,
    workers: int = 1,
) -> Decoded:
    """Answer each of ``prompts`` (token ids) with at most ``budget`` tokens.

    The longest go first: what does not fit in memory fails early. On a CPU so many batches are
    answered side by side as there are ``workers``. Raises LineageError when the model computes a
    logit that is not finite.
    """
    import torch

    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
    found: list[list[int]] = [[] for _ in prompts]
    again = 0
    with torch.inference_mode():
        plain = _network(loaded)
        shared = _shared(prompts) if _shares(plain.start) else 0
        network = _begun(plain, prompts[0][:shared]) if shared else plain
    if not _batches(plain.start):
        batch_size = 1
    batches = [order[first : first + batch_size] for first in range(0, len(order), batch_size)]

    def answer(batch: list[int]) -> list[tuple[list[int], bool]]:
        with torch.inference_mode():
            tried = _decode_batch(network, [prompts[i][shared:] for i in batch], budget, TIE)
            return [
                (_alone(plain, prompts[i], budget), True) if tokens is None else (tokens, False)
                for i, tokens in zip(batch, tried, strict=True)
            ]

    workers = min(workers, len(batches)) if loaded.device == "cpu" else 1
    with side_by_side(max(workers, 1)) as mapped:
        for batch, answers in zip(batches, mapped(answer, batches), strict=True):
            for i, (tokens, alone) in zip(batch, answers, strict=True):
                found[i] = tokens
                again += alone
            advance(len(batch), "")
    return Decoded(found, shared, again)


def _alone(network: _Network, prompt: list[int], budget: int) -> list[int]:
    """The answer by definition; of equally likely tokens that with the lower number is taken."""
    [answer] = _decode_batch(network, [prompt], budget, 0.0)
    if answer is None:
        raise LineageError(
            "The model computes logits that are not finite.",
            "Look at its loss curve, and materialise `lora_adapter` with a lower learning rate.",
        )
    return answer


def _decode_batch(
    network: _Network, prompts: Sequence[list[int]], budget: int, tie: float
) -> list[list[int] | None]:
    """Each prompt's answer; None where two tokens were nearer than ``tie``, or not finite."""
    import torch

    seen, width = network.start.get_seq_length(), max(map(len, prompts))
    padding = [width - len(ids) for ids in prompts]
    ids = torch.tensor([[0] * pad + row for pad, row in zip(padding, prompts, strict=True)])
    mask = torch.tensor([[1] * seen + [0] * pad + [1] * (width - pad) for pad in padding])
    ids, mask = ids.to(network.device), mask.to(network.device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, seen:]
    cache = network.cache(len(prompts))
    answers: list[list[int] | None] = [[] for _ in prompts]
    going = list(range(len(prompts)))
    for _ in range(budget):
        output = network.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        chosen, sure = _choose(output.logits[:, -1], tie)
        kept = _extend(answers, going, chosen.tolist(), sure.tolist(), network.ends)
        if not kept:
            break
        if len(kept) < len(going):
            places = torch.tensor(kept, device=network.device)
            going = [going[place] for place in kept]
            chosen, mask, positions = chosen[places], mask[places], positions[places]
            cache.batch_select_indices(places)
        ids = chosen[:, None]
        mask = torch.cat([mask, mask.new_ones(len(going), 1)], dim=1)
        positions = positions[:, -1:] + 1
    return answers


def _choose(logits: Any, tie: float) -> tuple[Any, Any]:
    """The likeliest token of each row, and whether it is so by ``tie`` and finite."""
    logits = logits.float()
    best, second = logits.topk(2).values.unbind(1)
    return logits.argmax(1), (best - second >= tie) & best.isfinite()


def _extend(
    answers: list[list[int] | None],
    going: Sequence[int],
    chosen: Sequence[int],
    sure: Sequence[bool],
    ends: frozenset[int],
) -> list[int]:
    """Add each token to its row's answer; returns the places of the rows that go on."""
    kept = []
    for place, (row, token, certain) in enumerate(zip(going, chosen, sure, strict=True)):
        answer = answers[row]
        if answer is None or not certain:
            answers[row] = None
            continue
        answer.append(token)
        if token not in ends:
            kept.append(place)
    return kept


def _network(loaded: LoadedModel) -> _Network:
    """The model as it starts: with an empty cache, or with the keys and values of a prefix."""
    from transformers import DynamicCache

    ends = frozenset(loaded.end_tokens)
    if loaded.prefix_tokens:
        start = loaded.model.get_prompt(batch_size=1)
        return _Network(loaded.model.get_base_model(), start, ends, loaded.device)
    return _Network(loaded.model, DynamicCache(config=loaded.model.config), ends, loaded.device)


def _begun(network: _Network, tokens: list[int]) -> _Network:
    """The network after it has read ``tokens``."""
    import torch

    cache = network.cache(1)
    ids = torch.tensor([tokens], device=network.device)
    network.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return _Network(network.model, cache, network.ends, network.device)


def _shared(prompts: Sequence[list[int]]) -> int:
    """Tokens that all prompts begin with; each keeps one of its own. 0 where it is not worth it."""
    if len(prompts) < 2:
        return 0
    first, last = min(prompts), max(prompts)
    most = min(map(len, prompts)) - 1
    differ = (i for i, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1])
    length = min(next(differ, most), most)
    return length if length >= SHARED_FROM else 0


def _batches(cache: Any) -> bool:
    """Whether rows can be dropped from it: state-space layers keep more than keys and values."""
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers)


def _shares(cache: Any) -> bool:
    """Whether padding may stand behind a shared beginning: not in a sliding window."""
    from transformers.cache_utils import DynamicLayer

    return all(type(layer) is DynamicLayer for layer in cache.layers)
