"""Fine-tuning of the base model with TRL and PEFT.

Everything is seeded: on one machine's CPU the same inputs give the same bytes, so the
artifact holds no time, host or path. What did take time (tokens per second, seconds) is in
the artifact's summary and in the tracked run.
"""

import hashlib
import logging
import math
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_assets.artifacts import ArtifactStore, LineageError, Recipe, canonical_json
from mlops_assets.code_digest import code_digest
from mlops_assets.cost import Meter, Rates
from mlops_assets.progress import progress
from mlops_assets.prompts import prompt_text, seal_prompt
from mlops_assets.refs import AdapterRef, BaseModelRef, Row, SplitsRef, Versions, read_rows
from mlops_assets.template_messages import with_system
from mlops_assets.threads import fitting_threads
from mlops_assets.trackers import TrackedRun
from mlops_assets.training.accounting import account, describe_training
from mlops_assets.training.adapters import save_weights, trainable_parameters
from mlops_assets.training.arguments import uses_bf16
from mlops_assets.training.callbacks import Watch, make_recorder, make_watcher
from mlops_assets.training.checkpoints import Checkpoints
from mlops_assets.training.device import gpu_in_use
from mlops_assets.training.encoding import encode
from mlops_assets.training.interruption import noticed_interruption
from mlops_assets.training.loss_curve import draw_loss_curve
from mlops_assets.training.memory_plan import (
    decide_checkpointing,
    plan_memory,
    translate_out_of_memory,
)
from mlops_assets.training.origin import make_record
from mlops_assets.training.peak_memory import measured_peak
from mlops_assets.training.quiet import quiet_libraries
from mlops_assets.training.resume import make_resumable
from mlops_assets.training.run_log import log_result, log_settings
from mlops_assets.training.spec import FinetuneSpec
from mlops_assets.training.template_fidelity import TRAINED_ON, record_trained
from mlops_assets.training.training_log import TrainingLog

if TYPE_CHECKING:
    from transformers import Trainer

logger = logging.getLogger(__name__)

KIND = "lora_adapter"
LIBRARIES = (
    *("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate"),
    *("tokenizers", "matplotlib"),  # token ids, and the picture of the curve
)
KERNELS = ("flash_attn", "kernels")  # used where they are installed
FIGURES = (
    "train_loss",
    "validation_loss",
    "reward_margin",
    "steps",
    "tokens",
    "tokens_per_second",
    "train_seconds",
    "trainable_parameters",
    "trainable_share",
    "rows_too_long",
)
"""Names of the summary's figures that people are shown, where the method has them."""
LOG, CURVE = "training_log.json", "loss.png"

Attach = Callable[[], AbstractContextManager[TrackedRun]]
"""Begins to tell trackers of the run; called only when we really train."""


def finetune(
    store: ArtifactStore,
    splits: SplitsRef,
    base: BaseModelRef,
    spec: FinetuneSpec,
    attach: Attach,
    dagster_run: str,
    watch: Watch | None = None,
    rates: Rates = Rates(),  # noqa: B008
) -> AdapterRef:
    """Train the adapter that ``spec`` asks for, or find it in the store.

    A training whose process died goes on from its newest complete checkpoint, to the same
    bytes. ``rates`` put a price on the training in its run and change nothing else. Raises
    LineageError when the training does not fit into memory, when it diverges or when no row
    fits, when the prompt is missing or not valid, and whatever ``watch`` raises to end a training
    that is not worth its time.
    """
    prompt = seal_prompt(store, spec.prompt, splits.labels)

    def produce(directory: Path) -> Mapping[str, Any]:
        threads = fitting_threads(base.parameters)
        with attach() as run, quiet_libraries(), threads:
            log_settings(run, splits, base, spec)
            meter = Meter(gpu_in_use())
            summary = _train(store, splits, base, spec, directory, watch, meter, run)
            usage = meter.read()
            log_result(run, summary | usage.priced(rates), directory / CURVE)
            record = make_record(splits, base, spec) | {"usage": asdict(usage)}
        runs = {"mlflow_run": run.mlflow_run, "dagster_run": dagster_run}
        return summary | record | runs | {"mlflow_experiment": run.experiment}

    artifact = store.build(adapter_recipe(splits, base, spec), produce)
    runs = artifact.summary["mlflow_run"], artifact.summary["dagster_run"]
    return AdapterRef(artifact, base.artifact, Versions.of(artifact), *runs, prompt)


