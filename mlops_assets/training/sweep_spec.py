"""What a sweep varies: a YAML file beside the profiles, checked before the first trial."""

import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from mlops_assets.artifacts import LineageError
from mlops_assets.profiles import asset_config, find_profile, load_profile
from mlops_assets.training.finetune import FIGURES, KIND
from mlops_assets.training.spec import FinetuneSpec

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

PRUNED_BY = "validation_loss"  # the one figure that is known before the end
MOST_CORNERS = 20_000  # combinations of bounds and choices that are checked one by one
Value = bool | int | float | str


class Range(BaseModel):
    """Numbers from ``low`` to ``high``, both included."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: float = Field(description="The smallest value tried.")
    high: float = Field(description="The largest value tried.")
    log: bool = Field(False, description="Whether magnitudes count rather than differences.")
    step: float | None = Field(None, gt=0, description="Only low, low + step, low + 2 step ...")

    @model_validator(mode="after")
    def _is_a_range(self) -> "Range":
        if not self.low < self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        if self.log and (self.step is not None or self.low <= 0):
            raise ValueError("with log, low must be above 0 and step cannot be given")
        steps = (self.high - self.low) / (self.step or self.high - self.low)
        if not math.isclose(steps, round(steps)):
            raise ValueError(f"steps of {self.step:g} from {self.low:g} do not meet {self.high:g}")
        return self

    @property
    def ends(self) -> tuple[float, float]:
        """The smallest and the largest value."""
        return self.low, self.high


class Choices(BaseModel):
    """One of a few values."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    choices: tuple[Value, ...] = Field(min_length=2, description="The values tried.")

    @model_validator(mode="after")
    def _differ(self) -> "Choices":
        if len(set(self.choices)) != len(self.choices):
            raise ValueError("the choices must differ")
        return self

    @property
    def ends(self) -> tuple[Value, ...]:
        """All values."""
        return self.choices


def _form(value: object) -> str:
    given = isinstance(value, Mapping) and "choices" in value
    return "Choices" if given or isinstance(value, Choices) else "Range"


Space = Annotated[
    Annotated[Range, Tag("Range")] | Annotated[Choices, Tag("Choices")], Discriminator(_form)
]


class SweepSpec(BaseModel):
    """A sweep over settings of `lora_adapter`; what the space leaves out is the profile's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    profile: str = Field(
        description="Profile whose settings of `lora_adapter` are varied: a name or a path."
    )
    objective: str = Field(
        PRUNED_BY, description="Figure of the adapter that is compared; none is of the test split."
    )
    direction: str = Field(
        "minimize", pattern="^(minimize|maximize)$", description="Which way is better."
    )
    trials: int = Field(20, ge=1, le=10_000, description="Trainings, pruned ones counted.")
    startup_trials: int = Field(
        5, ge=1, le=1000, description="Trials drawn at random, and none pruned before as many end."
    )
    pruner: str = Field(
        "median",
        pattern="^(median|none)$",
        description="`median` ends a training whose validation loss is worse than the median of"
        " the earlier ones at the same share of the training.",
    )
    seed: int = Field(0, ge=0, lt=2**31 - 10_000, description="Of the sampler.")
    space: dict[str, Space] = Field(min_length=1, description="What is tried.")

    @model_validator(mode="after")
    def _objective_is_known(self) -> "SweepSpec":
        if self.objective not in FIGURES:
            raise ValueError(f"objective is none of {', '.join(FIGURES)}")
        if self.pruner != "none" and (self.objective, self.direction) != (PRUNED_BY, "minimize"):
            raise ValueError(f"only {PRUNED_BY} can be pruned by, minimised: set pruner to none")
        return self


def load_sweep(path: Path) -> tuple[SweepSpec, dict[str, Any]]:
    """The sweep in the file and the profile it varies, both checked.

    Raises LineageError for what is no sweep, and for a space that `lora_adapter` refuses in
    any combination of its bounds and choices: the tenth trial is too late to learn of it.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        spec = SweepSpec.model_validate(content)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise LineageError(f"The sweep {path} cannot be read: {error}.", "Mend it.") from error
    except ValidationError as error:
        problems = "; ".join(sorted({_explain(item) for item in error.errors()}))
        raise _invalid(path, problems) from error
    profile = load_profile(find_profile(spec.profile, f"The sweep {path}"))
    if problem := next(_refused(spec, asset_config(KIND, profile)), None):
        raise _invalid(path, problem)
    return spec, profile


def distributions(spec: SweepSpec) -> dict[str, "BaseDistribution"]:
    """The space in Optuna's terms."""
    return {name: _distribution(name, space) for name, space in spec.space.items()}


def _distribution(name: str, space: Range | Choices) -> "BaseDistribution":
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if isinstance(space, Choices):
        return CategoricalDistribution(space.choices)
    if FinetuneSpec.model_fields[name].annotation is int:
        step = int(space.step or 1)
        return IntDistribution(int(space.low), int(space.high), log=space.log, step=step)
    return FloatDistribution(space.low, space.high, log=space.log, step=space.step)


def _refused(spec: SweepSpec, settings: Mapping[str, Any]) -> Iterator[str]:
    """Why `lora_adapter` would refuse a part of the space."""
    fields = FinetuneSpec.model_fields
    for name, space in spec.space.items():
        if name not in fields:
            yield f"space.{name}: lora_adapter has no such setting"
        elif isinstance(space, Range):
            yield from _no_range(name, fields[name].annotation, space)
    corners = math.prod(len(space.ends) for space in spec.space.values())
    if corners > MOST_CORNERS:
        yield f"space: {corners:,} combinations of bounds and choices, {MOST_CORNERS:,} at most"
    for values in itertools.product(*(space.ends for space in spec.space.values())):
        tried: dict[str, Any] = dict(zip(spec.space, values, strict=True))
        try:
            FinetuneSpec(**dict(settings) | tried)
        except ValidationError as error:
            given = ", ".join(f"{name}: {value}" for name, value in tried.items())
            yield f"{_explain(error.errors()[0])} (with {given})"


def _no_range(name: str, kind: Any, space: Range) -> Iterator[str]:
    if kind not in (int, float):
        yield f"space.{name}: is no number, give choices"
    given = (space.low, space.high, space.step or 1.0)
    if kind is int and not all(value.is_integer() for value in given):
        yield f"space.{name}: low, high and step must be whole numbers"


def _explain(detail: Any) -> str:
    where = ".".join(str(part) for part in detail["loc"] if part not in ("Range", "Choices"))
    message = str(detail["ctx"]["error"]) if detail["type"] == "value_error" else detail["msg"]
    return f"{where}: {message[0].lower()}{message[1:]}" if where else message


def _invalid(path: Path, problem: str) -> LineageError:
    return LineageError(
        f"The sweep {path} is not valid: {problem}.", "Correct the file and run again."
    )
