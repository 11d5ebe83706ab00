"""DPO, ORPO and KTO with TRL's trainers: learning from a better and a worse answer.

The trainers are given our token ids; their own rendering of conversations, which may end an
answer otherwise than a server does, is passed over. Rows are padded, not packed.
"""

import math
import random
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_assets.training.arguments import on_one_gpu, training_arguments
from mlops_assets.training.encoding import IGNORED, Encoded
from mlops_assets.training.spec import FinetuneSpec

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer


def make_preference_trainer(
    model: "PreTrainedModel",
    adapter: "PeftConfig | None",
    reference: "PreTrainedModel | None",
    tokenizer: "PreTrainedTokenizerBase",
    data: Mapping[str, Encoded],
    spec: FinetuneSpec,
    scratch: Path,
) -> "Trainer":
    """The trainer of ``spec.method``.

    ``reference`` is what DPO and KTO stay close to where ``model`` is tuned in full; an adapter
    is switched off instead.
    """
    trainer, config = TRAINERS[spec.method]()
    datasets = {
        name: _judged(rows, spec) if spec.method == "kto" else _pairs(rows)
        for name, rows in data.items()
    }
    passes = math.ceil(len(datasets["train"]) / spec.rows_per_step)
    arguments = training_arguments(spec, passes, spec.rows_per_step, scratch)
    return trainer(
        model=model,
        args=on_one_gpu(config(**arguments, **_loss(spec), max_length=spec.row_tokens)),
        train_dataset=datasets["train"],
        eval_dataset=datasets["validation"],
        processing_class=tokenizer,
        peft_config=adapter,
        **({} if spec.method == "orpo" else {"ref_model": reference}),
    )


def _loss(spec: FinetuneSpec) -> dict[str, Any]:
    """DPO plus the likelihood of the better answer is that of https://arxiv.org/abs/2404.19733."""
    if not spec.likelihood_weight:
        return {"beta": spec.beta}
    weights = [1.0, spec.likelihood_weight]
    return {"beta": spec.beta, "loss_type": ["sigmoid", "sft"], "loss_weights": weights}


def _dpo_trainer() -> tuple[Any, Any]:
    from trl import DPOConfig, DPOTrainer

    class PairTrainer(DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: "Dataset", *_: Any) -> "Dataset":
            return dataset

    return PairTrainer, DPOConfig


def _kto_trainer() -> tuple[Any, Any]:
    from trl import KTOConfig, KTOTrainer

    class JudgedTrainer(KTOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: "Dataset", *_: Any) -> "Dataset":
            return dataset

    return JudgedTrainer, KTOConfig


def _orpo_trainer() -> tuple[Any, Any]:
    import torch
    from trl.import_utils import TRLExperimentalWarning

    with warnings.catch_warnings():
        # It may change with any release, says TRL; the lock file holds ours.
        warnings.simplefilter("ignore", TRLExperimentalWarning)
        from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    class OddsTrainer(ORPOTrainer):  # type: ignore[misc]
        def tokenize_row(self, row: dict[str, list[int]]) -> dict[str, Any]:
            prompt = row["prompt_ids"]
            tokens: dict[str, Any] = {"prompt_input_ids": prompt}
            for side in ("chosen", "rejected"):
                answer = row[f"{side}_ids"]
                tokens[f"{side}_input_ids"] = prompt + answer
                tokens[f"{side}_attention_mask"] = [1] * len(prompt + answer)
                tokens[f"{side}_labels"] = [IGNORED] * len(prompt) + answer
            return tokens

        def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
            # Under the names by which transformers counts tokens and FLOPs.
            for name in ("input_ids", "attention_mask"):
                sides = [inputs[f"{side}_{name}"].flatten() for side in ("chosen", "rejected")]
                inputs[name] = torch.cat(sides)
            prepared: dict[str, Any] = super()._prepare_inputs(inputs)
            return prepared

    return OddsTrainer, ORPOConfig


TRAINERS = {"dpo": _dpo_trainer, "orpo": _orpo_trainer, "kto": _kto_trainer}


def _pairs(rows: Encoded) -> "Dataset":
    """One item a row: the better and the worse answer side by side."""
    from datasets import Dataset

    return Dataset.from_dict(
        {
            "prompt_ids": [example.prompt for example in rows.examples],
            "chosen_ids": [example.chosen for example in rows.examples],
            "rejected_ids": [example.rejected for example in rows.examples],
        }
    )


def _judged(rows: Encoded, spec: FinetuneSpec) -> "Dataset":
    """One item an answer, with its judgement, and another prompt's answer to estimate the KL.

    That answer comes from the same batch, as in Eq. 7 of https://arxiv.org/abs/2402.01306 and
    in TRL, which takes the one before.
    """
    from datasets import Dataset

    items = [
        (example.prompt, answer, good)
        for example in rows.examples
        for answer, good in ((example.chosen, True), (example.rejected, False))
        if answer is not None
    ]
    random.Random(spec.seed).shuffle(items)  # else the one before has the same prompt
    prompts, answers, labels = map(list, zip(*items, strict=True))
    others: list[list[int]] = []
    for start in range(0, len(answers), spec.rows_per_step):
        batch = answers[start : start + spec.rows_per_step]
        others += [batch[-1], *batch[:-1]]
    return Dataset.from_dict(
        {
            "prompt_ids": prompts,
            "completion_ids": answers,
            "KL_completion_ids": others,
            "label": labels,
        }
    )
