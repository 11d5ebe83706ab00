"""Our trainer on a GPU beside stock TRL, and beside Unsloth where it is installed.

Llama-shaped models of 1B and 8B parameters with random weights, LoRA in bf16 and QLoRA, rows of
random tokens of many lengths. Each contender trains in a process of its own. Speed counts real
tokens; utilisation is ours for all: the same operations over the same peak.

python -m mlops_assets_tests.bench gpu
python -m mlops_assets_tests.bench_gpu CONTENDER QUANTIZATION MODEL_FOLDER ROWS
"""

import importlib.util
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlops_assets.home import Home
from mlops_assets.training.accounting import describe_training
from mlops_assets.training.adapters import adapter_config
from mlops_assets.training.compute_ceiling import find_ceiling
from mlops_assets.training.encoding import Encoded, Example
from mlops_assets.training.flops import epoch_flops
from mlops_assets.training.memory_plan import decide_checkpointing, plan_memory
from mlops_assets.training.packed_attention import NAME as PACKED
from mlops_assets.training.peak_memory import measured_peak
from mlops_assets.training.quiet import quiet_libraries
from mlops_assets.training.spec import FinetuneSpec
from mlops_assets.training.trainer import load_base, make_trainer

HEADS = {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256}
SHAPES = {
    "1B": HEADS | {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16},
    "8B": HEADS | {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32},
}
ROWS = {"1B": 512, "8B": 192}
LENGTHS = (128, 1024)
"""Tokens of a row, evenly spread; a quarter of them is the answer."""


def gpu() -> None:
    """Print one table for each shape, or say that there is no GPU."""
    import torch

    if not torch.cuda.is_available():
        print("\nSkipped: no GPU here, so nothing was measured on one.")
        return
    for name, shape in SHAPES.items():
        with tempfile.TemporaryDirectory() as folder:
            make_model(Path(folder), shape)
            print(f"\n{name} parameters on {torch.cuda.get_device_name()}\n")
            print_table(Path(folder), ROWS[name])


def print_table(folder: Path, rows: int) -> None:
    """Run every contender over the model in ``folder``, quantised and not."""
    names = [name for name in CONTENDERS if name != "unsloth" or _installed("unsloth")]
    print("| contender | base | real tokens/s | of TRL | peak memory, GiB | planned | MFU |")
    print("|---|---|---|---|---|---|---|")
    for quantization in ("none", "nf4"):
        found = {name: _run(name, quantization, folder, rows) for name in names}
        for name, figures in found.items():
            ratio = figures["tokens_per_second"] / found["trl"]["tokens_per_second"]
            sizes = " | ".join(_gibibytes(figures[key]) for key in ("peak", "planned"))
            speed = f"{figures['tokens_per_second']:,.0f} | {ratio:.2f}"
            print(f"| {name} | {quantization} | {speed} | {sizes} | {figures['mfu']:.1%} |")


