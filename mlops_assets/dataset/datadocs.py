"""Great Expectations' Data Docs as part of an artifact: the same bytes for the same data.

Left alone, the pages carry the clock and random element ids, and take their styles, their
index and a logo (with the time in its address) from half a dozen servers. Here they are made
to stand on their own: readable without a network, and opening one tells nobody.
"""

import logging
import os
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
_REMOTE = re.compile(
    r"<script\b.*?</script>|<link\b[^>]*\bhref=\"https?:[^>]*>|<footer\b.*?</footer>", re.DOTALL
)
_FAILED = 'Status:</span> <i class="fas fa-times'  # how a page says that its suite failed
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # stands for "whenever": only the data counts

# What the pages take from Bootstrap and Font Awesome, as far as reading them needs it.
_STYLE = """<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 0 auto; padding: 1rem; }
h1, h2, h3, h4, h5, h6, .h6 { font-size: 1.05rem; margin: 1rem 0 .3rem; font-weight: 600; }
table { border-collapse: collapse; margin: .3rem 0 1rem; }
th, td { border: 1px solid #ddd; padding: .3rem .6rem; text-align: left; vertical-align: top; }
th { background: #f3f5f8; }
nav.navbar { height: auto !important; position: static !important; }
ol.breadcrumb { padding-left: 0; list-style: none; }
button, form, input, label, .modal, a[data-toggle] { display: none; }
.fa-check-circle::before { content: "\\2714"; color: #1a7f37; font-style: normal; }
.fa-times::before { content: "\\2718"; color: #b42318; font-style: normal; }
.fa-exclamation-triangle::before { content: "\\26a0"; font-style: normal; }
</style>"""


def run_identifier() -> Any:
    """The run's name in the pages, the same each time."""
    from great_expectations.core.run_identifier import RunIdentifier

    return RunIdentifier(run_name="validation", run_time=_EPOCH)


def quiet_context(site: str) -> Any:
    """An ephemeral GX context that writes Data Docs to ``site`` and reports to nobody."""
    # GX speaks of its own construction, some hundred lines of it, at the level INFO.
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read when the context is made
    import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    config = DataContextConfig(
        data_docs_sites={"docs": _site(site)},
        progress_bars=ProgressBarsConfig(globally=False, metric_calculations=False),
        # Its default would leave a temporary directory behind for each context.
        store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        analytics_enabled=False,
    )
    return gx.get_context(mode="ephemeral", project_config=config)


def write_data_docs(context: Any, directory: Path) -> None:
    """Build the site of ``context`` in ``directory``; see the module's docstring."""
    context.build_data_docs()
    for animation in directory.rglob("*.gif"):  # 3 MB of GX's own tutorial
        animation.unlink()
    for page in sorted(directory.rglob("*.html")):
        up = "../" * (len(page.relative_to(directory).parts) - 1)
        text = _REMOTE.sub("", page.read_text(encoding="utf-8"))
        text = _LOGO.sub(f"{up}static/images/logo-long.png", text)
        text = _CLOCK.sub(_EPOCH.strftime("%Y%m%dT%H%M%S.%fZ"), text)
        text = text.replace("</head>", f"{_STYLE}</head>", 1)
        page.write_text(_UUID.sub(_numbered(), text), encoding="utf-8")
    _write_index(directory, [suite.name for suite in context.suites.all()])


def _site(directory: str) -> dict[str, Any]:
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


def _write_index(directory: Path, suites: list[str]) -> None:
    """GX's index fills itself by script from a server's library; links do without."""
    links = []
    pages = directory.glob("validations/*/*/*/*.html")
    for page in sorted(pages, key=lambda page: suites.index(page.parts[-4])):
        link, suite = page.relative_to(directory).as_posix(), page.parts[-4]
        outcome = "failed" if _FAILED in page.read_text(encoding="utf-8") else "succeeded"
        links.append(f'<li><a href="{link}">{suite}</a>: {outcome}</li>')
    index = directory / "index.html"
    heading = f"<h2>Validation results</h2><ul>{''.join(links)}</ul>"
    index.write_text(
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Data Docs</title>'
        f'{_STYLE}</head><body><img src="static/images/logo-long.png" alt="Great Expectations"'
        f' width="240">{heading}</body></html>',
        encoding="utf-8",
    )


def _numbered() -> Callable[[re.Match[str]], str]:
    """Replaces each different id by the number of its first appearance."""
    numbers: dict[str, int] = {}

    def number(match: re.Match[str]) -> str:
        return f"id-{numbers.setdefault(match.group(), len(numbers) + 1)}"

    return number
