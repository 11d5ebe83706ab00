"""What the trainer calls while it works: progress, the log, and the run's metrics by step."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mlops_assets.progress import Advance
from mlops_assets.trackers import TrackedRun
from mlops_assets.training.training_log import Step, TrainingLog, Validation

Watch = Callable[[float, float], None]
"""Called with the share of the training that is done (0 to 1) and the validation loss."""

if TYPE_CHECKING:
    from transformers import TrainerCallback


def make_recorder(log: TrainingLog, advance: Advance, run: TrackedRun) -> "TrainerCallback":
    """A callback that fills ``log``, advances the bar and logs to ``run``."""
    from transformers import TrainerCallback

    class Recorder(TrainerCallback):  # type: ignore[misc]
        """The clock runs from the first step to the last, minus the validations.

        A resumed training goes on with the times and points of its first part.
        """

        def on_train_begin(self, _args: Any, state: Any, *_: Any, **__: Any) -> None:
            self.clock = time.monotonic() - log.seconds
            self.logged = log.tokens, log.seconds
            for step in log.steps:
                self._send_step(step)
            for point in log.validations:
                run.log_metrics({"validation_loss": point.loss}, point.step)
            advance(state.global_step, "")

        def on_step_end(self, _args: Any, state: Any, *_: Any, **__: Any) -> None:
            log.last_step, log.tokens = state.global_step, int(state.num_input_tokens_seen)
            log.seconds = time.monotonic() - self.clock
            advance(1, f"loss {log.steps[-1].loss:.3f}" if log.steps else "")

        def on_log(
            self, _args: Any, state: Any, *_: Any, logs: dict[str, float], **__: Any
        ) -> None:
            step = state.global_step
            if "eval_loss" in logs:
                self.clock += logs["eval_runtime"]
                margin = logs.get("eval_rewards/margins")
                log.add_validation(Validation(step, logs["eval_loss"], margin))
                run.log_metrics({"validation_loss": logs["eval_loss"]}, step)
                if margin is not None:
                    run.log_metrics({"validation_reward_margin": margin}, step)
            elif "loss" in logs:
                self._record_step(step, logs)

        def _record_step(self, step: int, logs: dict[str, float]) -> None:
            norm = logs.get("grad_norm", 0.0)
            point = Step(step, logs["epoch"], logs["loss"], logs["learning_rate"], norm)
            tokens, seconds = self.logged
            speed = (log.tokens - tokens) / max(log.seconds - seconds, 1e-9)
            self.logged = log.tokens, log.seconds
            log.add_step(point)
            self._send_step(point)
            run.log_metrics({"tokens_per_second": speed}, step)

        def _send_step(self, point: Step) -> None:
            metrics = {"loss": point.loss, "learning_rate": point.learning_rate}
            run.log_metrics(metrics, point.step)

    return Recorder()


def make_watcher(watch: Watch, log: TrainingLog) -> "TrainerCallback":
    """A callback that hands every validation loss to ``watch``, which may raise.

    Those that stand in ``log`` when a training goes on come first: nobody here has seen them.
    """
    from transformers import TrainerCallback

    class Watcher(TrainerCallback):  # type: ignore[misc]
        """The recorder sees a loss first, and refuses one that is not finite."""

        def on_train_begin(self, _args: Any, state: Any, *_: Any, **__: Any) -> None:
            for point in log.validations:
                watch(point.step / state.max_steps, point.loss)

        def on_evaluate(
            self, _args: Any, state: Any, *_: Any, metrics: dict[str, float], **__: Any
        ) -> None:
            watch(state.global_step / state.max_steps, metrics["eval_loss"])

    return Watcher()
