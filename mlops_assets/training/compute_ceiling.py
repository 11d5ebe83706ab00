"""What the device could compute at best: its data sheet, or a measured matrix product.

Data sheets give the dense bf16 peak of the tensor cores. A CPU, or a GPU that is not listed,
is measured: the fastest of a few square products in the type that training uses, on as many
threads; once for each machine, then read from ``MLOPS_HOME``.
"""

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path

from mlops_assets.artifacts import atomic_write, canonical_json
from mlops_assets.training.device import Device

BF16_PEAKS = {  # whole words of torch's device name, the more special first: operations a second
    "GB200": 2500e12,
    "B200": 2250e12,
    "GH200": 990e12,
    "H200 NVL": 835e12,
    "H200": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,  # SXM
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "A10G": 70e12,
    "A10": 125e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}
"""NVIDIA's data sheets, dense, accumulated in fp32."""
PARTIAL = re.compile(r"\b(MIG|Laptop|D)\b")  # less than the sheet of the name says
SIZES = {"cpu": (512, 1024), "cuda": (4096, 8192)}
SECONDS_EACH = 0.1


@dataclass(frozen=True)
class Ceiling:
    """Operations a second that the device can do at most."""

    flops: float
    source: str
    """``data sheet`` or ``measured fp32 product, 2 threads`` and the like."""


def find_ceiling(device: Device, bf16: bool, cache: Path) -> Ceiling:
    """The ceiling for training in this type; ``cache`` is the file that remembers measurements."""
    import torch

    if bf16 and device.kind == "cuda":
        for name, flops in BF16_PEAKS.items():
            if re.search(rf"\b{name}\b", device.name) and not PARTIAL.search(device.name):
                return Ceiling(flops, f"data sheet of {name}, bf16")
    kind = "bf16" if bf16 else "fp32"
    source = f"measured {kind} matrix product"
    if device.kind == "cpu":
        source += f", {torch.get_num_threads()} threads"
    key = f"{device.name}, {source}, torch {torch.__version__}"
    known: dict[str, float] = json.loads(cache.read_bytes()) if cache.is_file() else {}
    if key not in known:
        known[key] = measure_product(device.kind, bf16)
        with atomic_write(cache) as temporary:
            temporary.write_bytes(canonical_json(known))
    return Ceiling(known[key], source)


def measure_product(kind: str, bf16: bool) -> float:
    """Operations a second of the fastest square product, on torch's present threads."""
    return max(_product_rate(size, kind, bf16) for size in SIZES[kind])


def _product_rate(size: int, kind: str, bf16: bool) -> float:
    import torch

    left, right = (
        torch.randn(size, size, device=kind, dtype=torch.bfloat16 if bf16 else torch.float32)
        for _ in range(2)
    )
    best, until = 0.0, time.perf_counter() + SECONDS_EACH
    while not best or time.perf_counter() < until:
        _wait(kind)
        started = time.perf_counter()
        torch.mm(left, right)
        _wait(kind)
        best = max(best, 2 * size**3 / (time.perf_counter() - started))
    return best


def _wait(kind: str) -> None:
    import torch

    if kind == "cuda":
        torch.cuda.synchronize()
