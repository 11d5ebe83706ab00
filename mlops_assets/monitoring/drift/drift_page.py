"""The drift report for people: one HTML page that needs nothing beside itself, and one picture.

The page shows what ``drift.json`` says and nothing else. It bears no date: the same report gives
the same bytes on any day.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlops_assets.html_pages import page_environment
from mlops_assets.monitoring.drift.findings import LAYERS

TEMPLATE = "drift_page.html.jinja"
DRIFTED, CALM, GREY = "#dc2626", "#0d9488", "#64748b"
DASH = "\N{EN DASH}"
SMALLEST = 1e-4  # what is told apart from 0


def write_page(path: Path, report: Mapping[str, Any], distributions: str) -> None:
    """Write the page; ``distributions`` names Evidently's page beside it, if there is one."""
    path.write_text(render(report, distributions), encoding="utf-8")


def render(report: Mapping[str, Any], distributions: str) -> str:
    """The page's HTML."""
    filters: dict[str, Callable[..., Any]] = {
        "plain": plain,
        "percent": percent,
        "number": shown,
        "sentence": sentence,
        "peak": peak,
    }
    environment = page_environment(Path(__file__).parent, filters)
    columns = _findings(report)
    return environment.get_template(TEMPLATE).render(
        report=report,
        changes=report["changes"],
        findings={name: [each for each in columns if each["layer"] == name] for name in LAYERS},
        largest=largest(columns),
        has_psi=_has_psi,
        distributions=distributions,
    )


def shown(value: float | None) -> str:
    """A number for people; a dash when it is missing."""
    if value is None:
        return DASH
    if 0 < value < SMALLEST:
        return f"< {SMALLEST:f}".rstrip("0")
    return f"{value:.4f}" if 0 < value < 0.01 else f"{value:.3f}"


def percent(value: float) -> str:
    """A share as ``84.1%``."""
    return f"{value:.1%}"


def peak(changes: Sequence[Mapping[str, Any]]) -> float:
    """The largest share among changes, which the bars' full width stands for."""
    return max(float(each[side]) for each in changes for side in ("before", "now"))


def plain(value: int) -> str:
    """A number with thousands separated."""
    return f"{value:,}"


def sentence(text: str) -> str:
    """A phrase with a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def changes_text(report: Mapping[str, Any]) -> str:
    """What changed, as lines of Markdown; of each column that drifted what it was and is."""
    drifted = [each for each in report["columns"].values() if each["drifted"]]
    lines = [f"- **{each['name']}**: {each['detail']}" for each in drifted if each["detail"]]
    new = ", ".join(each["word"] for each in report["changes"]["words"] if each["new"])
    return "\n".join([*lines, *([f"- new words: {new}"] if new else [])]) or sentence(
        report["reason"]
    )


LAYER_TABLE = {"layer": "string", "verdict": "string", "reason": "string"}
LEFT_OUT_TABLE = {"column": "string", "layer": "string", "reason": "string"}
COLUMN_TABLE = {
    "column": "string",
    "layer": "string",
    "drifted": "bool",
    "effect": "string",
    "threshold": "string",
    "p corrected": "string",
    "rows": "string",
}


def layer_rows(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """The verdict of each layer and its reason, as rows of one table."""
    return [
        {"layer": name, "verdict": each["verdict"].replace("_", " "), "reason": each["reason"]}
        for name, each in report["layers"].items()
    ]


def column_rows(report: Mapping[str, Any]) -> list[dict[str, str | bool]]:
    """The findings that take part, as rows of one table."""
    return [
        {
            "column": each["name"],
            "layer": each["layer"],
            "drifted": each["drifted"],
            "effect": shown(each["effect"]),
            "threshold": shown(each["min_effect"]),
            "p corrected": shown(each["p_corrected"]),
            "rows": f"{each['reference_n']:,}/{each['current_n']:,}{counted(each)}",
        }
        for each in sorted(_findings(report), key=lambda each: LAYERS.index(each["layer"]))
        if not each["left_out"]
    ]


def left_out_rows(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """The findings that take no part, and why, as rows of one table."""
    return [
        {"column": each["name"], "layer": each["layer"], "reason": each["left_out"]}
        for each in report["columns"].values()
        if each["left_out"]
    ]


def counted(found: Mapping[str, Any]) -> str:
    """As how many the requests of few users count, in brackets; empty where each counts."""
    effective, n = found["effective_n"], found["current_n"]
    return f" (count as {effective:,})" if effective is not None and effective < n else ""


def largest(columns: Iterable[Mapping[str, Any]]) -> float:
    """What the bars' full width stands for."""
    values = [value for each in columns for value in (each["effect"], 1.5 * each["min_effect"])]
    return min(1.0, max((value for value in values if value is not None), default=1.0))


def _findings(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The findings; one that had nothing to compare on a side shows no numbers."""
    nothing = {"effect": None, "p": None, "p_corrected": None, "psi": None}
    return [
        each if each["reference_n"] and each["current_n"] else {**each, **nothing}
        for each in report["columns"].values()
    ]


def _has_psi(columns: Sequence[Mapping[str, Any]]) -> bool:
    return any(each.get("psi") is not None for each in columns)


def write_plot(path: Path, report: Mapping[str, Any]) -> None:
    """A bar for the effect of each column that takes part, with its threshold, by layer."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    taking_part = [each for each in report["columns"].values() if not each["left_out"]]
    columns = sorted(taking_part, key=lambda each: LAYERS.index(each["layer"]))
    height = 0.9 + 0.3 * max(len(columns), 1)
    # The figure is not made through pyplot, whose state is shared between threads.
    figure = Figure(figsize=(8, height), dpi=110, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for row, each in enumerate(columns):
        colour = DRIFTED if each["drifted"] else CALM
        axes.barh(row, each["effect"] or 0.0, color=colour, height=0.62)
        axes.plot([each["min_effect"]] * 2, [row - 0.42, row + 0.42], color=GREY, linestyle=":")
    axes.set_yticks(range(len(columns)), [f"{each['layer']}: {each['name']}" for each in columns])
    axes.set(xlim=(0, largest(columns) * 1.05), ylim=(max(len(columns), 1) - 0.4, -0.6))
    axes.set_xlabel("effect (dotted: threshold)")
    axes.spines[["top", "right"]].set_visible(False)
    if not columns:
        axes.text(0.5, 0.5, report["reason"], transform=axes.transAxes, ha="center", color=GREY)
        axes.set_axis_off()
    figure.savefig(path)
