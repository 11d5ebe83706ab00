"""The faults of real data, put into sound tickets in known numbers.

Standard library only, like the rest of the generator.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

from mlops_assets.dataset.dice import Dice

Ticket = dict[str, Any]

FULL_SIZE = 6000
"""Rows for which the two tables below hold; a file of another size gets its share."""

FAULTS = {
    "broken_json": 15,
    "missing_field": 10,
    "bad_roles": 15,
    "empty_text": 20,
    "oversize_text": 12,
    "bad_timestamp": 15,
    "bad_answer": 10,
    "wrong_label": 25,
    "duplicate_id": 10,
    "duplicate_text": 60,
}
"""Faulty lines by the reason with which validation must set them aside."""

PERSONAL_DATA = {"email": 90, "card": 45}
"""Otherwise sound tickets with an e-mail address or a card number in the text."""

NAMES = ("ann.lee", "j.smith", "maria_rossi", "o.brown+shop", "tim.k", "p.novak")
DOMAINS = ("example.com", "example.org", "mail.example.net")
CARD_PREFIXES = ("4539", "4024", "5275", "5105")


def add_faults(dice: Dice, tickets: list[Ticket]) -> Iterator[str]:
    """The lines of the file. The faulty ones are spread evenly at random over its later 90%.

    The first tenth stays sound, so that a duplicate always has an earlier original.
    """
    total = len(tickets)
    counts = [(name, number * total // FULL_SIZE) for name, number in _kinds()]
    places = dice.sample(range(total // 10, total), sum(count for _, count in counts))
    kinds = [name for name, count in counts for _ in range(count)]
    at = dict(zip(places, kinds, strict=True))
    for index, ticket in enumerate(tickets):
        if (kind := at.get(index)) is None:
            yield as_line(ticket)
        else:
            yield FAULT_MAKERS[kind](dice, ticket, tickets[dice.number(0, total // 10 - 1)])


def as_line(ticket: Ticket) -> str:
    """One JSON line."""
    return json.dumps(ticket, ensure_ascii=False)


def email(dice: Dice) -> str:
    """An address in a domain that is reserved for examples."""
    return f"{dice.pick(NAMES)}{dice.number(1, 99)}@{dice.pick(DOMAINS)}"


def card(dice: Dice) -> str:
    """A card number whose check digit is right (Luhn), written in one of three ways."""
    digits = dice.pick(CARD_PREFIXES) + f"{dice.number(0, 99999999999):011d}"
    # The check digit makes the sum of all digits, every second one doubled, divisible by ten.
    doubled = [int(d) * (2 - place % 2) for place, d in enumerate(digits)]
    digits += str(-sum(value - 9 * (value > 9) for value in doubled) % 10)
    return dice.pick(("", " ", "-")).join(digits[at : at + 4] for at in range(0, 16, 4))


def _kinds() -> list[tuple[str, int]]:
    return [*FAULTS.items(), *PERSONAL_DATA.items()]


def _say(ticket: Ticket, text: str) -> Ticket:
    """``ticket`` with this text as the customer's message."""
    return ticket | {"messages": [{"role": "user", "content": text}, ticket["messages"][1]]}


def _text(ticket: Ticket) -> str:
    return str(ticket["messages"][0]["content"])


def _answer(ticket: Ticket, content: str) -> Ticket:
    return ticket | {"messages": [ticket["messages"][0], {"role": "assistant", "content": content}]}


def _broken_json(dice: Dice, ticket: Ticket, _: Ticket) -> str:
    """Torn off in the middle, after an address that must not show up anywhere."""
    line = as_line(_say(ticket, f"Write to {email(dice)}. {_text(ticket)}"))
    return line[: len(line) - dice.number(20, 60)]


def _missing_field(dice: Dice, ticket: Ticket, _: Ticket) -> str:
    lost = dice.pick(("id", "customer_id", "messages"))
    return as_line({name: value for name, value in ticket.items() if name != lost})


def _bad_roles(dice: Dice, ticket: Ticket, _: Ticket) -> str:
    question, reply = ticket["messages"]
    turns = dice.pick(
        ([reply, question], [question], [question, question], [question, reply, reply])
    )
    return as_line(ticket | {"messages": turns})


def _empty_text(dice: Dice, ticket: Ticket, _: Ticket) -> str:
    return as_line(_say(ticket, dice.pick(("", " ", "\n\t"))))


def _oversize_text(dice: Dice, ticket: Ticket, _: Ticket) -> str:
    forwarded = f"\n> {email(dice)} wrote: {_text(ticket)}" * dice.number(30, 60)
    return as_line(_say(ticket, f"{_text(ticket)}{forwarded}"))


def _bad_timestamp(dice: Dice, ticket: Ticket, _: Ticket) -> str:
    wrong = dice.pick(("", "yesterday", "2026-13-45T00:00:00Z", "0001-01-01T00:00:00Z"))
    return as_line(ticket | {"timestamp": wrong})


def _bad_answer(dice: Dice, ticket: Ticket, _: Ticket) -> str:
    content = dice.pick(("see above", '{"queue":"billing"}', '["billing","high","laptop"]'))
    return as_line(_answer(ticket, content))


def _wrong_label(dice: Dice, ticket: Ticket, _: Ticket) -> str:
    labels = json.loads(ticket["messages"][1]["content"])
    name, value = dice.pick((("queue", "other"), ("priority", "P1"), ("product", "Laptop")))
    return as_line(_answer(ticket, json.dumps(labels | {name: value}, separators=(",", ":"))))


def _duplicate_id(_: Dice, ticket: Ticket, earlier: Ticket) -> str:
    return as_line(ticket | {"id": earlier["id"]})


def _duplicate_text(dice: Dice, ticket: Ticket, earlier: Ticket) -> str:
    text = dice.pick((_text(earlier), _text(earlier).upper(), _text(earlier).replace(" ", "  ")))
    return as_line(_say(ticket, text) | {"product": earlier["product"]})


def _email(dice: Dice, ticket: Ticket, _: Ticket) -> str:
    return as_line(_say(ticket, f"{_text(ticket)} You can reach me at {email(dice)}."))


def _card(dice: Dice, ticket: Ticket, _: Ticket) -> str:
    return as_line(_say(ticket, f"{_text(ticket)} I paid with card {card(dice)}."))


FAULT_MAKERS: dict[str, Callable[[Dice, Ticket, Ticket], str]] = {
    "broken_json": _broken_json,
    "missing_field": _missing_field,
    "bad_roles": _bad_roles,
    "empty_text": _empty_text,
    "oversize_text": _oversize_text,
    "bad_timestamp": _bad_timestamp,
    "bad_answer": _bad_answer,
    "wrong_label": _wrong_label,
    "duplicate_id": _duplicate_id,
    "duplicate_text": _duplicate_text,
    "email": _email,
    "card": _card,
}
