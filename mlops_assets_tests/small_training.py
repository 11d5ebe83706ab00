"""A training of a dozen steps with everything random in it, for tests that interrupt it."""

import json
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

from mlops_assets.artifacts import Artifact, ArtifactStore, Recipe, digest_json
from mlops_assets.refs import BaseModelRef, Row, SplitsRef, Versions, write_jsonl
from mlops_assets.trackers import TrackedRun
from mlops_assets.training.base_model import provide
from mlops_assets.training.callbacks import make_recorder
from mlops_assets.training.finetune import finetune
from mlops_assets.training.spec import BaseModelSpec, FinetuneSpec

QUEUES = {"billing": "invoice charged twice", "shipping": "parcel late", "login": "password"}
BASE = BaseModelSpec(
    vocabulary=400, hidden_size=32, mlp_size=64, layers=1, heads=1, pretrain_batch_tokens=256
)
SPEC = FinetuneSpec(
    rank=4,
    alpha=4,
    dropout=0.1,
    word_dropout=0.1,
    label_smoothing=0.05,
    epochs=3,
    accumulation=2,
    pack_tokens=192,
    learning_rate=1e-2,
    checkpoint_seconds=0,
)
RARELY = SPEC.model_copy(update={"checkpoint_seconds": 3600})
LOG_POINTS = 3  # a point of the log is then the mean loss of four steps
STEPS = 12
"""Optimiser steps of ``SPEC``: four in each epoch."""


def make_inputs(store: ArtifactStore) -> tuple[SplitsRef, BaseModelRef]:
    """Eighty rows and a base model, made in ``store`` or found there."""
    numbers = {"train": range(80), "validation": range(80, 100), "test": range(100, 110)}
    rows = {name: [_row(number) for number in some] for name, some in numbers.items()}
    splits = put_splits(store, rows, {"queue": tuple(QUEUES)})
    return splits, provide(store, splits, BASE)


def put_splits(
    store: ArtifactStore,
    rows: Mapping[str, Sequence[Row]],
    labels: Mapping[str, tuple[str, ...]],
) -> SplitsRef:
    """The rows as the asset `dataset_splits` leaves them."""

    def produce(directory: Path) -> dict[str, str]:
        for name, part in rows.items():
            write_jsonl(directory / f"{name}.jsonl", part)
        return {}

    known = digest_json({name: [asdict(row) for row in part] for name, part in rows.items()})
    artifact = store.build(Recipe("dataset_splits", {"rows": known}, {}, "1"), produce)
    counts = {name: len(part) for name, part in rows.items()}
    return SplitsRef(artifact, Versions("d" * 32, "p" * 64, "e" * 64), counts, labels)


def train(root: Path, spec: FinetuneSpec = SPEC) -> Artifact:
    """Train in the store at ``root``, or go on with what was begun there."""
    store = ArtifactStore(root)
    splits, base = make_inputs(store)
    with patch("mlops_assets.training.arguments.LOG_POINTS", LOG_POINTS):
        return finetune(store, splits, base, spec, no_tracker, "run").artifact


def train_until_killed(root: Path, where: str) -> None:
    """Train in ``root`` and die of SIGKILL: at a step, or in the middle of a checkpoint."""
    if where.isdigit():
        with acting_at_step(int(where), die):
            train(root)
    with patch(f"mlops_assets.artifacts.{where}", side_effect=die):
        train(root)


@contextmanager
def acting_at_step(step: int, act: Any) -> Iterator[None]:
    """Call ``act`` when ``step`` ends, before its checkpoint."""

    def make(*words: Any) -> Any:
        recorder = make_recorder(*words)
        record = recorder.on_step_end

        def on_step_end(args: Any, state: Any, *rest: Any, **named: Any) -> None:
            record(args, state, *rest, **named)
            if state.global_step == step:
                act()

        recorder.on_step_end = on_step_end
        return recorder

    with patch("mlops_assets.training.finetune.make_recorder", make):
        yield


class Stopped(BaseException):
    """As Dagster's: nothing on the way takes it for an error."""


def stop(*_: Any) -> None:
    """In the place of dying, where the test wants to look at what is left."""
    raise Stopped


def die(*_: Any) -> None:
    """As a process dies whose machine is taken away."""
    os.kill(os.getpid(), signal.SIGKILL)


def saved_steps(root: Path) -> list[int]:
    """The steps of the checkpoints that lie in the store."""
    found = ArtifactStore(root).checkpoints.glob("*/step-*")
    return sorted(int(path.name.removeprefix("step-")) for path in found)


def no_tracker() -> AbstractContextManager[TrackedRun]:
    """A run of which nobody is told."""
    return nullcontext(TrackedRun("mlflow-run"))


def _row(number: int) -> Row:
    good, bad = (list(QUEUES)[(number + shift) % 3] for shift in (0, 1))
    asked = {"role": "user", "content": f"Hello, {QUEUES[good]} number {number % 17}!"}
    messages = (asked, _answer(good))
    return Row(f"r{number}", "", f"g{number}", messages, {}, rejected=_answer(bad))


def _answer(queue: str) -> dict[str, str]:
    content = json.dumps({"queue": queue}, separators=(",", ":"))
    return {"role": "assistant", "content": content}