def make_model(folder: Path, shape: dict[str, int]) -> None:
    """A Llama of this shape with random weights, and a tokenizer of bare words."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    device = "cuda" if torch.cuda.is_available() else "cpu"
    with quiet_libraries(), torch.device(device):
        torch.set_default_dtype(torch.bfloat16)
        try:
            model = LlamaForCausalLM(LlamaConfig(**shape, tie_word_embeddings=False))
        finally:
            torch.set_default_dtype(torch.float32)
        model.save_pretrained(folder)
        words = {f"w{number}": number for number in range(shape["vocab_size"])}
        special = {"unk_token": "w0", "pad_token": "w1", "eos_token": "w2"}
        tokenizer = Tokenizer(models.WordLevel(words, unk_token=special["unk_token"]))
        wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
        wrapped.chat_template = "{{ messages }}"
        wrapped.save_pretrained(folder)


def make_rows(count: int, vocabulary: int) -> Encoded:
    """Random tokens; the same for everyone."""
    seeded = random.Random(0)
    examples = []
    for number in range(count):
        length = seeded.randint(*LENGTHS)
        ids = [seeded.randrange(3, vocabulary) for _ in range(length)]
        examples.append(Example(f"r{number}", ids[: -length // 4], ids[-length // 4 :]))
    return Encoded(examples, 0)


def make_spec(quantization: str) -> FinetuneSpec:
    """A LoRA as TRL's and Unsloth's examples have it; the rest is our defaults."""
    return FinetuneSpec(
        rank=16,
        alpha=32.0,
        adapt_embeddings=False,
        train_head=False,
        quantization=quantization,
        epochs=1,
        learning_rate=2e-4,
        pack_tokens=4096,
    )


def _ours(folder: Path, rows: Encoded, spec: FinetuneSpec, scratch: Path) -> Any:
    decided = decide_checkpointing(spec, plan_memory(describe_training(folder, spec, rows)))
    data = {"train": rows, "validation": Encoded(rows.examples[:1], 0)}
    trainer = make_trainer(folder, _tokenizer(folder), data, decided, scratch)
    trainer.args.eval_strategy = "no"
    return trainer


def _trl(folder: Path, rows: Encoded, spec: FinetuneSpec, scratch: Path) -> Any:
    model = load_base(folder, spec)
    if model.config._attn_implementation == PACKED:
        model.set_attn_implementation("sdpa")  # stock packs nothing
    return _stock_trainer(model, adapter_config(model, spec), folder, rows, spec, scratch)


def _unsloth(folder: Path, rows: Encoded, spec: FinetuneSpec, scratch: Path) -> Any:
    from unsloth import FastLanguageModel

    model, _ = FastLanguageModel.from_pretrained(
        str(folder), max_seq_length=LENGTHS[1], load_in_4bit=spec.quantization == "nf4"
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=0,
        target_modules=[
            "q_proj",
            "k_proj",
            "v_proj",
            "o_proj",
            "gate_proj",
            "up_proj",
            "down_proj",
        ],
        use_gradient_checkpointing="unsloth",
    )
    return _stock_trainer(model, None, folder, rows, spec, scratch)


def _stock_trainer(
    model: Any, adapter: Any, folder: Path, rows: Encoded, spec: FinetuneSpec, scratch: Path
) -> Any:
    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    columns = {
        "input_ids": [example.input_ids for example in rows.examples],
        "labels": [example.labels for example in rows.examples],
    }
    return SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(scratch),
            num_train_epochs=spec.epochs,
            learning_rate=spec.learning_rate,
            use_cpu=not torch.cuda.is_available(),
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict(columns),
        processing_class=_tokenizer(folder),
        peft_config=adapter,
    )


CONTENDERS: dict[str, Callable[[Path, Encoded, FinetuneSpec, Path], Any]] = {
    "ours": _ours,
    "trl": _trl,
    "unsloth": _unsloth,
}


def measure(name: str, quantization: str, folder: Path, count: int) -> dict[str, float]:
    """Train one contender; real tokens a second, peak and planned memory (bytes), MFU."""
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    rows, spec = make_rows(count, vocabulary), make_spec(quantization)
    training = describe_training(folder, spec, rows)
    with (
        tempfile.TemporaryDirectory() as scratch,
        quiet_libraries(),
        measured_peak(training.device.kind) as peak,
    ):
        trainer = CONTENDERS[name](folder, rows, spec, Path(scratch))
        started = time.monotonic()
        trainer.train()  # reads the last loss at its end, and so waits for the GPU
        seconds = time.monotonic() - started
    ceiling = find_ceiling(training.device, training.bf16, Home.from_environment().ceilings)
    flops = epoch_flops(training.shape, spec, training.work)
    return {
        "tokens_per_second": rows.tokens / seconds,
        "peak": peak.size or 0,
        "planned": plan_memory(training).peak,
        "mfu": flops / seconds / ceiling.flops,
    }


def _run(name: str, quantization: str, folder: Path, rows: int) -> dict[str, Any]:
    words = ("-m", __name__, name, quantization, str(folder), str(rows))
    ended = subprocess.run([sys.executable, *words], stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return figures


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def _gibibytes(size: float) -> str:
    return f"{size / 1024**3:.1f}"


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))))
