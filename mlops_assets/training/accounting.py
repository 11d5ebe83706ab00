"""What a training is expected to take, and what it took: memory, operations, utilisation."""

from pathlib import Path
from typing import Any

from mlops_assets.home import Home
from mlops_assets.training.arguments import uses_bf16, uses_flash_attention, uses_packed_attention
from mlops_assets.training.compute_ceiling import find_ceiling
from mlops_assets.training.device import find_device
from mlops_assets.training.encoding import Encoded
from mlops_assets.training.flops import epoch_flops
from mlops_assets.training.memory_plan import MemoryPlan, Training
from mlops_assets.training.model_shape import read_shape
from mlops_assets.training.peak_memory import Peak
from mlops_assets.training.spec import FinetuneSpec
from mlops_assets.training.training_log import TrainingLog
from mlops_assets.training.workload import workload_of


def describe_training(base: Path, spec: FinetuneSpec, rows: Encoded) -> Training:
    """What decides the cost of tuning the model in ``base`` on ``rows``; loads no weights."""
    return Training(
        shape=read_shape(base),
        spec=spec,
        work=workload_of(rows),
        device=find_device(),
        bf16=uses_bf16(spec),
        by_row=uses_flash_attention(spec) or uses_packed_attention(base, spec),
    )


def account(training: Training, plan: MemoryPlan, log: TrainingLog, peak: Peak) -> dict[str, Any]:
    """What was predicted and what was used, as JSON for the artifact's summary."""
    flops = training.spec.epochs * epoch_flops(training.shape, training.spec, training.work)
    ceiling = find_ceiling(training.device, training.bf16, Home.from_environment().ceilings)
    return {
        "device": training.device.name,
        "device_count": training.device.count,
        "flops": flops,
        "ceiling_flops": ceiling.flops,
        "ceiling_source": ceiling.source,
        "model_flops_utilisation": flops / (log.seconds * ceiling.flops) if log.seconds else 0.0,
        "checkpointing": plan.checkpointing,
        "memory_plan": dict(plan.parts),
        "memory_planned": plan.peak,
        "memory_available": plan.available,
        "memory_measured": peak.size,
        "memory_measured_by": peak.source,
    }
