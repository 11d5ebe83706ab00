"""What a training took, as the Markdown tables that the asset shows."""

from collections.abc import Mapping
from typing import Any

from mlops_assets.cost import Rates, usage_of
from mlops_assets.training.memory_plan import gibibytes


def memory_table(summary: Mapping[str, Any]) -> str:
    """The plan's parts, then what was free and what was really taken."""
    parts = {name: size for name, size in summary["memory_plan"].items() if size}
    measured = summary["memory_measured"]
    rows = [(name, gibibytes(size)) for name, size in parts.items()]
    rows += [
        ("**predicted peak**", gibibytes(summary["memory_planned"])),
        ("available", gibibytes(summary["memory_available"])),
        ("activations are", "recomputed" if summary["checkpointing"] else "kept"),
        (
            f"measured peak ({summary['memory_measured_by'] or 'the system does not tell'})",
            "unknown" if measured is None else gibibytes(measured),
        ),
    ]
    return _table("memory", rows)


def cost_table(summary: Mapping[str, Any], rates: Rates) -> str:
    """Tokens, time, device, operations, utilisation, energy and money at these rates."""
    spent = usage_of(summary).priced(rates)
    ceiling = f"{summary['ceiling_flops']:.2e} FLOP/s, {summary['ceiling_source']}"
    rows = [
        ("tokens", f"{summary['tokens']:,}"),
        ("seconds", f"{spent['wall_seconds']}, of which in steps {summary['train_seconds']}"),
        ("device", f"{summary['device_count']} x {summary['device']}"),
        ("FLOPs", f"{summary['flops']:.3e}"),
        ("model FLOPs utilisation", f"{summary['model_flops_utilisation']:.1%} of {ceiling}"),
        ("energy", f"{spent['energy_kwh']:.6f} kWh ({spent['energy_source']})"),
        (
            "money",
            f"{spent['cost']:.4f} {spent['currency']}"
            f" at {rates.price_per_hour:g} {spent['currency']} an hour",
        ),
    ]
    return _table("cost", rows)


def _table(title: str, rows: list[tuple[str, str]]) -> str:
    lines = [f"| {title} | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    return "\n".join(lines)
