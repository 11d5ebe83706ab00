"""The drift report that people look at: our verdict above Evidently's distributions.

Evidently draws the two distributions of every column. It decides by significance alone, so
its headline can differ from our verdict: the page says which one counts. The page holds its
scripts and fonts itself and opens without a network.
"""

import html
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_assets.monitoring.drift.features import NUMERIC, Column

if TYPE_CHECKING:
    import pyarrow as pa

CALM, ALARM, GREY = "#1a7f37", "#cf222e", "#6e7781"
_COLOURS = {"drift": ALARM, "no_drift": CALM, "no_verdict": GREY}
_TITLES = {"drift": "Drift", "no_drift": "No drift", "no_verdict": "No verdict"}

_STYLE = """
.verdict{font:15px/1.5 system-ui,sans-serif;max-width:1180px;margin:24px auto;padding:0 16px;
 color:#1f2328}
.verdict h1{font-size:26px;margin:0 0 4px}
.verdict table{border-collapse:collapse;width:100%;margin:12px 0;
 font-variant-numeric:tabular-nums}
.verdict th,.verdict td{text-align:right;padding:6px 10px;border-bottom:1px solid #d0d7de}
.verdict th:first-child,.verdict td:first-child,.verdict .kind{text-align:left}
.verdict tr.drifted td{background:#ffebe9}
.verdict img{max-width:100%}
.verdict small{color:#57606a}
"""


def write_page(
    path: Path,
    report: Mapping[str, Any],
    columns: Sequence[Column],
    reference: "pa.Table",
    current: "pa.Table",
) -> None:
    """Write the page; without a verdict for want of records, only our part.

    The tables are seeded samples of both sides, with a value of each column.
    """
    banner, spec = _banner(report), report["spec"]
    if min(len(reference), len(current)) < min(spec["min_records"], spec["sample_rows"]):
        page = f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><body>{banner}</body></html>'
    else:
        with warnings.catch_warnings():
            # Evidently still uses names that numpy and pandas have deprecated: not our news.
            warnings.simplefilter("ignore")
            page = _evidently(columns, reference, current, spec["alpha"])
        page = page.replace("<body>", f"<body>{banner}", 1)
        page = page.replace("<head>", "<head><title>Drift report</title>", 1)
    path.write_text(page, encoding="utf-8")


def _evidently(
    columns: Sequence[Column], reference: "pa.Table", current: "pa.Table", alpha: float
) -> str:
    # Evidently reports its use to a server unless this is set before it is imported.
    os.environ.setdefault("DO_NOT_TRACK", "1")
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    names = [column.name for column in columns]
    definition = DataDefinition(
        numerical_columns=[column.name for column in columns if column.kind == NUMERIC],
        categorical_columns=[column.name for column in columns if column.kind != NUMERIC],
    )
    frames = [
        Dataset.from_pandas(side.select(names).to_pandas(), data_definition=definition)
        for side in (current, reference)
    ]
    # The tests are named, because the default changes with the number of rows.
    threshold = alpha / len(columns)
    preset = DataDriftPreset(
        columns=names,
        num_method="ks",
        cat_method="chisquare",
        num_threshold=threshold,
        cat_threshold=threshold,
        drift_share=round(1 / len(columns) - 5e-4, 3),  # one column suffices; it is printed
    )
    text: str = Report([preset]).run(*frames).get_html_str(as_iframe=False)
    return text


def _banner(report: Mapping[str, Any]) -> str:
    verdict, spec = report["verdict"], report["spec"]
    rows = "".join(_row(name, values) for name, values in report["columns"].items())
    return f"""<style>{_STYLE}</style><section class="verdict">
<h1 style="color:{_COLOURS[verdict]}">{_TITLES[verdict]}</h1>
<div>{html.escape(report["reason"])}</div>
<table><tr><th>column</th><th class="kind">layer</th>
<th class="kind">kind</th><th>effect</th><th>p</th>
<th>p, corrected</th><th>PSI</th><th>reference</th><th>production</th><th>drifted</th></tr>
{rows}</table>
<small>A column drifts when its effect is at least {spec["min_effect"]} (a rate's
{spec["min_rate_effect"]}) and its p value,
corrected across the columns (Holm), is below {spec["alpha"]}. Effect: Kolmogorov-Smirnov
distance for numbers, total variation distance for classes, both from 0 to 1. p: asymptotic
Kolmogorov-Smirnov test, seeded permutation test. PSI is shown and decides nothing. This table
is the verdict; Evidently's own, below, knows significance only.</small></section>"""


def _row(name: str, values: Mapping[str, Any]) -> str:
    numbers = "".join(
        f"<td>{shown(values.get(key))}</td>" for key in ("effect", "p", "p_corrected", "psi")
    )
    return (
        f'<tr class="{"drifted" if values["drifted"] else "calm"}"><td>{html.escape(name)}</td>'
        f'<td class="kind">{values["layer"]}</td>'
        f'<td class="kind">{values["kind"]}</td>{numbers}<td>{values["reference_n"]:,}</td>'
        f"<td>{values['current_n']:,}</td><td>{'yes' if values['drifted'] else 'no'}</td></tr>"
    )


def shown(value: float | None) -> str:
    """A number for people; a dash when it is missing."""
    if value is None:
        return "-"
    if 0 < value < 0.0001:
        return "< 0.0001"
    return f"{value:.4f}" if value < 0.01 else f"{value:.3f}"


def write_plot(path: Path, report: Mapping[str, Any]) -> None:
    """A bar for each column's effect, with the threshold."""
    from matplotlib.figure import Figure

    names = list(report["columns"])[::-1]
    effects = [report["columns"][name]["effect"] or 0.0 for name in names]
    colours = [ALARM if report["columns"][name]["drifted"] else CALM for name in names]
    figure = Figure(figsize=(7, 0.8 + 0.32 * max(len(names), 1)), layout="constrained")
    axes = figure.subplots()
    axes.barh(names, effects, color=colours, height=0.6)
    axes.axvline(report["spec"]["min_effect"], color=GREY, linestyle="--", linewidth=1)
    axes.set_xlabel("distance from the training split (dashed: threshold)")
    axes.set_xlim(0, max(0.2, *effects, report["spec"]["min_effect"] * 1.2) * 1.05)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
