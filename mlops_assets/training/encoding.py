"""Conversations as token ids: what is trained on is exactly what generation renders.

Both are the tokenizer's chat template: the prompt with its generation prompt, then the
answer with its end of turn. Only the latter carries loss.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlops_assets.artifacts import LineageError
from mlops_assets.refs import Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

IGNORED = -100  # the label of a token without loss, in transformers' and TRL's convention


@dataclass(frozen=True)
class Encoded:
    """Rows as equally long lists of token ids and labels, and how many rows were too long."""

    input_ids: list[list[int]]
    labels: list[list[int]]
    too_long: int

    @property
    def tokens(self) -> int:
        """Tokens in one epoch."""
        return sum(len(ids) for ids in self.input_ids)


def encode(tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Row], longest: int) -> Encoded:
    """Encode ``rows``, leaving out those of more than ``longest`` tokens.

    Raises LineageError when none is left, or when the template renders a prompt otherwise
    once it is answered: then the model would be trained on what it never sees.
    """
    prompts = _render(tokenizer, [row.prompt for row in rows], generation=True)
    chats = _render(tokenizer, [row.messages for row in rows], generation=False)
    input_ids, labels = [], []
    for prompt, chat in zip(prompts, chats, strict=True):
        if chat[: len(prompt)] != prompt or len(chat) == len(prompt):
            raise LineageError(
                "The base model's chat template renders a prompt otherwise once it is answered.",
                "Use a chat template whose generation prompt is the beginning of the answer.",
            )
        if len(chat) <= longest:
            input_ids.append(chat)
            labels.append([IGNORED] * len(prompt) + chat[len(prompt) :])
    too_long = len(chats) - len(input_ids)
    if not input_ids:
        raise LineageError(
            f"All {len(rows)} rows are longer than {longest} tokens, or there are none.",
            "Raise lora_adapter's pack_tokens.",
        )
    if too_long:
        logger.warning("%d rows are longer than %d tokens and are left out", too_long, longest)
    return Encoded(input_ids, labels, too_long)


def _render(
    tokenizer: "PreTrainedTokenizerBase", chats: Sequence[Sequence[object]], *, generation: bool
) -> list[list[int]]:
    # `return_dict` because the bare list is ragged; nothing is padded here.
    conversations = [[dict(message) for message in chat] for chat in chats]  # type: ignore[call-overload]
    rendered = tokenizer.apply_chat_template(
        conversations, add_generation_prompt=generation, return_dict=True
    )
    ids: list[list[int]] = rendered["input_ids"]
    return ids
