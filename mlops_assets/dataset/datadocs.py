"""Great Expectations' Data Docs as part of an artifact: the same bytes for the same data.

Left alone, the pages carry the clock, random element ids and a logo that is fetched from
GX's own server with the time in its address. All three go, so the artifact's digest depends
on the data only, and opening a page tells nobody.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_UUID = re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b")
_CLOCK = re.compile(r"\b\d{8}T\d{6}\.\d{6}Z")
_LOGO = re.compile(
    r"https://great-expectations-web-assets\.s3[\w.-]*\.amazonaws\.com/[\w-]+\.png(\?d=[\w.]*)?"
)
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # stands for "whenever": only the data counts


def run_identifier() -> Any:
    """The run's name in the pages, the same each time."""
    from great_expectations.core.run_identifier import RunIdentifier

    return RunIdentifier(run_name="validation", run_time=_EPOCH)


def site_config(directory: str) -> dict[str, Any]:
    """A Data Docs site in ``directory``, without GX's how-to buttons."""
    return {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "store_backend": {
            "class_name": "TupleFilesystemStoreBackend",
            "base_directory": directory,
        },
    }


def write_data_docs(context: Any, directory: Path) -> None:
    """Build the site of ``context`` in ``directory`` and make it reproducible."""
    context.build_data_docs()
    for animation in directory.rglob("*.gif"):  # 3 MB of GX's own tutorial
        animation.unlink()
    for page in sorted(directory.rglob("*.html")):
        up = "../" * (len(page.relative_to(directory).parts) - 1)
        html = _LOGO.sub(f"{up}static/images/logo-long.png", page.read_text(encoding="utf-8"))
        html = _CLOCK.sub(_EPOCH.strftime("%Y%m%dT%H%M%S.%fZ"), html)
        page.write_text(_UUID.sub(_numbered(), html), encoding="utf-8")


def _numbered() -> Callable[[re.Match[str]], str]:
    """Replaces each different id by the number of its first appearance."""
    numbers: dict[str, int] = {}

    def number(match: re.Match[str]) -> str:
        return f"id-{numbers.setdefault(match.group(), len(numbers) + 1)}"

    return number
