"""The approval page as HTML that needs nothing beside itself.

A Jinja template with autoescaping in a sandbox: names, reasons and what the gate says are shown
as text, whatever they hold. Styles and the one script carry the response's nonce, and the page
is served under a policy that allows nothing else.
"""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_assets.html_pages import page_environment
from mlops_assets.promotion.report_view import number, percent, plain, points
from mlops_assets.statements import MAX_REASON
from mlops_assets.verdicts import FAIL, INCONCLUSIVE, PASS

if TYPE_CHECKING:
    from mlops_assets.promotion.request_view import RequestView

SHORTEST_REASON = 3  # characters
TONES = {PASS: "good", FAIL: "bad", INCONCLUSIVE: "wait"}
MONTHS = "January February March April May June July August September October November December"


def render_request(view: "RequestView", nonce: str, report_url: str | None) -> str:
    """The page of one request: its evidence, and the form for whoever has a personal link."""
    card = _markdown(view.card) if view.card else None
    return _render(
        "approval_page.html.jinja",
        nonce,
        view=view,
        card=card,
        report_url=report_url,
        shortest=SHORTEST_REASON,
        longest=MAX_REASON,
    )


def render_notice(nonce: str, title: str, text: str, tone: str, back: str | None = None) -> str:
    """A page of one sentence: what became of a decision, or why a link is refused."""
    return _render(
        "approval_notice.html.jinja", nonce, title=title, text=text, tone=tone, back=back
    )


def render_index(nonce: str, views: "list[RequestView]") -> str:
    """Every request that waits, for people at this machine."""
    return _render("approval_index.html.jinja", nonce, views=views)


def moment(text: str) -> str:
    """A time in UTC for people: ``21 November 2026, 22:40 UTC``; as it is if it is no time."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{at.day} {MONTHS.split()[at.month - 1]} {at.year}, {at:%H:%M} UTC"


def _render(template: str, nonce: str, **values: Any) -> str:
    filters: dict[str, Callable[..., Any]] = {
        "percent": percent,
        "points": points,
        "plain": plain,
        "number": number,
        "moment": moment,
    }
    environment = page_environment(Path(__file__).parent, filters)
    return environment.get_template(template).render(nonce=nonce, tones=TONES, **values)


def _markdown(text: str) -> Any:
    """Markdown as HTML without links, pictures or HTML of its own."""
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.disable(["link", "image", "autolink", "reference"])
    # Escaped by the parser, which was told to let no HTML through.
    return Markup(parser.render(text))  # noqa: S704
