"""What an adapter's manifest says of where it comes from, beside its recipe.

`mlops reproduce` needs it: the settings of every asset on the way from the raw data, and the
hardware, because the last bits of a sum depend on the processor's instructions.
"""

import hashlib
import importlib.metadata
import json
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlops_assets.refs import BaseModelRef, SplitsRef
from mlops_assets.training.spec import FinetuneSpec

CPU_INFO = Path("/proc/cpuinfo")
LIBRARIES = ("torch", "transformers", "tokenizers", "trl", "peft", "numpy")


def make_record(splits: SplitsRef, base: BaseModelRef, spec: FinetuneSpec) -> dict[str, Any]:
    """The entries of an adapter's summary that say what it was made from, by what, on what."""
    settings = {**splits.settings, **base.settings, "lora_adapter": spec.model_dump(mode="json")}
    return {
        "versions": asdict(splits.versions),
        "splits_digest": splits.artifact.digest,
        # Text, because a manifest's keys are sorted and the order of the labels counts.
        "settings": json.dumps(settings),
        "hardware": hardware(),
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def hardware() -> dict[str, str]:
    """What decides the last bits of a float besides code and seed; on a CPU equal means equal bits.

    To be asked while the threads are those that train.
    """
    import torch

    build = hashlib.sha256(torch.__config__.show().encode()).hexdigest()[:12]
    gpus = [torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())]
    return {
        "cpu": _cpu_model(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "torch_build": f"{torch.__version__} {build}",
        "gpu": ", ".join(gpus) or "none",
        "number_of_threads": str(torch.get_num_threads()),
    }


def _cpu_model() -> str:
    lines = CPU_INFO.read_text(encoding="utf-8").splitlines() if CPU_INFO.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{platform.machine()} {next(named, platform.processor())}".strip()
