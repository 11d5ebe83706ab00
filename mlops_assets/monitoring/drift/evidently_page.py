"""Evidently's own report on a seeded sample of both sides: every column's two distributions.

Drawn from a sample, so that it takes a second and opens at once however long the log is.
Evidently decides by significance alone and its headline can differ from our verdict: the page
says which one counts. It holds its scripts and fonts itself, and a policy in its head forbids the
browser to fetch anything.
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

FEWEST = 30  # rows of each side: of fewer there is nothing to draw

_HEAD = """<title>Distributions of the drift report</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'
 'unsafe-eval' blob:; style-src 'unsafe-inline'; img-src data: blob:; font-src data:;
 worker-src blob:">"""
_NOTE = """<p style="font:15px/1.5 system-ui,sans-serif;max-width:1180px;margin:20px auto;
padding:0 16px">{text} <a href="{report}">drift report</a>.</p>"""


def write_evidently(
    path: Path,
    columns: Sequence[Column],
    reference: "pa.Table",
    current: "pa.Table",
    spec: Mapping[str, Any],
    report: str,
) -> bool:
    """Write the page on two samples, tables with a value of each column; of too few rows nothing.

    ``spec`` is that of the report, ``report`` the file name of its page. Returns whether the page
    was written.
    """
    drawn = [column for column in columns if _differs(reference[column.name], current[column.name])]
    if not drawn or min(len(reference), len(current)) < FEWEST:
        return False
    with warnings.catch_warnings():
        # Evidently still uses names that numpy and pandas have deprecated: not our news.
        warnings.simplefilter("ignore")
        page = _evidently(drawn, reference, current, spec["alpha"])
    note = (
        f"A sample of {len(reference):,} rows of the training data and {len(current):,} requests"
        f" of production, drawn by seed {spec['seed']}. Evidently decides by significance alone;"
        " the verdict is that of the"
    )
    page = page.replace("<head>", f"<head>{_HEAD}", 1)
    page = page.replace("<body>", f"<body>{_NOTE.format(text=html.escape(note), report=report)}", 1)
    path.write_text(page, encoding="utf-8")
    return True


def _differs(*sides: "pa.ChunkedArray") -> bool:
    """Whether there is anything to draw: more than one value that everything has."""
    return len({value for side in sides for value in side.unique().to_pylist()}) > 1


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
