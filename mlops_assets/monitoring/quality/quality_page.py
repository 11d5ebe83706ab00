"""The quality of production's answers as people look at it: one page, and a plot of its windows.

The page needs nothing beside itself and runs no script; what users called their metrics and slices
is shown as text, whatever it holds.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlops_assets.html_pages import page_environment
from mlops_assets.monitoring.quality.business_metrics import SHARE, show
from mlops_assets.monitoring.shown_time import to_the_minute

TEMPLATE = "quality.html.jinja"
METADATA_COLUMNS = ("name", "layer", "now", "before", "effect", "margin", "p", "n")
LEFT_OUT_COLUMNS = ("name", "layer", "now", "reason")
"""Of the tables on the asset's own page, which is narrow."""
MEANINGS = {
    "failed": "requests that ended with a status from 500 on",
    "given_up": "requests whose user left before the answer was whole",
    "latency/p50": "time until the answer was whole, median",
    "latency/p95": "time until the answer was whole, 95th percentile",
    "cost": "of an answer, at the gateway's prices, median",
    "tokens_out": "tokens of an answer, median",
    "cached": "answers that came from the cache",
    "corrected": "answers that a user sent a correction of",
    "made_again": "answers after which their user asked the same again",
    "contradicted": "answers that a user's correction differs from",
    "rating": "mean of the thumbs, from 0 (all down) to 1 (all up)",
    "vote": "mean of what users voted",
    "labelled": "drawn answers that agree with a label given without seeing them",
}
"""Of a metric, by its name or what stands before the slash."""
COLUMNS = 4
"""Plots beside each other."""
SOFT, INK, ACCENT, WORSE = "#64748b", "#0f172a", "#4338ca", "#b91c1c"


def write_page(path: Path, content: Mapping[str, Any], plot: Path) -> None:
    """Write the page of a ``quality.json``, with the plot in it."""
    environment = page_environment(
        Path(__file__).parent, {"p_value": shown_p, "day": to_the_minute}
    )
    html = environment.get_template(TEMPLATE).render(
        content=content,
        rows=finding_rows(content),
        compared_with=compared_with(content),
        meaning=_meaning,
        history=_table(content),
        show=show,
        percent=lambda share: show(share, SHARE),
        picture=base64.b64encode(plot.read_bytes()).decode(),
    )
    path.write_text(html, encoding="utf-8")


