"""Reads the function calls that an answer makes, in the forms that chat models write.

Between ``<tool_call>`` tags (Hermes, Qwen), or as the whole answer, one JSON object or a list
of them (Llama 3.1, Mistral).
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from mlops_assets.metrics import parse_object

OPEN, CLOSE = "<tool_call>", "</tool_call>"


class Call(NamedTuple):
    """A function that was called."""

    name: str
    arguments: Mapping[str, Any]


def parse_calls(text: str) -> list[Call] | None:
    """The calls in ``text``; none where it makes none, None where one is malformed."""
    parts = _parts(text)
    calls = [_call(part) for part in parts]
    return None if None in calls else [call for call in calls if call is not None]


def _parts(text: str) -> list[str]:
    """The pieces of ``text`` that should each hold one call."""
    if OPEN in text:
        return [part.partition(CLOSE)[0] for part in text.split(OPEN)[1:]]
    text = text.strip()
    if text.startswith("["):
        try:
            listed = json.loads(text)
        except (ValueError, RecursionError):
            return []
        found = [json.dumps(item) for item in listed]
        return found if found and all(map(_names_function, found)) else []
    return [text] if _names_function(text) else []


def _names_function(text: str) -> bool:
    """Whether it is an object as a call is, and not one that happens to be the answer."""
    found = parse_object(text) or {}
    return "name" in found and ("arguments" in found or "parameters" in found)


def _call(text: str) -> Call | None:
    found = parse_object(text.strip()) or {}
    name, arguments = found.get("name"), found.get("arguments", found.get("parameters", {}))
    if isinstance(arguments, str):
        arguments = parse_object(arguments)
    return Call(name, arguments) if isinstance(name, str) and isinstance(arguments, dict) else None
