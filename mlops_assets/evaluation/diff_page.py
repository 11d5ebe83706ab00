"""`mlops diff --html`: one page that needs nothing beside itself.

The page is a Jinja template with autoescaping in a sandbox: what customers and models wrote is
shown as text, whatever it holds.
"""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlops_assets.artifacts import LineageError, atomic_write
from mlops_assets.evaluation.diff import Diff
from mlops_assets.evaluation.diff_table import (
    COLUMNS,
    cells,
    direction,
    heading,
    leading_by_slice,
    pairing,
)
from mlops_assets.html_pages import page_environment

TEMPLATE = "diff.html.jinja"


def write_diff_page(path: Path, found: Diff) -> None:
    """Write the page. Raises LineageError when it cannot be written."""
    html = render(found)
    try:
        with atomic_write(path) as temporary:
            temporary.write_text(html, encoding="utf-8")
    except OSError as error:
        raise LineageError(
            f"The page {path} cannot be written ({error.strerror}).",
            "Give --html a file in a directory that you may write.",
        ) from error


def render(found: Diff) -> str:
    """The page's HTML."""
    filters = {"minus": _with_minus_signs, "breakable": _breakable}
    environment = page_environment(Path(__file__).parent, filters)
    return environment.get_template(TEMPLATE).render(
        found=found,
        columns=COLUMNS,
        cells=cells,
        direction=direction,
        heading=heading,
        pairing=pairing,
        by_slice=lambda one: list(leading_by_slice(one)),
        today=datetime.now(UTC).strftime("%d %B %Y"),
    )


def _with_minus_signs(number: str) -> str:
    """A typographic minus before digits; the terminal has a hyphen there."""
    return re.sub(r"-(?=\d)", "\N{MINUS SIGN}", number)


def _breakable(text: str) -> Any:
    """Text that may be broken after its commas: JSON has no spaces. It is escaped."""
    from markupsafe import Markup, escape

    return Markup(",<wbr>").join(escape(text).split(","))