def finding_rows(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What is shown of each finding, in the order of the layers."""
    rows = []
    for finding in content["findings"]:
        name, left_out = finding["name"], finding["left_out"]
        values, unit = content["values"].get(name, {}), content["units"].get(name, SHARE)
        rows.append(
            {
                "name": name,
                "layer": finding["layer"],
                "now": show(values.get("current"), unit),
                "before": show(values.get("baseline"), unit),
                "effect": "" if left_out else f"{finding['effect']:.3f}",
                "margin": f"{finding['min_effect']:g}",
                "p": "" if left_out else shown_p(finding["p"]),
                "n": f"{finding['current_n']:,} / {finding['reference_n']:,}",
                "left_out": left_out,
                "suspect": not left_out and finding["effect"] >= finding["min_effect"],
            }
        )
    return rows


def metric_rows(content: Mapping[str, Any]) -> list[dict[str, str]]:
    """The findings that take part, for a narrow table."""
    return [
        {name: row[name].replace(" / ", "/") for name in METADATA_COLUMNS}
        for row in finding_rows(content)
        if not row["left_out"]
    ]


def left_out_rows(content: Mapping[str, Any]) -> list[dict[str, str]]:
    """The findings that take no part, what was measured of them, and why that is not enough."""
    return [
        {"name": row["name"], "layer": row["layer"], "now": row["now"], "reason": row["left_out"]}
        for row in finding_rows(content)
        if row["left_out"]
    ]


def compared_with(content: Mapping[str, Any]) -> str:
    """What the current window is compared with, as a phrase."""
    before = content["windows"]["baseline"]
    if not before["requests"]:
        return "nothing: the log's window holds no earlier requests to compare with"
    return f"{before['requests']:,}: {before['against']}"


def draw_table(content: Mapping[str, Any]) -> tuple[list[dict[str, str]], dict[str, str]]:
    """What the labels say of each draw, the newest first, and the columns with their types."""
    rows = [
        {
            "draw": one["draw"],
            "requests until": to_the_minute(one["until"]),
            "drawn": f"{one['drawn']:,} of {one['population']:,}",
            "labelled": f"{one['labelled']:,} ({show(one['response'], SHARE)})",
            "people": f"{one['people']}",
            "disputed": f"{one['disputed']}",
            **{name: _share(found) for name, found in one["metrics"].items()},
        }
        for one in reversed(content["labelled"])
    ]
    return rows, dict.fromkeys(rows[0] if rows else ("draw", "drawn", "labelled"), "string")


def _share(measured: Mapping[str, Any]) -> str:
    """A share with its interval, where anything was measured."""
    if measured["mean"] is None:
        return "-"
    low, high = (show(bound, SHARE) for bound in measured["interval"])
    return f"{show(measured['mean'], SHARE)} ({low} to {high})"


def _meaning(name: str) -> str:
    return MEANINGS.get(name) or MEANINGS[name.partition("/")[0]]


def shown_p(p: float) -> str:
    """A p value for people."""
    return "≤ 0.0001" if p <= 0.0001 else f"{p:.4f}"


def write_plot(path: Path, content: Mapping[str, Any]) -> None:
    """Each metric over the windows, and labelled answers over the draws, side by side."""
    from matplotlib.figure import Figure

    lines = _lines(content)
    rows = max(1, math.ceil(len(lines) / COLUMNS))
    figure = Figure(figsize=(11, 0.4 + 1.75 * rows), layout="constrained")
    grid = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    if not lines:
        grid[0].text(0, 0.5, "no requests yet", color=SOFT)
    for axes, (name, unit, values, bounds) in zip(grid, lines, strict=False):
        _draw(axes, name, unit, values, bounds)
    figure.savefig(path, dpi=110)


Line = tuple[str, str, Sequence[float | None], Sequence[Sequence[float]]]
"""Name, unit, values, and their intervals where there are any."""


def _lines(content: Mapping[str, Any]) -> list[Line]:
    """What is worth drawing: metrics that had a value other than 0 in some window."""
    found: list[Line] = []
    for name, unit in content["units"].items():
        values = [window["values"][name] for window in content["history"]]
        if any(values):
            found.append((name, unit, values, ()))
    draws = [one for one in content["labelled"] if one["labelled"] - one["gone"]]
    for name in draws[-1]["metrics"] if draws else ():
        measured = [one["metrics"][name] for one in draws]
        means = [one["mean"] for one in measured]
        found.append((f"labelled/{name}", SHARE, means, [one["interval"] for one in measured]))
    return found


def _draw(
    axes: Any,
    name: str,
    unit: str,
    values: Sequence[float | None],
    bounds: Sequence[Sequence[float]],
) -> None:
    numbers = [math.nan if value is None else value for value in values]
    axes.set_axis_on()
    axes.plot(numbers, color=ACCENT, linewidth=1.4, marker="o", markersize=3)
    axes.plot(len(numbers) - 1, numbers[-1], color=INK, marker="o", markersize=5, clip_on=False)
    if bounds:
        low, high = zip(*bounds, strict=True)
        axes.vlines(range(len(numbers)), low, high, color=ACCENT, alpha=0.35, linewidth=3)
    known = [
        number for number in (*numbers, *(b for pair in bounds for b in pair)) if number == number
    ]
    axes.set_ylim(min(0.0, *known), max(known) * 1.15)
    axes.set_xticks([])
    axes.set_title(f"{name}  {show(values[-1], unit)}", fontsize=9, loc="left", color=INK)
    axes.tick_params(labelsize=7, colors=SOFT, length=2)
    axes.yaxis.set_major_formatter(lambda value, _: show(value, unit))
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def _table(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The windows, the newest first, for a table."""
    return list(reversed(content["history"]))
