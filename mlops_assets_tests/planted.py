"""Personal data that nobody has: values with right and wrong check digits, in sentences.

Everything is drawn from a seed. The check digits are computed here by the published formulas,
not by the code that is tested.
"""

import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

Maker = Callable[[Random], str]

BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
TOKEN = LETTERS + LETTERS.lower() + "0123456789"


@dataclass(frozen=True)
class Sample:
    """A sentence, and the value that stands in it (empty: none does)."""

    entity: str
    text: str
    value: str


def digits(dice: Random, count: int) -> str:
    return "".join(dice.choice("0123456789") for _ in range(count))


def token(dice: Random, count: int, alphabet: str = TOKEN) -> str:
    return "".join(dice.choice(alphabet) for _ in range(count))


def luhn(body: str) -> str:
    """``body`` and its check digit."""
    total = 0
    for place, digit in enumerate(map(int, reversed(body))):
        doubled = digit * 2 if place % 2 == 0 else digit
        total += doubled - 9 if doubled > 9 else doubled
    return body + str(-total % 10)


def card(dice: Random) -> str:
    prefix, size = dice.choice(
        [("4", 16), ("51", 16), ("2345", 16), ("37", 15), ("6011", 16), ("3530", 16), ("36", 14)]
    )
    number = luhn(prefix + digits(dice, size - len(prefix) - 1))
    groups = (4, 6, 5) if size == 15 else (4, 4, 4, 4)
    return grouped(number, groups, dice.choice(["", " ", "-"]))


def grouped(text: str, sizes: tuple[int, ...], separator: str) -> str:
    parts, at = [], 0
    for size in sizes:
        parts.append(text[at : at + size])
        at += size
    return separator.join(part for part in [*parts, text[at:]] if part)


def iban(dice: Random) -> str:
    country, account = dice.choice(
        [
            ("DE", digits(dice, 18)),
            ("GB", token(dice, 4, LETTERS) + digits(dice, 14)),
            ("FR", digits(dice, 23)),
            ("ES", digits(dice, 20)),
            ("NL", token(dice, 4, LETTERS) + digits(dice, 10)),
            ("IT", token(dice, 1, LETTERS) + digits(dice, 22)),
        ]
    )
    number = "".join(str(int(sign, 36)) for sign in f"{account}{country}00")
    value = f"{country}{98 - int(number) % 97:02d}{account}"
    return dice.choice([value, grouped(value, (4,) * 8, " "), value.lower()])


def email(dice: Random) -> str:
    name = dice.choice(["ann.lee", "j_smith", "maria+shop", "o'brien", "x", "søren", "r2.d2"])
    domain = dice.choice(
        ["example.com", "mail.example.co.uk", "büro-example.de", "example.con", "example.museum"]
    )
    return f"{name}{dice.randrange(100)}@{domain}"


def phone(dice: Random) -> str:
    area, rest = dice.choice(["212", "415", "312"]), f"7{digits(dice, 2)}{digits(dice, 4)}"
    return dice.choice(
        [
            f"+1 {area}-{rest[:3]}-{rest[3:]}",
            f"+1{area}{rest}",
            f"{area}{rest}",
            f"({area}) {rest[:3]}-{rest[3:]}",
            f"{area}-{rest[:3]}-{rest[3:]}",
            f"+49 30 2{digits(dice, 7)}",
            f"+44 20 7946 0{digits(dice, 3)}",
        ]
    )


def ip_address(dice: Random) -> str:
    if dice.random() < 0.5:
        return ".".join(str(dice.randint(11, 250)) for _ in range(4))
    return "2001:db8:" + ":".join(f"{dice.randrange(4096, 65536):x}" for _ in range(6))


def mac(dice: Random) -> str:
    return dice.choice(":-").join(f"{dice.randrange(1, 255):02x}" for _ in range(6))


def wallet(dice: Random) -> str:
    if dice.random() < 0.3:
        return "0x" + token(dice, 40, "0123456789abcdef")
    payload = bytes([dice.choice([0, 5])]) + dice.randbytes(20)
    check = hashlib.sha256(hashlib.sha256(payload).digest()).digest()[:4]
    number, text = int.from_bytes(payload + check), ""
    while number:
        number, place = divmod(number, 58)
        text = BASE58[place] + text
    zeros = len(payload) - len(payload.lstrip(b"\0"))
    return "1" * zeros + text


def national_id(dice: Random) -> str:
    number = dice.randrange(10_000_000, 99_999_999)
    return dice.choice(
        [
            f"{dice.randint(100, 599)}-{dice.randint(10, 99)}-{dice.randint(1000, 9999)}",  # US
            f"{dice.randint(100, 599)}{digits(dice, 6)}",
            f"{number}{'TRWAGMYFPDXBNJZSQVHLCKE'[number % 23]}",  # Spain
            f"X{number % 10**7:07d}{'TRWAGMYFPDXBNJZSQVHLCKE'[number % 10**7 % 23]}",
            f"AB{digits(dice, 6)}C",  # United Kingdom
            "RSSMRA85T10A562S",  # Italy
        ]
    )


