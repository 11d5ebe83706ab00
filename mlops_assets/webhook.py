"""Messages for people, and how a Slack-compatible webhook takes them.

A message is Block Kit for Slack and plain text for every other service that takes ``text``.
Its title, facts and details come from data that nobody checked: they are escaped here, once,
so that no name or reason can mention a channel, forge a link or format the text around it.
The webhook's URL and the message's links are secrets: no error and no log shows them.
"""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests

MOST_FACTS = 10  # fields of a section, as Slack limits them
LONGEST_SECTION = 2_900  # characters; Slack takes 3,000
LONGEST_TITLE = 150
LONGEST_LINE = 400
WORD_JOINER = "\N{WORD JOINER}"
SPECIAL = re.compile(r"[*_~`@#\[\]|]|:(?=//)|(?<=www)\.")


class Undelivered(Exception):
    """The webhook did not take a message; says why without naming the webhook."""


@dataclass(frozen=True)
class Link:
    """An address that we made ourselves, and what it is called."""

    label: str
    url: str


@dataclass(frozen=True)
class Message:
    """What people are told. All texts are plain and are escaped when the message is sent."""

    title: str
    facts: tuple[tuple[str, str], ...] = ()
    """Name and value, side by side where the service can."""
    details: tuple[str, ...] = ()
    """One line each."""
    command: str = ""
    """What to type."""
    links: tuple[Link, ...] = ()
    note: str = ""

    @property
    def log_line(self) -> str:
        """What the message says, without its links."""
        facts = ", ".join(f"{name} {value}" for name, value in self.facts)
        return one_line("; ".join(filter(None, (self.title, facts, *self.details))), 2_000)

    def payload(self) -> dict[str, Any]:
        """The JSON body: ``text`` for notifications and other services, ``blocks`` for Slack."""
        return {
            "text": self._text(),
            "blocks": list(self._blocks()),
            # Nobody else is to open the links: a preview is a request with the link in it.
            "unfurl_links": False,
            "unfurl_media": False,
        }

    def _text(self) -> str:
        facts = [f"{escape(name)}: {escape(value)}" for name, value in self.facts]
        parts = [escape(self.title, LONGEST_TITLE), *facts, *self._detail_lines()]
        parts += [f"Command: {_code(self.command)}"] if self.command else []
        parts += [_link(link) for link in self.links]
        return "\n".join([*parts, escape(self.note)] if self.note else parts)

    def _blocks(self) -> list[dict[str, Any]]:
        # A header is plain text to Slack: it is shortened, and nothing in it is markup.
        title = {"type": "plain_text", "text": one_line(self.title, LONGEST_TITLE), "emoji": False}
        blocks: list[dict[str, Any]] = [{"type": "header", "text": title}]
        if self.facts:
            shown = [f"*{escape(name)}*\n{escape(value)}" for name, value in self.facts]
            fields = [_markdown(text) for text in shown[:MOST_FACTS]]
            blocks.append({"type": "section", "fields": fields})
        if self.details:
            blocks.append(_section(_fitting(self._detail_lines())))
        if self.command:
            blocks.append(_section(_code(self.command)))
        if self.links:
            blocks.append(_section("\n".join(_link(link) for link in self.links)))
        if self.note:
            blocks.append({"type": "context", "elements": [_markdown(escape(self.note))]})
        return blocks

    def _detail_lines(self) -> list[str]:
        return [f"\N{BULLET} {escape(line)}" for line in self.details]


def escape(text: str, longest: int = LONGEST_LINE) -> str:
    """Text that a service shows as it stands: one line, shortened, without markup.

    Slack reads ``&``, ``<`` and ``>`` and knows entities for them. What else begins formatting,
    a mention or a link, in Slack or where Markdown is read, is followed by a word joiner, which
    shows as nothing.
    """
    broken = SPECIAL.sub(lambda found: found[0] + WORD_JOINER, one_line(text, longest))
    return broken.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def one_line(text: str, longest: int = LONGEST_LINE) -> str:
    """The text without line breaks, control characters and changes of direction, shortened."""
    visible = "".join(letter if letter.isprintable() else " " for letter in text)
    line = " ".join(visible.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def post(url: str, message: Message, timeout: float) -> None:
    """Send a message. Raises Undelivered when the webhook did not take it.

    ``timeout`` is in seconds. A redirection is not followed: it could lead the links elsewhere.
    """
    try:
        scheme = urlsplit(url).scheme
    except ValueError:
        scheme = ""
    if scheme not in ("http", "https"):
        raise Undelivered("its address is not http or https")
    try:
        answer = requests.post(url, json=message.payload(), timeout=timeout, allow_redirects=False)
    except requests.RequestException as error:
        raise Undelivered(type(error).__name__) from None  # the error's text holds the URL
    if not 200 <= answer.status_code < 300:
        raise Undelivered(f"it answered {answer.status_code}")


def _code(text: str) -> str:
    """Text to copy: nothing is put into it, and it cannot leave its code span."""
    shown = one_line(text).replace("`", "'")
    return "`" + shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") + "`"


def _markdown(text: str) -> dict[str, Any]:
    return {"type": "mrkdwn", "text": text[:2_000], "verbatim": True}


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": True}}


def _link(link: Link) -> str:
    return f"<{link.url}|{link.label}>"


def _fitting(lines: list[str]) -> str:
    """As many whole lines as a section takes, and how many are left out."""
    kept: list[str] = []
    for line in lines:
        if sum(map(len, kept)) + len(kept) + len(line) > LONGEST_SECTION - 20:
            return "\n".join([*kept, f"\N{BULLET} and {len(lines) - len(kept)} more"])
        kept.append(line)
    return "\n".join(kept)
