"""Lets a transformers ``Trainer`` save itself while it works, and go on where another stopped.

The four methods with which a trainer writes and reads checkpoints are replaced on the object,
so every method's trainer is served alike. Which steps are left and which batches are skipped
stays the trainer's business: its loop does that exactly.
"""

import logging
import time
from collections.abc import Mapping
from typing import Any

from mlops_assets.cost import Meter, Usage
from mlops_assets.training import trainer_state
from mlops_assets.training.checkpoints import Checkpoints
from mlops_assets.training.interruption import Interruption
from mlops_assets.training.training_log import TrainingLog

logger = logging.getLogger(__name__)

LARGEST_SHARE = 0.01
"""Of the time, spent on writing checkpoints. Young's interval, sqrt(2 * cost * time between
failures), comes to the same for a cost of 2 s and a failure every 6 hours."""


def make_resumable(
    trainer: Any,
    checkpoints: Checkpoints,
    log: TrainingLog,
    meter: Meter,
    interruption: Interruption,
    seconds: float,
) -> str | None:
    """Let ``trainer`` write a checkpoint every ``seconds``, and when it is interrupted.

    Returns the checkpoint to give to ``trainer.train``, with ``log`` as it was then, or None.
    ``meter`` goes on from what was used up to it.
    """
    start = checkpoints.newest_complete()
    saved = trainer_state.read_state(start) if start else None
    if saved is not None:
        log.restore(saved["log"])
        meter.go_on_from(Usage(**saved["usage"]))

    keeper = _make_keeper(trainer, checkpoints, log, meter, saved, interruption, seconds)
    trainer.add_callback(keeper)
    trainer._save_checkpoint = keeper.save
    if start is not None:
        trainer._load_from_checkpoint = lambda _: trainer_state.load_weights(trainer.model, start)
        trainer._load_optimizer_and_scheduler = lambda _: trainer_state.load_optimizer(
            trainer, start
        )
        trainer._load_rng_state = lambda _: trainer_state.load_random(start)
    return str(start) if start else None


def _make_keeper(
    trainer: Any,
    checkpoints: Checkpoints,
    log: TrainingLog,
    meter: Meter,
    saved: Mapping[str, Any] | None,
    interruption: Interruption,
    seconds: float,
) -> Any:
    from transformers import TrainerCallback

    class Keeper(TrainerCallback):  # type: ignore[misc]
        """Saves when it is time, and lets an interruption through once that is done."""

        def on_train_begin(self, _args: Any, state: Any, *_: Any, **__: Any) -> None:
            self.due = time.monotonic() + seconds
            if saved is not None:
                trainer_state.load_spans(trainer, saved["spans"])
                logger.info("resuming at step %d of %d", state.global_step, state.max_steps)

        def on_step_end(self, _args: Any, _state: Any, control: Any, **_: Any) -> None:
            # The trainer logs and validates first, then calls `save`.
            if interruption.received is not None or time.monotonic() >= self.due:
                control.should_save = True

        def save(self, _model: Any, _trial: Any) -> None:
            started = time.monotonic()
            trainer.store_flos()
            step = trainer.state.global_step
            checkpoints.write(step, lambda path: trainer_state.save(trainer, log, meter, path))
            now = time.monotonic()
            rarer = (now - started) / LARGEST_SHARE if seconds else 0.0
            self.due = now + max(seconds, rarer)

        def on_save(self, _args: Any, state: Any, *_: Any, **__: Any) -> None:
            if interruption.received is not None:
                logger.warning("saved at step %d of %d", state.global_step, state.max_steps)
                interruption.pass_on()

    return Keeper()