def secret(dice: Random) -> str:
    part = [
        urlsafe_b64encode(json.dumps({"alg": "HS256", "n": dice.random()}).encode()).decode()
        for _ in range(2)
    ]
    return dice.choice(
        [
            "AKIA" + token(dice, 16, LETTERS),
            "ghp_" + token(dice, 36),
            "sk-proj-7" + token(dice, 40),
            "sk_live_" + token(dice, 24),
            f"xoxb-{digits(dice, 11)}-{token(dice, 24)}",
            "AIza" + token(dice, 35),
            f"{part[0].rstrip('=')}.{part[1].rstrip('=')}.{token(dice, 43)}",
            f"-----BEGIN PRIVATE KEY-----\n{token(dice, 64)}\n-----END PRIVATE KEY-----",
        ]
    )


def credentials(dice: Random) -> str:
    return f"user{dice.randrange(100)}:{token(dice, 12)}"


MAKERS: dict[str, Maker] = {
    "secret": secret,
    "credentials": credentials,
    "email": email,
    "iban": iban,
    "crypto": wallet,
    "card": card,
    "mac": mac,
    "ip": ip_address,
    "national_id": national_id,
    "phone": phone,
}

SENTENCES = {
    "secret": ["My key {} stopped working.", "I pasted {} into the form, is that bad?", "{}"],
    "credentials": ["It connects to https://{}@db.example.org/shop and fails.", "see ftp://{}@h/x"],
    "email": ["Write to {}, please.", "My address ({}) is new.", "Sent from {}"],
    "iban": ["Refund it to {} please.", "My account is {}. Thanks", "IBAN: {} by Friday"],
    "crypto": ["Send it to {} instead.", "My wallet is {}."],
    "card": ["I paid with {} last week.", "Card {} was charged twice!", "{} expires soon"],
    "mac": ["The router {} drops out.", "Its address is {}."],
    "ip": ["I was blocked at {} today.", "My router has {}, it says."],
    "national_id": ["My number is {}.", "ID {} is on the form.", "I am {}, born in May."],
    "phone": ["Call me at {} after five.", "My number: {}.", "{} is where I am."],
}


def wrong_card(dice: Random) -> str:
    number = luhn("4" + digits(dice, 14))
    return number[:-1] + str((int(number[-1]) + dice.randint(1, 9)) % 10)


def wrong_iban(dice: Random) -> str:
    value = iban(dice).replace(" ", "").upper()
    return f"{value[:2]}{(int(value[2:4]) + dice.randint(1, 90)) % 97 + 2:02d}{value[4:]}"


LOOKALIKES: dict[str, Maker] = {
    "a card with a wrong check digit": lambda dice: f"I typed {wrong_card(dice)} by mistake.",
    "an IBAN with wrong check digits": lambda dice: f"It says {wrong_iban(dice)} is not valid.",
    "an order number": lambda dice: f"Where is order {digits(dice, 10)}?",
    "a long order number": lambda dice: f"Where is order {digits(dice, 16)}?",
    "a bar code": lambda dice: f"The box says {digits(dice, 13)}.",
    "a tracking number": lambda dice: f"Tracking 1Z{token(dice, 6, LETTERS)}{digits(dice, 10)}.",
    "a time": lambda dice: (
        f"On 2026-0{dice.randint(1, 9)}-1{dice.randint(0, 9)} 12:30:45 it broke."
    ),
    "a time in milliseconds": lambda dice: f"Logged at 17{digits(dice, 11)} in the app.",
    "a version": lambda dice: (
        f"Since version {dice.randint(1, 9)}.{dice.randint(1, 99)}.3.1 it hangs."
    ),
    "a price": lambda dice: (
        f"It was ${dice.randint(1, 9)},{digits(dice, 3)}.99, now {digits(dice, 3)}."
    ),
    "a package": lambda dice: f"npm i left-pad@1.{dice.randint(0, 99)}.0 fails.",
    "a UUID": lambda dice: "Request 550e8400-e29b-41d4-a716-44665544" + digits(dice, 4),
    "a product": lambda dice: f"The TX-{digits(dice, 4)} and the {digits(dice, 8)} do not fit.",
    "a range": lambda dice: (
        f"Between 10:30-11:4{dice.randint(0, 9)}, rooms 100-2{digits(dice, 2)}."
    ),
    "a check word": lambda dice: f"std::vector and a:b, task-force of {digits(dice, 6)}.",
}


def samples(seed: int, each: int) -> list[Sample]:
    """``each`` sentences for each entity, and as many for each thing that only looks like one."""
    dice = Random(seed)
    found = []
    for entity, make in MAKERS.items():
        for _ in range(each):
            value = make(dice)
            found.append(Sample(entity, dice.choice(SENTENCES[entity]).format(value), value))
    for name, write in LOOKALIKES.items():
        found += [Sample(name, write(dice), "") for _ in range(each)]
    return found
