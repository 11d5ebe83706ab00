"""The record of a training: losses by step, validation losses, speed.

What goes into the artifact holds no time, so that the same training gives the same bytes;
the speed is kept beside it for the summary and MLflow.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mlops_assets.artifacts import LineageError

DECIMALS = 6


@dataclass(frozen=True)
class Step:
    """The mean of the steps since the one logged before."""

    step: int
    epoch: float
    loss: float
    """In `sft` the mean negative log-likelihood of an answer's token, in nats."""
    learning_rate: float
    gradient_norm: float


@dataclass(frozen=True)
class Validation:
    """The loss on the validation split after ``step`` steps."""

    step: int
    loss: float
    reward_margin: float | None = None
    """How much more the better answers are rewarded than the worse; not in `sft`."""


@dataclass
class TrainingLog:
    """Filled while training goes on."""

    steps: list[Step] = field(default_factory=list)
    validations: list[Validation] = field(default_factory=list)
    last_step: int = 0
    """Optimiser steps taken; the last few may be too few for a point of their own."""
    tokens: int = 0
    """Tokens trained on, prompts included."""
    seconds: float = 0.0
    """Spent in training steps, validation not counted."""

    @property
    def tokens_per_second(self) -> float:
        """Mean speed of the training steps."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def add_step(self, step: Step) -> None:
        """Record a step. Raises LineageError when training has diverged."""
        self._require_finite(step.loss, step.step)
        self.steps.append(step)

    def add_validation(self, validation: Validation) -> None:
        """Record a validation loss. Raises LineageError when it is not finite."""
        self._require_finite(validation.loss, validation.step)
        self.validations.append(validation)

    def content(self) -> dict[str, Any]:
        """JSON for the artifact."""
        return {
            "tokens": self.tokens,
            "steps": [_rounded(vars(step)) for step in self.steps],
            "validation": [_rounded(vars(point)) for point in self.validations],
        }

    def state(self) -> dict[str, Any]:
        """All of it as JSON values, for a checkpoint."""
        return asdict(self)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Become the log that ``state`` was taken from: its times go on, too."""
        for name, value in state.items():
            setattr(self, name, value)
        self.steps = [Step(**step) for step in state["steps"]]
        self.validations = [Validation(**point) for point in state["validations"]]

    def _require_finite(self, loss: float, step: int) -> None:
        if not math.isfinite(loss):
            raise LineageError(
                f"Training diverged: the loss is {loss} at step {step}.",
                "Lower lora_adapter's learning_rate, or raise warmup_share.",
            )


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: float(f"{value:.{DECIMALS}g}") if isinstance(value, float) else value
        for name, value in values.items()
        if value is not None
    }
