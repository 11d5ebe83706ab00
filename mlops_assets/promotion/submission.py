"""What is handed in to be registered: a candidate with everything that led to it.

The parts come from different assets, each with its own latest; they have to speak of the same
bundle, or nothing is registered.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from mlops_assets.artifacts import SHORT, ArtifactStore, LineageError
from mlops_assets.cost import Rates, usage_of
from mlops_assets.licenses import UNKNOWN
from mlops_assets.refs import AdapterRef, BaseModelRef, EvalReportRef, GateRef, SplitsRef
from mlops_assets.verdicts import read_gate


class RegistrationSpec(BaseModel):
    """Settings of the registration."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_package_mib: int = Field(
        2048,
        ge=1,
        le=1_048_576,
        description="Largest package that is registered, in MiB (1,048,576 bytes).",
    )
    intended_use: str = Field(
        "",
        max_length=2000,
        description="What the model is for, as the model card says it; empty: what follows from"
        " the form of its answers.",
    )


@dataclass(frozen=True)
class Submission:
    """A candidate and its evidence. Making one of parts that do not agree is refused."""

    name: str
    """Of the model in the registry."""
    splits: SplitsRef
    base: BaseModelRef
    adapter: AdapterRef
    evaluated: EvalReportRef
    gate: GateRef
    rates: Rates = field(default_factory=Rates)
    spec: RegistrationSpec = field(default_factory=RegistrationSpec)

    def __post_init__(self) -> None:
        bundle = self.evaluated.bundle
        pairs = {
            "`lora_adapter`": (self.adapter.artifact.digest, bundle.adapter.digest),
            "`base_model`": (self.base.artifact.digest, bundle.base.digest),
            "`gate_verdict`'s bundle": (self.gate.bundle.digest, bundle.digest),
            "`gate_verdict`'s report": (self.gate.report.digest, self.evaluated.artifact.digest),
        }
        if other := [name for name, (ours, theirs) in pairs.items() if ours != theirs]:
            raise LineageError(
                f"The evaluation report is of another bundle than the latest {', '.join(other)}.",
                "Materialise `eval_report` and what follows it again.",
            )

    @property
    def data_license(self) -> str:
        """Of the data that trained the adapter, as the settings state it now.

        Where newer data has come meanwhile: as they stated it when the adapter was trained.
        """
        settings: Mapping[str, Any] = self.splits.settings
        if self.splits.versions.data != self.adapter.versions.data:
            settings = self.training_settings
        return str(settings.get("raw_dataset", {}).get("license") or UNKNOWN)

    @property
    def training_settings(self) -> dict[str, dict[str, Any]]:
        """Settings of the assets up to the adapter, by asset, as they were when it was trained."""
        settings: dict[str, dict[str, Any]] = json.loads(_stated(self.adapter, "settings"))
        return settings


@dataclass(frozen=True)
class TrainingCost:
    """What the adapter took; every number is there and finite."""

    tokens: int
    seconds: float
    flops: float
    """Floating-point operations of the training."""
    energy_kwh: float
    energy_source: str
    """The counter that was read, or the power that was assumed."""
    money: float
    currency: str
    """ISO 4217 code."""

    def as_tags(self) -> dict[str, str]:
        """By the names that the registry shows."""
        return {f"training_{name}": f"{value}" for name, value in vars(self).items()}


def training_cost(adapter: AdapterRef, rates: Rates) -> TrainingCost:
    """What the adapter's own record says it took, at today's rates.

    Raises LineageError where the record lacks a number.
    """
    summary = {name: _stated(adapter, name) for name in ("tokens", "flops", "usage")}
    priced = usage_of(summary).priced(rates)
    cost = TrainingCost(
        tokens=summary["tokens"],
        seconds=float(priced["wall_seconds"]),
        flops=float(summary["flops"]),
        energy_kwh=float(priced["energy_kwh"]),
        energy_source=str(priced["energy_source"]),
        money=float(priced["cost"]),
        currency=str(priced["currency"]),
    )
    numbers = (value for value in vars(cost).values() if isinstance(value, int | float))
    if not all(math.isfinite(value) and value >= 0 for value in numbers):
        raise LineageError(
            f"The cost of the adapter {adapter.artifact.key[:SHORT]} is not finite.",
            "Correct the resource `cost`, or delete the adapter's directory and train it again.",
        )
    return cost


def whole_settings(store: ArtifactStore, submission: Submission) -> bytes:
    """``config.yaml``: every setting that led to the version, as run config that Dagster takes.

    `dagster job execute -c config.yaml` asks for the same version again.
    """
    judged = {
        "eval_report": dict(store.recipe(submission.evaluated.artifact).spec),
        "gate_verdict": dict(read_gate(store, submission.gate).spec),
        "registered_model": submission.spec.model_dump(mode="json"),
    }
    settings = submission.training_settings | judged
    content = {
        "resources": {
            "workspace": {"config": {"model": submission.name}},
            "cost": {"config": dict(vars(submission.rates))},
        },
        "ops": {asset: {"config": values} for asset, values in settings.items()},
    }
    # Not sorted: the order of the labels counts.
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode()


def _stated(adapter: AdapterRef, name: str) -> Any:
    """An entry of the adapter's summary. Raises LineageError when it is not there."""
    value = adapter.artifact.summary.get(name)
    if value is None:
        raise LineageError(
            f"The adapter {adapter.artifact.key[:SHORT]} does not say its {name}.",
            "Delete its directory in the artifact store, and materialise `lora_adapter` again.",
        )
    return value
