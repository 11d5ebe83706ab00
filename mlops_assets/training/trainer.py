"""How the base model is loaded, wrapped in LoRA and handed to TRL's ``SFTTrainer``."""

import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_assets.artifacts import LineageError
from mlops_assets.training.encoding import IGNORED, Encoded
from mlops_assets.training.spec import FinetuneSpec

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import SFTConfig, SFTTrainer

LOG_POINTS = 100  # points of the loss curve
VALIDATIONS = 5  # times that the validation loss is measured


def make_trainer(
    base: Path,
    tokenizer: "PreTrainedTokenizerBase",
    data: Mapping[str, Encoded],
    spec: FinetuneSpec,
    scratch: Path,
) -> "SFTTrainer":
    """The trainer over ``data["train"]`` that validates on ``data["validation"]``.

    It writes nothing but to ``scratch``, and there only if the libraries insist. Raises
    LineageError when the base model cannot be trained as the spec asks.
    """
    model = load_base(base, spec)
    return _trainer_class(spec, tokenizer)(
        model=model,
        args=_arguments(data["train"], spec, scratch),
        train_dataset=_dataset(data["train"], spec.seed),
        eval_dataset=_dataset(data["validation"], spec.seed),
        processing_class=tokenizer,
        peft_config=_lora(model, spec),
    )


def load_base(base: Path, spec: FinetuneSpec) -> "PreTrainedModel":
    """The base model's weights, in 4 bits where the spec says so."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    dtype = torch.bfloat16 if uses_bf16(spec) else torch.float32
    quantization = None
    if spec.quantization == "nf4":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    # On a CPU sdpa is the attention that keeps packed rows apart; elsewhere too.
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        base,
        dtype=dtype,
        quantization_config=quantization,
        attn_implementation="sdpa",
        local_files_only=True,
        trust_remote_code=False,
    )
    return model


def uses_bf16(spec: FinetuneSpec) -> bool:
    """Whether to compute in bf16: when asked to, or where a GPU has it."""
    import torch

    if spec.precision == "auto":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return spec.precision == "bf16"


def _lora(model: "PreTrainedModel", spec: FinetuneSpec) -> "LoraConfig":
    """LoRA on every linear layer, and on or in full what the spec adds.

    Raises LineageError for a model whose input and output embeddings are one matrix.
    """
    import torch
    from peft import LoraConfig

    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if (spec.adapt_embeddings or spec.train_head) and head.weight is embeddings.weight:
        raise LineageError(
            "The base model's input and output embeddings are one matrix, which cannot be adapted"
            " on one side only.",
            "Set lora_adapter's adapt_embeddings and train_head to false.",
        )
    names = {module: name.rpartition(".")[2] for name, module in model.named_modules()}
    adapted = {names[module] for module in names if isinstance(module, torch.nn.Linear)}
    adapted.remove(names[head])
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=sorted(adapted | ({names[embeddings]} if spec.adapt_embeddings else set())),
        modules_to_save=[names[head]] if spec.train_head else None,
    )


def _arguments(train: Encoded, spec: FinetuneSpec, scratch: Path) -> "SFTConfig":
    import torch
    from trl import SFTConfig

    # The trainer rounds the same way, but after packing: this is near enough for intervals.
    packs = math.ceil(train.tokens / spec.pack_tokens)
    steps = spec.epochs * math.ceil(packs / (spec.packs_per_step * spec.accumulation))
    return SFTConfig(
        output_dir=str(scratch),
        num_train_epochs=spec.epochs,
        learning_rate=spec.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(steps * spec.warmup_share),
        weight_decay=spec.weight_decay,
        per_device_train_batch_size=spec.packs_per_step,
        per_device_eval_batch_size=spec.packs_per_step,
        gradient_accumulation_steps=spec.accumulation,
        gradient_checkpointing=spec.gradient_checkpointing,
        packing=True,
        max_length=spec.pack_tokens,
        bf16=uses_bf16(spec),
        seed=spec.seed,
        logging_steps=max(1, steps // LOG_POINTS),
        logging_nan_inf_filter=False,  # a loss that is not a number must be seen
        include_num_input_tokens_seen="all",
        eval_strategy="no" if _spoilt_by_validation(spec) else "steps",
        eval_steps=max(1, steps // VALIDATIONS),
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
    )


def _spoilt_by_validation(spec: FinetuneSpec) -> bool:
    """Whether validating ends training: bitsandbytes on a CPU packs weights for inference.

    Packed weights pass no gradient on, silently, and stay packed; so validate at the end only.
    """
    import torch

    return spec.quantization == "nf4" and not torch.cuda.is_available()


def _dataset(rows: Encoded, seed: int) -> "Dataset":
    """Shuffled, because packing takes rows of one length together in the order they come."""
    from datasets import Dataset

    order = list(range(len(rows.input_ids)))
    random.Random(seed).shuffle(order)
    return Dataset.from_dict(
        {
            "input_ids": [rows.input_ids[place] for place in order],
            "labels": [rows.labels[place] for place in order],
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
            targets = inputs["labels"][0, 1:]
            scored = (targets != IGNORED).nonzero().flatten()
            fields = ("input_ids", "position_ids")
            packed = {name: inputs[name] for name in fields}
            logits = model(**packed, logits_to_keep=scored, use_cache=False).logits[0].float()
            loss = torch.nn.functional.cross_entropy(
                logits,
                targets[scored],
                reduction="sum",
                label_smoothing=spec.label_smoothing if model.training else 0.0,
            )
            return loss / (len(scored) if items is None else items)

        def _hide(self, ids: Any, labels: Any) -> Any:
            chosen = torch.rand(ids.shape, device=ids.device) < spec.word_dropout
            chosen &= (labels == IGNORED) & ~torch.isin(ids, special.to(ids.device))
            return ids.masked_fill(chosen, tokenizer.mask_token_id)

    return AnswerTrainer
