"""Writes the shipped support tickets: seeded, the same bytes on every machine.

Uses the standard library only: no clock, no ``hash()``, no set order. A few tickets are
ambiguous and 4% carry a wrong label on purpose; ``faults.FAULTS`` and
``faults.PERSONAL_DATA`` say how many carry which fault of real data.

    python -m mlops_assets.dataset.synthetic --rows 6000 --seed 20260101 --out FILE
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from mlops_assets.dataset import phrases
from mlops_assets.dataset.dice import Dice
from mlops_assets.dataset.faults import FULL_SIZE, add_faults

LABELS = {
    "queue": list(phrases.QUEUES),
    "priority": list(phrases.PRIORITIES),
    "product": list(phrases.PRODUCTS),
}
"""The answer's fields and their vocabulary, in the order in which an answer writes them."""

START = datetime(2026, 1, 1, tzinfo=timezone.utc)  # noqa: UP017 (any python3 may run this)
CUSTOMERS = 1400
Ticket = dict[str, Any]


@dataclass(frozen=True)
class Mix:
    """Shares of what tickets are about; the weights need not add up to one."""

    queues: Mapping[str, float] = field(
        default_factory=lambda: dict(zip(LABELS["queue"], (24, 20, 18, 16, 12, 10), strict=True))
    )
    priorities: Mapping[str, float] = field(
        default_factory=lambda: dict(zip(LABELS["priority"], (20, 40, 25, 15), strict=True))
    )
    products: Mapping[str, float] = field(
        default_factory=lambda: dict(zip(LABELS["product"], (24, 20, 18, 15, 13, 10), strict=True))
    )
    channels: Mapping[str, float] = field(
        default_factory=lambda: {"email": 45, "chat": 30, "web": 25}
    )
    styles: Mapping[str, float] = field(
        default_factory=lambda: {"plain": 35, "formal": 20, "terse": 20, "chatty": 15, "typo": 10}
    )
    new_topics: float = 0.0
    """Share of tickets that speak of what no earlier ticket spoke of, and at length."""


def write_text(dice: Dice, mix: Mix, labels: Mapping[str, str], style: str) -> str:
    """One message of a customer whose case has these labels."""
    pattern = dice.pick(phrases.QUEUES[labels["queue"]])
    possible = [text for *queues, text in phrases.AMBIGUOUS if labels["queue"] in queues]
    if possible and dice.chance(0.03):
        pattern = dice.pick(possible)
    names = phrases.UNNAMED if dice.chance(0.01) else phrases.PRODUCTS[labels["product"]]
    sentence = pattern.format(
        product=dice.pick(names),
        amount=dice.number(5, 90),
        city=dice.pick(phrases.CITIES),
        order=dice.number(10000, 99999),
        days=dice.number(3, 60),
        code=f"E{dice.number(10, 99)}",
    )
    if dice.chance(mix.new_topics):
        sentence = f"{sentence} {dice.pick(phrases.NEW_TOPICS)}. {dice.pick(phrases.RAMBLING)}"
    sentence = sentence[0].upper() + sentence[1:] + ("" if sentence.endswith(".") else ".")
    urgency = dice.pick(phrases.PRIORITIES[labels["priority"]])
    parts = (dice.pick(phrases.GREETINGS[style]), sentence, urgency)
    text = " ".join(part for part in (*parts, dice.pick(phrases.CLOSINGS[style])) if part)
    return _in_style(dice, text, style)


def _in_style(dice: Dice, text: str, style: str) -> str:
    if style == "terse":
        dropped = {"the", "a", "my", "please", "is", "i"}
        words = [word for word in text.lower().split() if word not in dropped]
        return " ".join(words).replace(".", ",").rstrip(",")
    if style == "typo":
        return " ".join(_mistyped(dice, word) for word in text.lower().split())
    return text


def _mistyped(dice: Dice, word: str) -> str:
    if len(word) < 4 or not dice.chance(0.08):
        return word
    at = dice.number(1, len(word) - 2)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def answer(labels: Mapping[str, str]) -> str:
    """The answer in the form that the model is to give: compact, fields in order."""
    return json.dumps({name: labels[name] for name in LABELS}, separators=(",", ":"))


def draw_labels(dice: Dice, mix: Mix) -> dict[str, str]:
    """What a case is really about."""
    return {
        "queue": dice.weighted(mix.queues),
        "priority": dice.weighted(mix.priorities),
        "product": dice.weighted(mix.products),
    }


def mislabel(dice: Dice, labels: Mapping[str, str], share: float) -> dict[str, str]:
    """``labels``, with queue or priority replaced in this share of cases."""
    result = dict(labels)
    if dice.chance(share):
        name = dice.pick(("queue", "priority"))
        result[name] = dice.pick([value for value in LABELS[name] if value != labels[name]])
    return result


def sound_tickets(dice: Dice, rows: int, mix: Mix) -> list[Ticket]:
    """Tickets without any fault, in order of time, no text twice."""
    styles = [dice.weighted(mix.styles) for _ in range(CUSTOMERS)]
    seen: set[str] = set()
    tickets: list[Ticket] = []
    moment = START
    while len(tickets) < rows:
        customer = dice.number(0, CUSTOMERS - 1)
        labels = draw_labels(dice, mix)
        text = write_text(dice, mix, labels, styles[customer])
        if (key := " ".join(text.casefold().split())) in seen:
            continue
        seen.add(key)
        moment += timedelta(seconds=dice.number(600, 4600))
        stated = mislabel(dice, labels, 0.04)
        tickets.append(
            {
                "id": f"t-{len(tickets) + 1:06d}",
                "timestamp": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "customer_id": f"c-{customer + 1:04d}",
                "channel": dice.weighted(mix.channels),
                "product": labels["product"],
                "language_style": styles[customer],
                "messages": [
                    {"role": "user", "content": text},
                    {"role": "assistant", "content": answer(stated)},
                ],
            }
        )
    return tickets


def tickets_lines(rows: int, seed: int) -> Iterator[str]:
    """The lines of the shipped file, faults included."""
    dice = Dice(seed)
    yield from add_faults(dice, sound_tickets(dice, rows, Mix()))


def write_lines(path: Path, lines: Iterator[str]) -> None:
    """Write UTF-8 with ``\\n`` on every system."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(line + "\n" for line in lines)


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Write the shipped support tickets.")
    parser.add_argument("--rows", type=int, default=FULL_SIZE)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    write_lines(options.out, tickets_lines(options.rows, options.seed))


if __name__ == "__main__":
    main()
