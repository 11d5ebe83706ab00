"""What is done with personal data: found, and by a policy redacted, flagged or blocked.

Rows obey the policy of ``validated_dataset``. Whatever else shows a piece of a source to people
(quarantine, reports, metadata, logs) goes through ``redact``, ``excerpt`` or ``pseudonym``,
which take out all that can be found, whatever the policy.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

from mlops_assets import identifiers, recognizers
from mlops_assets.artifacts import LineageError, digest_json
from mlops_assets.code_digest import code_digest
from mlops_assets.identifiers import merged

ENTITIES = {
    "secret": "keys and tokens of well-known services, JSON Web Tokens, private keys",
    "credentials": "user and password in a URL, or a token in its query",
    "email": "e-mail addresses",
    "iban": "bank accounts (form of the country and check digits, mod 97)",
    "crypto": "Bitcoin (check sum) and Ethereum addresses",
    "card": "payment cards (network and check digit, Luhn)",
    "mac": "hardware addresses",
    "ip": "IPv4 and IPv6 addresses",
    "national_id": "national identity, tax and health numbers of nine countries",
    "phone": "phone numbers",
    "person": "names of people (needs a language model)",
    "location": "names of places (needs a language model)",
}
"""All that can be looked for, in the order in which it is: what is found is not looked at again,
so that no part of an IBAN is taken for a card."""

NAMED_BY_MODEL = ("person", "location")
ACTIONS = ("redact", "flag", "block")
DEFAULT_POLICY = {entity: "redact" for entity in ENTITIES if entity not in NAMED_BY_MODEL}
DEFAULT_REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "IN", "BR")
BLOCKED = "personal_data"
"""The reason with which a row is set aside that holds what the policy blocks."""

EXCERPT = 240  # characters of a bad line that people are shown
REMEMBERED, SHORT = 8192, 200  # texts whose result is kept, and how long they may be

_MODULES = (identifiers.__name__, recognizers.__name__)
# What a cut line may end with: too short to be known for what it is, long enough to tell.
_TORN = re.compile(r"(?:[\w.+%'-]{1,64}@[\w.-]{0,255}|\d(?:[ .-]?\d){5,33})$")
# JSON in JSON has its escapes escaped.
_ESCAPED = re.compile(r"\\+(?:u(?P<code>[0-9a-fA-F]{4})|(?P<space>[nrtbf])|/)")
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_FINDERS: Mapping[str, recognizers.Finder] = {
    "secret": identifiers.find_secrets,
    "credentials": identifiers.find_credentials,
    "email": identifiers.find_emails,
    "card": identifiers.find_cards,
    "mac": identifiers.find_mac_addresses,
    "ip": identifiers.find_ip_addresses,
}
# Cheap and exact: where one of the two says no, the finder would find nothing. Patterns begin
# with what is rare in a text, so that most of it is skipped.
_LEAST_DIGITS = {"iban": 2, "crypto": 1, "card": 13, "national_id": 6, "phone": 7}
_DIGIT = re.compile(r"\d")
_CARD_LONG = re.compile(r"\d(?:[\s.-]{0,2}\d){12}")
_AFTER_COUNTRY = re.compile(r"\d\d(?<=[A-Za-z]{2}\d\d)")
_BASE58 = re.compile(r"[13][1-9A-HJ-NP-Za-km-z]{25}")
_DOTTED = re.compile(r"\d\.\d{1,3}\.\d")
_COLONS = re.compile(r":[0-9a-fA-F]{0,4}:")
_HEX_PAIR = re.compile(r"[:-][0-9a-fA-F]{2}[:-]")
_TWO_PAIRS = re.compile(r"\d\d\D?\d\d")
_SCREENS: Mapping[str, Callable[[str], object]] = {
    "secret": lambda text: (
        any(map(text.__contains__, identifiers.SIGNS_OF_SIGNS))
        and any(map(text.__contains__, identifiers.SECRET_SIGNS))
    ),
    "credentials": lambda text: "://" in text or "=" in text,
    "email": lambda text: "@" in text or "%40" in text or "&#" in text,
    "iban": lambda text: _AFTER_COUNTRY.search(text) and recognizers.SHAPES["iban"].search(text),
    "crypto": lambda text: (
        ("0x" in text or "bc1" in text or "BC1" in text or _BASE58.search(text))
        and recognizers.SHAPES["crypto"].search(text)
    ),
    "card": _CARD_LONG.search,
    "mac": _HEX_PAIR.search,
    "ip": lambda text: _DOTTED.search(text) or _COLONS.search(text),
    "national_id": lambda text: (
        _TWO_PAIRS.search(text)
        and (
            recognizers.SHAPES["national_id"].search(text)
            or any(map(text.lower().__contains__, recognizers.ID_WORDS))
        )
    ),
    "phone": recognizers.SHAPES["phone"].search,
    "person": bool,
    "location": bool,
}


class Hit(NamedTuple):
    """A value that was found, ``text[start:end]``."""

    start: int
    end: int
    entity: str


def checked_policy(policy: Mapping[str, str]) -> dict[str, str]:
    """``policy`` itself. Raises ValueError that names an unknown entity or action."""
    for entity, action in policy.items():
        if entity not in ENTITIES:
            raise ValueError(f"{entity!r} is no entity; known are {', '.join(ENTITIES)}")
        if action not in ACTIONS:
            raise ValueError(f"{action!r} for {entity} is none of {', '.join(ACTIONS)}")
    return dict(policy)


class Detector:
    """Finds personal data and does with it what the policy says; made once, used on every text.

    What the policy does not name is not looked for. Raises LineageError when it names people or
    places and no installed spaCy model is given, or the other way round, and for regions that
    are none.
    """

    def __init__(
        self,
        policy: Mapping[str, str],
        ner_model: str = "",
        phone_regions: Sequence[str] = DEFAULT_REGIONS,
    ) -> None:
        self.policy = checked_policy(policy)
        named = [entity for entity in NAMED_BY_MODEL if entity in policy]
        if bool(named) != bool(ner_model):
            raise LineageError(
                f"`privacy` names {' and '.join(named) or 'neither person nor location'}, and"
                f" `ner_model` is {ner_model or 'empty'}.",
                "A model finds people and places: set both or neither (op validated_dataset).",
            )
        self._looked_for = [
            (entity, _LEAST_DIGITS.get(entity, 0), _SCREENS[entity])
            for entity in ENTITIES
            if entity in policy
        ]
        self._ner_model, self._regions = ner_model, tuple(phone_regions)
        # Labels, roles and whole answers come again and again.
        self._remembered = lru_cache(REMEMBERED)(self._scan_new)
        if ner_model or self._regions != DEFAULT_REGIONS:
            _recognizers(self._regions, ner_model)  # refuse now what is not there

    def find(self, text: str) -> list[Hit]:
        """What stands where, in the order of the text; no two overlap."""
        hits: list[Hit] = []
        rest, digits = text, len(_DIGIT.findall(text))
        for entity, least_digits, screen in self._looked_for:
            if digits < least_digits or not screen(rest):
                continue
            if found := [Hit(*span, entity) for span in merged(self._finder(entity)(rest))]:
                hits += found
                rest = _replaced(rest, found, lambda hit: chr(0) * (hit.end - hit.start))
        return sorted(hits)

    def scan(self, text: str) -> tuple[str, Counter[str]]:
        """``text`` with ``[email]`` and the like in place of values, and how many of each.

        What is only flagged is counted and stays.
        """
        hits = self.find(text)
        hidden = [hit for hit in hits if self.policy[hit.entity] != "flag"]
        clean = _replaced(text, hidden, lambda hit: f"[{hit.entity}]")
        return clean, Counter(hit.entity for hit in hits)

    def scan_json(self, value: Any, found: Counter[str]) -> Any:
        """A JSON value with every text, key and number in it scanned; adds to ``found``.

        A text that is JSON itself (an answer, the arguments of a tool call) stays JSON.
        """
        if isinstance(value, str):
            return self._scan_text(value, found)
        if isinstance(value, Mapping):
            return {
                self.scan_json(key, found): self.scan_json(item, found)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.scan_json(item, found) for item in value]
        if isinstance(value, int | float) and not isinstance(value, bool):
            digits = str(value)
            clean = self._scan_text(digits, found)
            return value if clean == digits else clean
        return value

    def _scan_text(self, text: str, found: Counter[str]) -> str:
        clean, here = (self._remembered if len(text) <= SHORT else self._scan_new)(text)
        if here:
            found.update(here)
        return clean

    def _scan_new(self, text: str) -> tuple[str, Counter[str]]:
        clean, found = self.scan(text)
        # What JSON does not escape stands in the text as it is.
        if not (found or "\\" in text) or text.lstrip()[:1] not in ("{", "["):
            return clean, found
        inside: Counter[str] = Counter()
        try:
            tree = json.loads(text)
            cleaned = self.scan_json(tree, inside)
        except (ValueError, RecursionError):
            return clean, found
        if not inside:
            return clean, found
        if cleaned == tree:
            return text, inside
        written = json.dumps(cleaned, ensure_ascii=False)
        return _HALF_CHARACTER.sub(lambda half: f"\\u{ord(half.group()):04x}", written), inside

    @property
    def version(self) -> str:
        """What decides what is found, beside the policy: our code and the language model."""
        model = recognizers.model_version(self._ner_model) if self._ner_model else ""
        return digest_json([*map(code_digest, (__name__, *_MODULES)), model])

    def blocks(self, found: Mapping[str, int]) -> bool:
        """Whether a row with these entities must be set aside."""
        return any(self.policy[entity] == "block" for entity in found)

    def _finder(self, entity: str) -> recognizers.Finder:
        return _FINDERS.get(entity) or _recognizers(self._regions, self._ner_model)[entity]


def _replaced(text: str, hits: Sequence[Hit], by: Callable[[Hit], str]) -> str:
    """``text`` with something else in place of ``hits``, which stand in its order."""
    parts, done = [], 0
    for hit in hits:
        parts += [text[done : hit.start], by(hit)]
        done = hit.end
    return "".join([*parts, text[done:]])


@cache
def _recognizers(regions: tuple[str, ...], model: str) -> Mapping[str, recognizers.Finder]:
    return recognizers.finders(regions, model)


@cache
def _everything() -> Detector:
    return Detector(DEFAULT_POLICY)


def redact(text: str) -> tuple[str, Counter[str]]:
    """``text`` with a placeholder such as ``[email]`` for all that is found, and how many."""
    return (_redact_short if len(text) <= SHORT else _everything().scan)(text)


@lru_cache(REMEMBERED)  # ids, roles and values of slices come again and again
def _redact_short(text: str) -> tuple[str, Counter[str]]:
    return _everything().scan(text)


def excerpt(line: str) -> str:
    """The beginning of a bad line, fit to be shown: redacted first, then cut.

    Escapes are read first, as JSON and URLs write them: ``\\u0040`` is an ``@``, and no letter
    of ``\\n`` stands before a value and hides it. Half an address or number at the end of a
    torn line goes too.
    """
    shown, _ = redact(_ESCAPED.sub(_unescaped, line))
    shown = _TORN.sub("[torn]", shown)
    return shown[:EXCERPT] + ("…" if len(shown) > EXCERPT else "")


def pseudonym(key: str) -> str:
    """``key``, or a hash in its place where the key itself is personal data."""
    if not redact(key)[1]:
        return key
    return f"anon-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def _unescaped(match: re.Match[str]) -> str:
    if match["code"] is None:
        return " " if match["space"] else "/"
    character = chr(int(match["code"], 16))
    return match.group() if "\ud800" <= character <= "\udfff" else character
