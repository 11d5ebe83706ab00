"""Tokens a second that an evaluation generates, beside lm-evaluation-harness and transformers.

The merged model of the default lineage answers its test split, first as the shipped rows are and
then with the system prompt `label-list` before each. Every contender runs in a process of its
own, in rounds that take turns; the first round is dropped and the rest give medians.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_assets.home import Home
from mlops_assets.profiles import PROJECT
from mlops_assets.prompts import prompt_text
from mlops_assets.refs import EvalReportRef, SplitsRef, read_rows
from mlops_assets.template_messages import with_system
from mlops_assets_tests.commands import execute_job
from mlops_assets_tests.plain_generation import MODEL, prepare

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
CONTENDERS: dict[str, tuple[str, dict[str, str]]] = {
    "ours": ("ours", {}),
    "ours, one thread": ("ours", ONE_THREAD),
    "ours, one thread, nothing shared": ("ours_apart", ONE_THREAD),
    "`generate`, one thread": ("generate", ONE_THREAD),
    "lm_eval, batch size auto": ("lm_eval", {}),
    "lm_eval, batch size 64": ("lm_eval_64", {}),
    "lm_eval, 64, one thread": ("lm_eval_64", ONE_THREAD),
}
PEER = "lm_eval, batch size auto"


@dataclass(frozen=True)
class Run:
    """What one contender did in one round."""

    generating: float
    """Seconds from the prompts' texts to the answers' texts."""
    cpu: float
    """The same on the processor, all threads together."""
    process: float
    """Seconds of the whole process."""
    answers: list[str]


def generation() -> None:
    """One table for the rows as they are, and one with a prompt that all begin with."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home")
        run = execute_job("lineage", home=home.root)
        if run.code:
            sys.exit(f"The default lineage did not run:\n{run.output}")
        for prompt in ("none", "label-list"):
            print_table(home, prompt, Path(folder) / prompt, ROUNDS)


def print_table(home: Home, prompt: str, folder: Path, rounds: int) -> None:
    """Run every contender over the lineage in ``home`` with this system prompt."""
    folder.mkdir()
    report, splits = home.latest("eval_report"), home.latest("dataset_splits")
    assert isinstance(report, EvalReportRef)
    assert isinstance(splits, SplitsRef)
    system = prompt_text(prompt, splits.labels)
    test = home.store.path(splits.artifact) / "test.jsonl"
    rows = [with_system(system, row) for row in read_rows(test)]
    prepare(home.store, report.bundle, rows, folder)
    done = [{name: _run(name, folder) for name in CONTENDERS} for _ in range(rounds + 1)][1:]
    counts = {name: count_tokens(folder, done[0][name].answers) for name in CONTENDERS}

    def median(name: str, field: str) -> float:
        return statistics.median(getattr(one[name], field) for one in done)

    def speed(name: str, field: str) -> float:
        return counts[name] / median(name, field)

    tokens = f"{counts['ours']:,} tokens answered to {len(rows)} prompts"
    print(f"\nGeneration, {tokens}, system prompt `{prompt}`, median of {rounds}\n")
    print("| contender | tokens/s | of lm_eval | CPU, s | process, s | of lm_eval | same answers |")
    print("|---|---|---|---|---|---|---|")
    for name in CONTENDERS:
        rate, whole = speed(name, "generating"), speed(name, "process")
        pairs = zip(done[0][name].answers, done[0]["ours"].answers, strict=True)
        same = sum(theirs == mine for theirs, mine in pairs)
        ratio, of_process = rate / speed(PEER, "generating"), whole / speed(PEER, "process")
        times = f"{median(name, 'cpu'):.2f} | {median(name, 'process'):.1f} | {of_process:.2f}"
        print(f"| {name} | {rate:,.0f} | {ratio:.2f} | {times} | {same} of {len(rows)} |")


def count_tokens(folder: Path, answers: list[str]) -> int:
    """Tokens that these answers came from, each with the one that ended it."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / MODEL, local_files_only=True)
    ids = tokenizer(answers, add_special_tokens=False)["input_ids"]
    return sum(len(answer) + 1 for answer in ids)


def _run(name: str, folder: Path) -> Run:
    kind, environment = CONTENDERS[name]
    words = ["-m", "mlops_assets_tests.plain_generation", kind, str(folder)]
    threads = {word for word in os.environ if word in ONE_THREAD}  # torch's own default
    started = time.monotonic()
    ended = subprocess.run(
        [sys.executable, *words],
        cwd=PROJECT,
        env={word: value for word, value in os.environ.items() if word not in threads}
        | {"PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder)}
        | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - started
    if ended.returncode:
        sys.exit(f"{name} did not run:\n{ended.stderr[-2000:]}")
    figures: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return Run(figures["seconds"], figures["cpu_seconds"], seconds, figures["answers"])