def adapter_recipe(splits: SplitsRef, base: BaseModelRef, spec: FinetuneSpec) -> Recipe:
    """What decides an adapter's bytes; `precision: auto` is what it comes to on this machine."""
    settings = spec.read() | {"precision": "bf16" if uses_bf16(spec) else "fp32"}
    system = prompt_text(spec.prompt, splits.labels)
    inputs = {
        "base": base.artifact.digest,
        "splits": splits.artifact.digest,
        "prompt": hashlib.sha256(system.encode()).hexdigest(),
    }
    kernels = tuple(name for name in KERNELS if find_spec(name))
    return Recipe(KIND, inputs, settings, code_digest(__name__), LIBRARIES + kernels)


def _train(
    store: ArtifactStore,
    splits: SplitsRef,
    base: BaseModelRef,
    spec: FinetuneSpec,
    target: Path,
    watch: Watch | None,
    meter: Meter,
    run: TrackedRun,
) -> dict[str, Any]:
    """Train, write the adapter's files into ``target`` and return the summary."""
    from transformers import AutoTokenizer

    from mlops_assets.training.trainer import make_trainer

    base_path = store.path(base.artifact)
    tokenizer = AutoTokenizer.from_pretrained(base_path, local_files_only=True)
    system = prompt_text(spec.prompt, splits.labels)
    rows = {name: _rows(store, splits, name, system) for name in ("train", "validation")}
    data = {name: encode(tokenizer, these, spec) for name, these in rows.items()}
    training = describe_training(base_path, spec, data["train"])
    plan = plan_memory(training)
    decided = decide_checkpointing(spec, plan)
    log = TrainingLog()
    with (
        translate_out_of_memory(replace(training, spec=decided), plan),
        measured_peak(training.device.kind) as peak,
        tempfile.TemporaryDirectory() as scratch,
    ):
        trainer = make_trainer(base_path, tokenizer, data, decided, Path(scratch))
        if watch is not None:
            trainer.add_callback(make_watcher(watch, log))
        checkpoints = Checkpoints(store.checkpoints / adapter_recipe(splits, base, spec).key)
        _run(trainer, log, meter, checkpoints, spec.checkpoint_seconds, run)
        save_weights(trainer.model, spec, base.name, target)
    record_trained(rows["train"], data["train"], target / TRAINED_ON)
    (target / LOG).write_bytes(canonical_json(log.content()))
    draw_loss_curve(log, target / CURVE)
    left_out = data["train"].too_long + data["validation"].too_long
    figures = _summary(trainer.model, log) | {"rows_too_long": left_out}
    return figures | account(training, plan, log, peak)


def _rows(store: ArtifactStore, splits: SplitsRef, name: str, system: str) -> list[Row]:
    """The rows of a split as they are asked with the system prompt ``system``."""
    read = read_rows(store.path(splits.artifact) / f"{name}.jsonl")
    rows = [with_system(system, row) for row in read]
    if not rows:
        raise LineageError(
            f"The {name} split has no rows.",
            "Give the dataset more rows, or change the shares of the splits.",
        )
    return rows


def _run(
    trainer: "Trainer",
    log: TrainingLog,
    meter: Meter,
    checkpoints: Checkpoints,
    every: float,
    run: TrackedRun,
) -> None:
    """Train from the newest checkpoint; validate again if the last step was not validated."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    passes = len(trainer.get_train_dataloader())
    updates = math.ceil(passes / trainer.args.gradient_accumulation_steps)
    steps = updates * int(trainer.args.num_train_epochs)
    with progress(logger, "fine-tuning", steps) as advance, noticed_interruption() as interruption:
        trainer.add_callback(make_recorder(log, advance, run))
        start = make_resumable(trainer, checkpoints, log, meter, interruption, every)
        trainer.train(resume_from_checkpoint=start)
        if not log.validations or log.validations[-1].step != log.last_step:
            trainer.evaluate()


def _summary(model: Any, log: TrainingLog) -> dict[str, Any]:
    trainable, total = trainable_parameters(model)
    margin = log.validations[-1].reward_margin
    return ({} if margin is None else {"reward_margin": margin}) | {
        "train_loss": log.steps[-1].loss,
        "validation_loss": log.validations[-1].loss,
        "steps": log.last_step,
        "tokens": log.tokens,
        "tokens_per_second": round(log.tokens_per_second, 1),
        "train_seconds": round(log.seconds, 1),
        "trainable_parameters": trainable,
        "trainable_share": round(trainable / total, 4),
    }
