"""Parses JSON that every reader understands alike, at the speed of orjson.

RFC 8259 leaves open what a repeated key means; Python's own parser takes NaN, half characters
and any depth. Here each of these is a fault with a name.
"""

import json
import math
import re
from typing import Any, Never

import orjson

from mlops_assets.dataset.records import SOUND

DEEPEST = 254  # levels; what orjson writes

_SUSPECT = re.compile(r"\\u00(?:00|3[aA])")  # an escaped NUL or colon


class _FaultError(Exception):
    """Carries the name of a fault out of the parser."""


def parse_object(text: str) -> tuple[dict[str, Any] | None, str]:
    """The object that ``text`` holds, or None and what is wrong: one of ``records.FORMS``.

    orjson keeps the last of two equal keys in silence. But the dropped one takes its colon
    along, so the object has a repeated key exactly when writing it again gives fewer colons;
    only an escaped colon in the text could hide that.
    """
    try:
        value = orjson.loads(text)
        if (
            type(value) is dict
            and text.count(":") == orjson.dumps(value).count(b":")
            and not ("\\u00" in text and _SUSPECT.search(text))
        ):
            return value, SOUND
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        pass
    return _parse_slowly(text)


def _parse_slowly(text: str) -> tuple[dict[str, Any] | None, str]:
    """As ``parse_object``, naming the fault."""
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_not_a_number,
            parse_float=_finite,
            parse_int=_integer,
        )
        _check_values(value)
    except _FaultError as fault:
        return None, str(fault)
    except RecursionError:
        return None, "too_deep"
    except ValueError:
        return None, "broken_json"
    return (value, SOUND) if isinstance(value, dict) else (None, "broken_json")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise _FaultError("duplicate_key")
    return result


def _not_a_number(_: str) -> Never:
    raise _FaultError("not_a_number")


def _finite(digits: str) -> float:
    value = float(digits)
    return value if math.isfinite(value) else _not_a_number(digits)


def _integer(digits: str) -> int | float:
    """As orjson: a float where 64 bits do not hold it."""
    small = len(digits) < 22 and -(2**63) <= int(digits) < 2**64
    return int(digits) if small else _finite(digits)


def _check_values(root: object) -> None:
    waiting: list[tuple[object, int]] = [(root, 1)]
    while waiting:
        value, depth = waiting.pop()
        if depth > DEEPEST:
            raise _FaultError("too_deep")
        if isinstance(value, dict):
            waiting += [(item, depth + 1) for pair in value.items() for item in pair]
        elif isinstance(value, list):
            waiting += [(item, depth + 1) for item in value]
        elif isinstance(value, str):
            _check_text(value)


def _check_text(value: str) -> None:
    if "\0" in value:
        raise _FaultError("nul_byte")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise _FaultError("lone_surrogate")
