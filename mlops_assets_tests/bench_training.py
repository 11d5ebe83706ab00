"""What a training costs beside stock TRL, and beside the same training as a plain script.

Every contender runs in a process of its own over the same rows and the same base model, in
rounds that take turns; the first round is dropped and the rest give medians.
"""

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_assets.artifacts import digest_file
from mlops_assets.home import Home
from mlops_assets.profiles import PROJECT, asset_config, load_profile, restrict
from mlops_assets.refs import AdapterRef
from mlops_assets.training.adapters import WEIGHTS
from mlops_assets_tests.commands import run_command
from mlops_assets_tests.plain_training import answer_loss

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
UPSTREAM = ("raw_dataset", "validated_dataset", "dataset_splits", "base_model")
EPOCHS = {"tiny": (1, 2), "banking77": (2,)}
REGULARISERS = {"word_dropout", "label_smoothing"}  # another loss than TRL's


@dataclass(frozen=True)
class Trained:
    """One training of one contender."""

    seconds: float
    """From the process' start to its end."""
    cpu_seconds: float
    """Of all its threads: what another load on the machine disturbs least."""
    tokens_per_second: float
    """Real ones, without padding, in the training itself."""
    adapter: Path
    utilisation: float | None = None
    """Share of the measured matrix product, where the contender knows it."""


def training() -> None:
    """The asset beside stock TRL and a plain script, on the shipped tickets and Banking77."""
    profiles = ["tiny"] + (["banking77"] if os.environ.get("BANKING77_DIR") else [])
    for profile in profiles:
        for epochs in EPOCHS[profile]:
            with tempfile.TemporaryDirectory() as folder:
                _compare(profile, epochs, Path(folder))


def _compare(profile: str, epochs: int, folder: Path) -> None:
    config = load_profile(PROJECT / "profiles" / f"{profile}.yaml")
    given = asset_config("lora_adapter", config)
    settings = {name: value for name, value in given.items() if name not in REGULARISERS}
    settings["epochs"] = epochs
    home = folder / "home"
    _materialise(home, UPSTREAM, config)
    subprocess.run(  # the database, which MLflow takes seconds to make, once for a home
        [sys.executable, "-c", "import mlflow; mlflow.MlflowClient().search_experiments()"],
        env=os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow.db'}"},
        check=True,
        capture_output=True,
    )
    contenders: dict[str, Callable[[Path, dict[str, Any]], Trained]] = {
        "our asset": lambda out, given: _asset(home, out, config, given),
        "plain script": lambda out, given: _peer("script", home, out, given),
        "stock SFTTrainer": lambda out, given: _peer("stock", home, out, given),
        "stock, one thread": lambda out, given: _peer(
            "stock", home, out, given, OMP_NUM_THREADS="1", MKL_NUM_THREADS="1"
        ),
    }
    rounds = [
        {
            # Another seed each round: from one to the next the loss moves more than by trainer.
            name: train(folder / f"{seed}-{name}", settings | {"seed": seed})
            for name, train in contenders.items()
        }
        for seed in range(ROUNDS + 1)
    ]
    _report(f"{profile}, {epochs} epochs", Home(home), rounds[1:])


def _materialise(home: Path, assets: tuple[str, ...], config: dict[str, Any]) -> float:
    """Run it in a process of its own; returns its seconds. Ends the benchmark when it fails."""
    words = ("-m", "mlops_assets_tests.materialise", ",".join(assets))
    run = run_command("python", *words, json.dumps(restrict(config, assets)), home=home)
    if run.code:
        sys.exit(f"{', '.join(assets)} did not run:\n{run.output}")
    return run.seconds


def _asset(home: Path, out: Path, config: dict[str, Any], settings: dict[str, Any]) -> Trained:
    shutil.copytree(home, out)  # a home that does not know this adapter yet
    ops = config.get("ops", {}) | {"lora_adapter": {"config": settings}}
    busy = _children_seconds()
    seconds = _materialise(out, ("lora_adapter",), config | {"ops": ops})
    busy = _children_seconds() - busy
    ref = Home(out).latest("lora_adapter")
    assert isinstance(ref, AdapterRef)
    summary = ref.artifact.summary
    return Trained(
        seconds,
        busy,
        summary["tokens_per_second"],
        Home(out).store.path(ref.artifact),
        summary["model_flops_utilisation"],
    )


def _peer(
    kind: str, home: Path, out: Path, settings: dict[str, Any], **environment: str
) -> Trained:
    out.mkdir()
    words = ["-m", "mlops_assets_tests.plain_training", kind, str(home), str(out)]
    started, busy = time.monotonic(), _children_seconds()
    ended = subprocess.run(
        [sys.executable, *words, json.dumps(settings)],
        cwd=PROJECT,
        env=os.environ | {"PYTHONWARNINGS": "ignore"} | environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    seconds, busy = time.monotonic() - started, _children_seconds() - busy
    figures = json.loads(ended.stdout.splitlines()[-1])
    return Trained(seconds, busy, figures["tokens_per_second"], out)


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _report(title: str, home: Home, rounds: list[dict[str, Trained]]) -> None:
    def median(name: str, field: str) -> float:
        return statistics.median(getattr(done[name], field) for done in rounds)

    print(f"\nTraining, profile {title}, median of {len(rounds)}\n")
    print(
        "| contender | real tokens/s | of stock | process, s | CPU, s | validation loss (range) |"
    )
    print("|---|---|---|---|---|---|")
    for name in rounds[-1]:
        losses = [answer_loss(home, done[name].adapter) for done in rounds]
        loss = f"{statistics.median(losses):.4f} ({min(losses):.4f} to {max(losses):.4f})"
        speed = median(name, "tokens_per_second")
        ratio = speed / median("stock SFTTrainer", "tokens_per_second")
        times = f"{median(name, 'seconds'):.1f} | {median(name, 'cpu_seconds'):.1f}"
        print(f"| {name} | {speed:,.0f} | {ratio:.2f} | {times} | {loss} |")
    ours, plain = (rounds[-1][name] for name in ("our asset", "plain script"))
    same = digest_file(ours.adapter / WEIGHTS) == digest_file(plain.adapter / WEIGHTS)
    wall = median("plain script", "seconds")
    extra = median("our asset", "seconds") - wall
    share = statistics.median(done["our asset"].utilisation or 0.0 for done in rounds)
    print(f"\nAsset beside script: {extra:+.1f} s ({extra / wall:+.1%}), the")
    print(f"allowance is {0.03 * wall + 5:.1f} s; same weights: {same}.")
    print(f"Share of the measured matrix product: {share:.1%}.")
