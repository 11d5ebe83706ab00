"""Supervised fine-tuning with TRL's ``SFTTrainer``: loss on the answers' tokens only.

Rows are packed end to end with positions that start anew, which is exact and wastes nothing;
for prefix tuning, whose keys must precede every row, they are padded instead.
"""

import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_assets.artifacts import LineageError
from mlops_assets.training.arguments import on_one_gpu, training_arguments
from mlops_assets.training.encoding import IGNORED, Encoded
from mlops_assets.training.spec import FinetuneSpec

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import SFTConfig, SFTTrainer


def make_sft_trainer(
    model: "PreTrainedModel",
    adapter: "PeftConfig | None",
    tokenizer: "PreTrainedTokenizerBase",
    data: Mapping[str, Encoded],
    spec: FinetuneSpec,
    scratch: Path,
) -> "SFTTrainer":
    """Raises LineageError when words are to be hidden and there is no token to hide them with."""
    return _trainer_class(spec, tokenizer)(
        model=model,
        args=_arguments(data["train"], spec, scratch),
        train_dataset=_dataset(data["train"], spec.seed),
        eval_dataset=_dataset(data["validation"], spec.seed),
        processing_class=tokenizer,
        peft_config=adapter,
    )


def _arguments(train: Encoded, spec: FinetuneSpec, scratch: Path) -> "SFTConfig":
    from trl import SFTConfig

    # The trainer rounds the same way, but after packing: this is near enough for intervals.
    sequences = math.ceil(train.tokens / spec.pack_tokens) if spec.packed else len(train.examples)
    batch = spec.packs_per_step if spec.packed else spec.rows_per_step
    config = SFTConfig(
        **training_arguments(spec, math.ceil(sequences / batch), batch, scratch),
        packing=spec.packed,
        max_length=spec.longest,
    )
    return on_one_gpu(config)


def _dataset(rows: Encoded, seed: int) -> "Dataset":
    """Shuffled, because packing takes rows of one length together in the order they come."""
    from datasets import Dataset

    examples = list(rows.examples)
    random.Random(seed).shuffle(examples)
    return Dataset.from_dict(
        {
            "input_ids": [example.input_ids for example in examples],
            "labels": [example.labels for example in examples],
        }
    )


def _trainer_class(spec: FinetuneSpec, tokenizer: "PreTrainedTokenizerBase") -> type["SFTTrainer"]:
    import torch
    from trl import SFTTrainer

    if spec.word_dropout and tokenizer.mask_token_id is None:
        raise LineageError(
            "The base model's tokenizer has no mask token to hide words with.",
            "Set lora_adapter's word_dropout to 0.",
        )
    special = torch.tensor(tokenizer.all_special_ids)

    class AnswerTrainer(SFTTrainer):  # type: ignore[misc]
        """Scores the answers' tokens only, and hides prompt tokens at random in training."""

        def compute_loss(
            self,
            model: Any,
            inputs: dict[str, Any],
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            if model.training and spec.word_dropout:
                inputs["input_ids"] = self._hide(inputs["input_ids"], inputs["labels"])
            # TRL's own smoothing runs the model twice.
            trl_is_quick = torch.cuda.is_available() and not spec.label_smoothing
            if trl_is_quick or return_outputs:
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            return self._answer_loss(model, inputs, num_items_in_batch)

        def _answer_loss(self, model: Any, inputs: dict[str, Any], items: Any) -> Any:
            # Off the GPU, TRL's fused head scores every token, the unlabelled ones for
            # nothing; for short answers that is most of the work of a small model.
            targets = inputs["labels"][:, 1:]
            scored = (targets != IGNORED).any(0).nonzero().flatten()
            targets = targets[:, scored].flatten()
            given = {name: value for name, value in inputs.items() if name != "labels"}
            logits = model(**given, logits_to_keep=scored, use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1).float(),
                targets,
                ignore_index=IGNORED,
                reduction="sum",
                label_smoothing=spec.label_smoothing if model.training else 0.0,
            )
            return loss / ((targets != IGNORED).sum() if items is None else items)

        def _hide(self, ids: Any, labels: Any) -> Any:
            chosen = torch.rand(ids.shape, device=ids.device) < spec.word_dropout
            chosen &= (labels == IGNORED) & ~torch.isin(ids, special.to(ids.device))
            return ids.masked_fill(chosen, tokenizer.mask_token_id)

    return AnswerTrainer
