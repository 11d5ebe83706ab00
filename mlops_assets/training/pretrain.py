"""The tiny base model: a Llama of a million parameters, built and pretrained here.

It learns two things from the texts of the train split: what customers' language looks like
(next-token prediction over the prompt), and how an answer looks. For the latter a label
drawn at random is written somewhere into the text, and the answer has to name it. So the base
knows the chat format, the JSON frame and the label words, and has never seen which text has
which label: it is honestly poor at the task until it is fine-tuned. Where answers are free text,
each prompt is followed by the answer of a row drawn at random: how answers sound, not which.
"""

import logging
import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_assets.artifacts import LineageError
from mlops_assets.progress import progress
from mlops_assets.refs import Row
from mlops_assets.threads import fitting_threads
from mlops_assets.training.spec import BaseModelSpec
from mlops_assets.training.tokenizer import answer_frame, label_literals, train_tokenizer

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

logger = logging.getLogger(__name__)

POSITIONS = 4096  # longest conversation in tokens; rotary embeddings cost no parameters
WARMUP_STEPS = 50
Documents = list[list[int]]


def build_tiny(
    directory: Path, rows: Sequence[Row], labels: Mapping[str, Sequence[str]], spec: BaseModelSpec
) -> dict[str, Any]:
    """Train tokenizer and model on ``rows``, save both; returns loss, tokens/s and seconds.

    Raises LineageError without rows, or when the loss is not finite.
    """
    import torch

    from mlops_assets.training.quiet import quiet_libraries

    if not rows:
        raise LineageError(
            "The train split has no rows.",
            "Give the dataset more rows, or change the shares of the splits.",
        )
    started = time.monotonic()
    with quiet_libraries():
        torch.manual_seed(spec.seed)
        tokenizer = train_tokenizer(rows, labels, spec.vocabulary)
        model = _new_model(tokenizer, spec)
        corpus = _Corpus(tokenizer, rows, labels, spec.seed)
        with fitting_threads(model.num_parameters()):
            summary = _pretrain(model, corpus, spec)
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
    return summary | {"seconds": round(time.monotonic() - started, 1)}


class _Corpus:
    """The pretraining documents; every epoch has other labels in other places."""

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerFast",
        rows: Sequence[Row],
        labels: Mapping[str, Sequence[str]],
        seed: int,
    ) -> None:
        self._random = random.Random(seed)
        prompts = [[dict(message) for message in row.prompt] for row in rows]
        chats = tokenizer.apply_chat_template(prompts, add_generation_prompt=True)
        self._prompts: Documents = chats["input_ids"]
        frame = answer_frame(rows[0], labels) if labels else []
        self._frame = [tokenizer.encode(part, add_special_tokens=False) for part in frame]
        texts = [] if labels else [row.answer for row in rows]
        self._answers = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
        self._labels = [
            tokenizer.convert_tokens_to_ids(label_literals({name: values}))
            for name, values in labels.items()
        ]
        self._end = tokenizer.eos_token_id

    def epoch(self, batch_tokens: int) -> list[Documents]:
        """All documents in a new order, packed: each batch has at most ``batch_tokens``."""
        documents = [self._document(prompt)[:batch_tokens] for prompt in self._prompts]
        self._random.shuffle(documents)
        batches: list[Documents] = [[]]
        size = 0
        for document in documents:
            if size + len(document) > batch_tokens:
                batches.append([])
                size = 0
            batches[-1].append(document)
            size += len(document)
        return batches

    def _document(self, prompt: list[int]) -> list[int]:
        if self._answers:
            return [*prompt, *self._random.choice(self._answers), self._end]
        chosen = [self._random.choice(values) for values in self._labels]
        asked = prompt[:]
        for label in chosen:
            asked.insert(self._random.randint(1, len(asked) - 2), label)
        answer = self._frame[0][:]
        for label, part in zip(chosen, self._frame[1:], strict=True):
            answer += [label, *part]
        return [*asked, *answer, self._end]


def _new_model(tokenizer: "PreTrainedTokenizerFast", spec: BaseModelSpec) -> "LlamaForCausalLM":
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=spec.hidden_size,
        intermediate_size=spec.mlp_size,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.heads,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def _pretrain(model: "LlamaForCausalLM", corpus: _Corpus, spec: BaseModelSpec) -> dict[str, Any]:
    import torch

    batches = [corpus.epoch(spec.pretrain_batch_tokens) for _ in range(spec.pretrain_epochs)]
    steps = sum(len(epoch) for epoch in batches)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=spec.pretrain_learning_rate, betas=(0.9, 0.99), fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _cosine(step, steps))
    model.train()
    tokens, losses, started = 0, [], time.monotonic()
    with progress(logger, "pretraining the tiny base model", steps) as advance:
        for batch in _flatten(batches):
            loss = _loss(model, batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            tokens += sum(len(document) for document in batch)
            losses.append(loss.item())
            advance(1, f"loss {losses[-1]:.2f}")
    return _pretraining_summary(losses[-len(batches[-1]) :], tokens, time.monotonic() - started)


def _flatten(batches: list[list[Documents]]) -> Iterator[Documents]:
    for epoch in batches:
        yield from epoch


def _loss(model: "LlamaForCausalLM", batch: Documents) -> Any:
    """Next-token loss of documents packed into one row; none attends to or predicts another."""
    import torch

    ids = torch.tensor([[token for document in batch for token in document]])
    places = torch.tensor([[place for document in batch for place in range(len(document))]])
    targets = ids[0, 1:].masked_fill(places[0, 1:] == 0, -100)
    logits = model(input_ids=ids, position_ids=places, use_cache=False).logits[0, :-1]
    return torch.nn.functional.cross_entropy(logits, targets)


def _cosine(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    return warm * (0.5 + 0.5 * math.cos(math.pi * step / max(steps, 1)))


def _pretraining_summary(losses: list[float], tokens: int, seconds: float) -> dict[str, Any]:
    loss = sum(losses) / len(losses)
    if not math.isfinite(loss):
        raise LineageError(
            "Pretraining of the tiny base model diverged (its loss is not finite).",
            "Lower base_model's pretrain_learning_rate.",
        )
    return {
        "pretraining_loss": round(loss, 4),
        "pretraining_tokens": tokens,
        "tokens_per_second": round(tokens / max(seconds, 1e-9)),
    }
