"""The beginning of a text, fit to be shown to people."""

from mlops_assets.privacy import redact

LONGEST_EXCERPT = 420  # characters


def excerpt(text: str) -> str:
    """The beginning; without personal data also where the policy leaves it in rows."""
    text, _ = redact(text)
    return text if len(text) <= LONGEST_EXCERPT else text[: LONGEST_EXCERPT - 1] + "…"


def excerpt_in_one_line(text: str) -> str:
    """The same without line breaks and control characters, which a terminal would obey."""
    line = " ".join(text.split())
    return excerpt("".join(letter for letter in line if letter.isprintable()))
