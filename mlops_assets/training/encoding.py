"""Conversations as token ids: what is trained on is exactly what generation renders.

Both are the tokenizer's chat template: the prompt with its generation prompt, then the
answer with its end of turn. Only the latter carries loss. Every method trains on these ids;
TRL's own rendering is not used.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlops_assets.artifacts import LineageError
from mlops_assets.refs import Message, Row
from mlops_assets.template_messages import template_messages
from mlops_assets.training.spec import FinetuneSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

IGNORED = -100  # the label of a token without loss, in transformers' and TRL's convention


@dataclass(frozen=True)
class Example:
    """A row's prompt and answer as token ids, and the worse answer where there is one."""

    row: str
    prompt: list[int]
    chosen: list[int]
    rejected: list[int] | None = None

    @property
    def input_ids(self) -> list[int]:
        """Prompt and answer."""
        return self.prompt + self.chosen

    @property
    def labels(self) -> list[int]:
        """What each of ``input_ids`` has to be predicted as; the prompt is not scored."""
        return [IGNORED] * len(self.prompt) + self.chosen

    @property
    def longest(self) -> int:
        """Tokens of the prompt with the longer answer."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected or ()))

    @property
    def tokens(self) -> int:
        """Tokens of the prompt with each answer."""
        answers = [self.chosen] if self.rejected is None else [self.chosen, self.rejected]
        return sum(len(self.prompt) + len(answer) for answer in answers)


@dataclass(frozen=True)
class Encoded:
    """The examples that fit, and how many rows were too long."""

    examples: list[Example]
    too_long: int

    @property
    def tokens(self) -> int:
        """Tokens in one epoch."""
        return sum(example.tokens for example in self.examples)


def encode(
    tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Row], spec: FinetuneSpec
) -> Encoded:
    """Encode ``rows`` for ``spec``'s method, leaving out those that are too long for it.

    Raises LineageError when none is left, when the method learns from rejected answers and
    there are none, or when the template renders a prompt otherwise once it is answered: then
    the model would be trained on what it never sees.
    """
    if spec.method != "sft":
        _require_rejected(rows, spec.method)
    found = _examples(tokenizer, rows, preferences=spec.method != "sft")
    examples = [example for example in found if example.longest <= spec.longest]
    setting = "pack_tokens" if spec.packed else "row_tokens"
    if not examples:
        raise LineageError(
            f"All {len(rows)} rows are longer than {spec.longest} tokens, or there are none.",
            f"Raise lora_adapter's {setting}.",
        )
    if too_long := len(found) - len(examples):
        logger.warning("%d rows are longer than %d tokens and are left out", too_long, spec.longest)
    return Encoded(examples, too_long)


def _require_rejected(rows: Sequence[Row], method: str) -> None:
    """DPO and ORPO compare two answers of every row; KTO needs some bad ones, from any rows."""
    without = sum(row.rejected is None for row in rows)
    if without == len(rows) or (without and method != "kto"):
        raise LineageError(
            f"{without} of {len(rows)} rows have no rejected answer, which method {method!r}"
            " learns from.",
            "Give the source rows with `prompt`, `chosen` and `rejected`, or set lora_adapter's"
            " method to sft.",
        )


def _examples(
    tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Row], *, preferences: bool
) -> list[Example]:
    prompts = render(tokenizer, rows, [row.prompt for row in rows], generation=True)
    chosen = _answers(tokenizer, rows, prompts, [row.messages[-1] for row in rows])
    if not preferences:
        return [
            Example(row.id, prompt, answer)
            for row, prompt, answer in zip(rows, prompts, chosen, strict=True)
        ]
    pairs = [(row, prompt) for row, prompt in zip(rows, prompts, strict=True) if row.rejected]
    worse = [row.rejected for row, _ in pairs if row.rejected]
    answers = _answers(tokenizer, [row for row, _ in pairs], [ids for _, ids in pairs], worse)
    rejected = iter(answers)
    return [
        Example(row.id, prompt, better, next(rejected) if row.rejected else None)
        for row, prompt, better in zip(rows, prompts, chosen, strict=True)
    ]


def _answers(
    tokenizer: "PreTrainedTokenizerBase",
    rows: Sequence[Row],
    prompts: Sequence[list[int]],
    answers: Sequence[Message],
) -> list[list[int]]:
    """The tokens that follow each prompt when it is answered."""
    chats = [(*row.prompt, answer) for row, answer in zip(rows, answers, strict=True)]
    rendered = render(tokenizer, rows, chats, generation=False)
    for prompt, chat in zip(prompts, rendered, strict=True):
        if chat[: len(prompt)] != prompt or len(chat) == len(prompt):
            raise LineageError(
                "The base model's chat template renders a prompt otherwise once it is answered.",
                "Use a chat template whose generation prompt is the beginning of the answer.",
            )
    return [chat[len(prompt) :] for prompt, chat in zip(prompts, rendered, strict=True)]


def render(
    tokenizer: "PreTrainedTokenizerBase",
    rows: Sequence[Row],
    chats: Sequence[Sequence[Message]],
    *,
    generation: bool,
) -> list[list[int]]:
    """Token ids of ``chats``, which are conversations of ``rows`` with the rows' functions."""
    texts = [
        tokenizer.apply_chat_template(
            template_messages(chat),
            tools=[dict(tool) for tool in row.tools] or None,
            add_generation_prompt=generation,
            tokenize=False,
        )
        for row, chat in zip(rows, chats, strict=True)
    ]
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    return ids
