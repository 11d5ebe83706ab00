"""Finds e-mail addresses and payment card numbers, and takes them out of text.

Policy: a row with personal data is kept, redacted and counted. The raw value never leaves the
source file: not into rows, quarantine excerpts, reports, logs or metadata.
"""

import hashlib
import re
from collections import Counter

EXCERPT = 240  # characters of a bad line that people are shown

# Bounded repeats, so that no hostile line can make matching slow.
_EMAIL = re.compile(r"[\w.+%-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
_DIGIT_GROUPS = re.compile(r"\d+(?:[\s.-]{1,2}\d+)*")
_CARD_DIGITS = range(13, 20)


def redact(text: str) -> tuple[str, Counter[str]]:
    """``text`` with ``[email]`` and ``[card]`` in place of the values, and how many of each."""
    found: Counter[str] = Counter()

    def hide_email(_: re.Match[str]) -> str:
        found["email"] += 1
        return "[email]"

    def hide_cards(match: re.Match[str]) -> str:
        hidden, count = _without_cards(match.group())
        found["card"] += count
        return hidden

    text = _EMAIL.sub(hide_email, text)
    return _DIGIT_GROUPS.sub(hide_cards, text), +found


def excerpt(line: str) -> str:
    """The beginning of a bad line, fit to be shown: redacted first, then cut."""
    shown, _ = redact(line.replace("\\u0040", "@"))
    return shown[:EXCERPT] + ("…" if len(shown) > EXCERPT else "")


def pseudonym(key: str) -> str:
    """``key``, or a hash in its place where the key itself is personal data."""
    if not redact(key)[1]:
        return key
    return f"anon-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def passes_luhn(digits: str) -> bool:
    """Whether the last digit is right by the Luhn formula (ISO/IEC 7812-1, annex B)."""
    doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits))]
    return sum(value - 9 * (value > 9) for value in doubled) % 10 == 0


def _without_cards(run: str) -> tuple[str, int]:
    """Hide every stretch of whole digit groups that could be a card number.

    Another number may stand right beside the card's, so every stretch is tried, and where
    stretches overlap all of them go: better one number too many than four digits of a card.
    """
    groups = [match.span() for match in re.finditer(r"\d+", run)]
    hidden: list[tuple[int, int]] = []
    for first, (start, _) in enumerate(groups):
        for _, end in groups[first:]:
            digits = re.sub(r"\D", "", run[start:end])
            if len(digits) in _CARD_DIGITS and passes_luhn(digits):
                if hidden and start < hidden[-1][1]:
                    start, end = hidden[-1][0], max(end, hidden.pop()[1])
                hidden.append((start, end))
    for start, end in reversed(hidden):
        run = f"{run[:start]}[card]{run[end:]}"
    return run, len(hidden)
