"""One contender of the benchmark of generation: the same prompts over the same merged model.

python -m mlops_assets_tests.plain_generation CONTENDER FOLDER

FOLDER holds what ``prepare`` wrote. It prints an ``Answered`` as one line of JSON.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from mlops_assets.artifacts import ArtifactStore
from mlops_assets.evaluation import decoding
from mlops_assets.evaluation.decoding import decode
from mlops_assets.model_loading import LoadedModel, load_model
from mlops_assets.refs import ReleaseBundle, Row
from mlops_assets.template_messages import template_messages
from mlops_assets.threads import fitting_threads


@dataclass(frozen=True)
class Answered:
    """From the prompts' texts to the answers' texts, with the model loaded."""

    seconds: float
    cpu_seconds: float
    """Of all threads: what another load on the machine disturbs least."""
    answers: list[str]


BATCH, BUDGET = 64, 48
MODEL, PROMPTS, TASK = "model", "prompts.jsonl", "prompts_of_the_benchmark"
YAML = """
task: {task}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {prompts}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["{end}"], max_gen_toks: {budget}, do_sample: false}}
metric_list: [{{metric: exact_match}}]
"""


class Stopwatch:
    """Adds up time on the clock and on the processor."""

    seconds = cpu_seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time in the block."""
        started = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - started[0]
            self.cpu_seconds += time.process_time() - started[1]


def prepare(store: ArtifactStore, bundle: ReleaseBundle, rows: Sequence[Row], to: Path) -> None:
    """Write the merged model, the rendered prompts and lm_eval's task."""
    loaded = load_model(store.path(bundle.base), store.path(bundle.adapter))
    loaded.model.save_pretrained(to / MODEL)
    loaded.tokenizer.save_pretrained(to / MODEL)
    with (to / PROMPTS).open("w", encoding="utf-8") as stream:
        for row in rows:
            prompt = loaded.tokenizer.apply_chat_template(
                template_messages(row.prompt), tokenize=False, add_generation_prompt=True
            )
            stream.write(json.dumps({"prompt": prompt, "answer": row.answer}) + "\n")
    end = loaded.tokenizer.eos_token
    text = YAML.format(task=TASK, prompts=to / PROMPTS, end=end, budget=BUDGET)
    (to / f"{TASK}.yaml").write_text(text, encoding="utf-8")


def read_prompts(folder: Path) -> list[str]:
    """The prompts' texts in their order."""
    lines = (folder / PROMPTS).read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["prompt"] for line in lines]


def ours(folder: Path) -> Answered:
    """As `eval_report` answers."""
    return _timed(
        folder,
        lambda loaded, ids, workers: decode(loaded, ids, BUDGET, BATCH, _silently, workers).tokens,
    )


def ours_apart(folder: Path) -> Answered:
    """The same, but what all prompts begin with is computed for each."""
    with patch.object(decoding, "SHARED_FROM", sys.maxsize):
        return ours(folder)


def generate(folder: Path) -> Answered:
    """transformers' ``generate`` on one thread, in the same batches sorted by length."""
    return _timed(folder, lambda loaded, ids, _: _generate(loaded, ids))


def lm_eval(folder: Path, batch_size: int | str = "auto") -> Answered:
    """lm-evaluation-harness as it comes, less the seconds in which it looks for a batch size."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    answering, looking = Stopwatch(), Stopwatch()

    def timed(name: str, watch: Stopwatch) -> Any:
        original = getattr(HFLM, name)

        def call(*args: Any, **named: Any) -> Any:
            with watch.running():
                return original(*args, **named)

        return patch.object(HFLM, name, call)

    with timed("generate_until", answering), timed("_detect_batch_size", looking):
        found = simple_evaluate(
            model="hf",
            model_args={"pretrained": str(folder / MODEL), "dtype": "float32"},
            tasks=[TASK],
            task_manager=TaskManager(include_path=str(folder), include_defaults=False),
            batch_size=batch_size,
            device="cpu",
            bootstrap_iters=0,
        )
    samples = sorted(found["samples"][TASK], key=lambda sample: int(sample["doc_id"]))
    answers = [sample["resps"][0][0] for sample in samples]
    cpu = answering.cpu_seconds - looking.cpu_seconds
    return Answered(answering.seconds - looking.seconds, cpu, answers)


def _timed(
    folder: Path, answer: Callable[[LoadedModel, list[list[int]], int], list[list[int]]]
) -> Answered:
    loaded = load_model(folder / MODEL, None)
    texts = read_prompts(folder)
    watch = Stopwatch()
    with fitting_threads(loaded.parameters) as workers, watch.running():
        prompts = loaded.tokenizer(texts, add_special_tokens=False)["input_ids"]
        tokens = answer(loaded, prompts, workers)
        answers = loaded.tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return Answered(watch.seconds, watch.cpu_seconds, answers)


def _generate(loaded: LoadedModel, prompts: list[list[int]]) -> list[list[int]]:
    import torch
    from transformers import GenerationConfig

    config = GenerationConfig(
        max_new_tokens=BUDGET,
        do_sample=False,
        eos_token_id=list(loaded.end_tokens),
        pad_token_id=loaded.pad_token,
    )
    loaded.model.generation_config = config
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    found: list[list[int]] = [[] for _ in prompts]
    for first in range(0, len(order), BATCH):
        batch = [prompts[i] for i in order[first : first + BATCH]]
        padding = [len(batch[0]) - len(ids) for ids in batch]
        rows = [[loaded.pad_token] * pad + ids for pad, ids in zip(padding, batch, strict=True)]
        mask = [[0] * pad + [1] * len(ids) for pad, ids in zip(padding, batch, strict=True)]
        with torch.inference_mode():
            output = loaded.model.generate(
                input_ids=torch.tensor(rows), attention_mask=torch.tensor(mask)
            )
        answers = output[:, len(batch[0]) :].tolist()
        for i, ids in zip(order[first : first + BATCH], answers, strict=True):
            found[i] = ids
    return found


def _silently(*_: Any) -> None:
    """No progress."""


CONTENDERS: dict[str, Callable[[Path], Answered]] = {
    "ours": ours,
    "ours_apart": ours_apart,
    "generate": generate,
    "lm_eval": lm_eval,
    "lm_eval_64": lambda folder: lm_eval(folder, BATCH),
}


def main(name: str, folder: str) -> None:
    """Run the contender of this name."""
    contender = CONTENDERS[name]
    print(json.dumps(asdict(contender(Path(folder)))))


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main(*sys.argv[1:])
