"""The peers of the training benchmarks, each run in a process of its own.

python -m mlops_assets_tests.plain_training (script | stock) HOME OUT SETTINGS

``script`` trains as the asset `lora_adapter` does, with the same trainer, and without Dagster,
MLflow and the artifact store. ``stock`` is TRL's ``SFTTrainer`` with its defaults over the same
rows: same base model, same LoRA, same epochs, learning rate and seed. Each leaves its adapter
in OUT and prints one line of JSON.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from mlops_assets.home import Home
from mlops_assets.refs import BaseModelRef, Row, SplitsRef, read_rows
from mlops_assets.threads import fitting_threads
from mlops_assets.training.adapters import adapter_config, save_weights
from mlops_assets.training.encoding import encode
from mlops_assets.training.quiet import quiet_libraries
from mlops_assets.training.spec import FinetuneSpec


def inputs(home: Home) -> tuple[Path, BaseModelRef, dict[str, list[Row]]]:
    """The base model's directory and ref, and the rows of each split, as the assets left them."""
    splits, base = home.latest("dataset_splits"), home.latest("base_model")
    assert isinstance(splits, SplitsRef)
    assert isinstance(base, BaseModelRef)
    folder = home.store.path(splits.artifact)
    names = ("train", "validation")
    rows = {name: list(read_rows(folder / f"{name}.jsonl")) for name in names}
    return home.store.path(base.artifact), base, rows


def script(home: Home, out: Path, spec: FinetuneSpec) -> dict[str, Any]:
    """Our trainer from a plain script."""
    import torch
    from transformers import AutoTokenizer

    from mlops_assets.training.trainer import make_trainer

    torch.set_flush_denormal(True)
    path, base, rows = inputs(home)
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    data = {name: encode(tokenizer, items, spec) for name, items in rows.items()}
    with tempfile.TemporaryDirectory() as scratch, fitting_threads(base.parameters):
        decided = spec.model_copy(update={"gradient_checkpointing": "never"})
        trainer = make_trainer(path, tokenizer, data, decided, Path(scratch))
        started = time.monotonic()
        trainer.train()
        seconds = time.monotonic() - started
    save_weights(trainer.model, spec, base.name, out)
    return {"tokens_per_second": spec.epochs * data["train"].tokens / seconds}


def stock(home: Home, out: Path, spec: FinetuneSpec) -> dict[str, Any]:
    """TRL as it comes: padded rows, 8 a step, its precision, checkpointing and threads."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    path, base, rows = inputs(home)
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    chats = [
        {"prompt": [*map(dict, row.prompt)], "completion": [dict(row.messages[-1])]}
        for row in rows["train"]
    ]
    model = AutoModelForCausalLM.from_pretrained(path, local_files_only=True)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(
                output_dir=scratch,
                num_train_epochs=spec.epochs,
                learning_rate=spec.learning_rate,
                seed=spec.seed,
                use_cpu=not torch.cuda.is_available(),
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list(chats),
            processing_class=tokenizer,
            peft_config=adapter_config(model, spec),
        )
        started = time.monotonic()
        trainer.train()
        seconds = time.monotonic() - started
    save_weights(trainer.model, spec, base.name, out)
    tokens = encode(tokenizer, rows["train"], spec).tokens
    return {"tokens_per_second": spec.epochs * tokens / seconds}


def answer_loss(home: Home, adapter: Path) -> float:
    """Mean loss of an answer's token over the validation rows, one row at a time, in fp32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path, _, rows = inputs(home)
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    with quiet_libraries():
        from peft import PeftModel  # its import brings a notice of bitsandbytes'

        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        model = PeftModel.from_pretrained(model, str(adapter)).eval()
    total, count = 0.0, 0
    for example in encode(tokenizer, rows["validation"], FinetuneSpec()).examples:
        ids, labels = torch.tensor([example.input_ids]), torch.tensor([example.labels])
        with torch.no_grad():
            loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        total += float(loss) * len(example.chosen)
        count += len(example.chosen)
    return total / count


def main(kind: str, home: str, out: str, settings: str) -> None:
    """Run one of the two and print what it measured."""
    peer = {"script": script, "stock": stock}[kind]
    with quiet_libraries():
        figures = peer(Home(Path(home)), Path(out), FinetuneSpec(**json.loads(settings)))
    print(json.dumps(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
