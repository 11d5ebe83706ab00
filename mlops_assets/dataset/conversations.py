"""Makes one conversation of a record's fields, in the form of OpenAI's chat API.

Personal data is taken out here, so nothing after it sees any.
"""

from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from mlops_assets.dataset.strict_json import parse_object
from mlops_assets.privacy import Detector, redact
from mlops_assets.refs import Message

NAMES = (
    "messages", "system", "prompt", "completion", "label", "chosen", "rejected", "tools",
    "id", "timestamp", "group", "split",
)  # fmt: skip
"""The fields we know; a mapping gives each the name it has in the source."""

SHAPES: dict[str, tuple[tuple[str, ...], ...]] = {
    "messages": (("messages",),),
    "preference": (("chosen", "rejected"),),
    "prompt_completion": (("prompt", "completion"), ("prompt", "label")),
}
"""What the fields of a record may add up to, and the fields that tell."""

KNOWN_ROLES = frozenset({"system", "user", "assistant", "tool"})
LONGEST_NAME = 60  # characters of a role or a name
REMEMBERED_TOOLS = 32_768  # characters of schemas that are kept for the next row

Get = Callable[[str], Any]
Scan = Callable[[Any], Any]
Turn = dict[str, Any]


class Conversation(NamedTuple):
    """What a record says; no messages where something is missing or not text."""

    messages: tuple[Message, ...] | None
    rejected: Message | None = None
    tools: tuple[dict[str, Any], ...] = ()


class MalformedError(Exception):
    """A record that is no conversation; its text is one of ``records.FORMS``."""


class _IncompleteError(Exception):
    """A turn is missing or not text."""


def conversation(
    get: Get, shape: str, answer_field: str, detector: Detector, found: Counter[str]
) -> Conversation:
    """The record's conversation; ``found`` counts the personal data in it.

    ``get`` gives a field by our name for it. A ``label`` becomes the answer
    ``{"<answer_field>": label}``. Raises MalformedError for tools or pairs that are malformed.
    """

    def scan(value: Any) -> Any:
        return detector.scan_json(value, found)

    rejected: Turn | None = None
    try:
        if shape == "messages":
            messages, rejected = _turns(get("messages"), scan), _rejected(get, scan)
        elif shape == "preference":
            messages, rejected = _pair(get, scan)
        else:
            messages = _prompt(get, scan) + _completion(get, answer_field, scan)
        messages = _instructed(messages, get, scan)
    except _IncompleteError:
        return Conversation(None)
    _check_calls(messages)
    return Conversation(tuple(messages), rejected, _tools(get("tools"), detector, found))


def _prompt(get: Get, scan: Scan) -> list[Turn]:
    value = get("prompt")
    return [_said("user", value, scan)] if isinstance(value, str) else _turns(value, scan)


def _instructed(turns: list[Turn], get: Get, scan: Scan) -> list[Turn]:
    """The turns after what a field `system` says, unless they begin with just that."""
    if not (system := get("system")):
        return turns
    turn = _said("system", system, scan)
    return turns if turns[0] == turn else [turn, *turns]


def _completion(get: Get, answer_field: str, scan: Scan) -> list[Turn]:
    value = get("completion")
    if value is None and isinstance(label := get("label"), str):
        return [{"role": "assistant", "content": _json({answer_field: scan(label)})}]
    return _answer(value, scan)


def _answer(value: Any, scan: Scan) -> list[Turn]:
    """A text is what the assistant says; else messages, or one."""
    if isinstance(value, str):
        return [_said("assistant", value, scan)]
    return _turns([value] if isinstance(value, dict) else value, scan)


def _rejected(get: Get, scan: Scan) -> Turn | None:
    if (value := get("rejected")) is None:
        return None
    turns = _answer(value, scan)
    if len(turns) != 1 or turns[0]["role"] != "assistant":
        raise MalformedError("bad_preference")
    return turns[0]


def _pair(get: Get, scan: Scan) -> tuple[list[Turn], Turn]:
    """The conversation with the better answer, and the worse answer.

    Each side is an answer, or a whole conversation that may repeat the prompt; they must agree
    on all but the last turn.
    """
    prompt = _prompt(get, scan) if get("prompt") is not None else []
    chosen = _answer(get("chosen"), scan)
    rejected = _answer(get("rejected"), scan)
    head = chosen[:-1]
    last = (chosen[-1], rejected[-1])
    if head != rejected[:-1] or last[0] == last[1] or any(t["role"] != "assistant" for t in last):
        raise MalformedError("bad_preference")
    if not prompt or prompt in (head[: len(prompt)], head[-len(prompt) :]):
        prompt, head = head, []
    return [*prompt, *head, last[0]], last[1]


def _turns(value: Any, scan: Scan) -> list[Turn]:
    if isinstance(value, str):  # a cell of a table holds the list as JSON
        value = _parse(value)
    if not isinstance(value, list) or not value:
        raise _IncompleteError
    return [_turn(item, scan) for item in value]


def _turn(item: Any, scan: Scan) -> Turn:
    if not isinstance(item, dict) or not isinstance(role := item.get("role"), str) or not role:
        raise _IncompleteError
    content, calls = _content(item.get("content")), item.get("tool_calls")
    if content is None and not calls:
        raise _IncompleteError
    turn: Turn = _said(role, content or "", scan)
    if calls:
        turn["tool_calls"] = _calls(calls, scan)
    for name in ("tool_call_id", "name"):
        if isinstance(value := item.get(name), str):
            turn[name] = str(scan(value))[:LONGEST_NAME]
    return turn


def _said(role: str, content: Any, scan: Scan) -> Turn:
    if not isinstance(content, str):
        raise _IncompleteError
    role = role if role in KNOWN_ROLES else redact(role)[0][:LONGEST_NAME]
    return {"role": role, "content": scan(content)}


def _content(value: Any) -> str | None:
    """Text, or the parts of text that OpenAI's API also takes; None for anything else."""
    if isinstance(value, list) and value:
        found = (item.get("text") if isinstance(item, dict) else None for item in value)
        parts = [part for part in found if isinstance(part, str)]
        return "".join(parts) if len(parts) == len(value) else None
    return value if isinstance(value, str) else None


def _calls(calls: Any, scan: Scan) -> list[dict[str, Any]]:
    if not isinstance(calls, list):
        raise MalformedError("bad_tools")
    return [_call(call, scan) for call in calls]


def _call(call: Any, scan: Scan) -> dict[str, Any]:
    """One call in OpenAI's form: the arguments are an object, written as JSON text."""
    function = call.get("function") if isinstance(call, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    given = function.get("arguments") if isinstance(function, dict) else None
    values = _parse(given) if isinstance(given, str) else given
    if not isinstance(name, str) or not name or not isinstance(values, dict):
        raise MalformedError("bad_tools")
    arguments = scan(given if isinstance(given, str) else _json(given))
    result = {"type": "function", "function": {"name": scan(name), "arguments": arguments}}
    key = call.get("id")
    return {"id": str(scan(key))[:LONGEST_NAME], **result} if isinstance(key, str) else result


def _check_calls(messages: list[Turn]) -> None:
    """Raise MalformedError where a tool answers what nobody asked."""
    called: set[str | None] = set()
    for turn in messages:
        called |= {call.get("id") for call in turn.get("tool_calls", ())}
        if turn["role"] == "tool" and not called:
            raise MalformedError("bad_tools")
        if "tool_call_id" in turn and turn["tool_call_id"] not in called:
            raise MalformedError("bad_tools")


def _tools(value: Any, detector: Detector, found: Counter[str]) -> tuple[dict[str, Any], ...]:
    if not value:
        return ()
    text = value if isinstance(value, str) else _json(value)
    read = _remembered_tools if len(text) <= REMEMBERED_TOOLS else _read_tools
    schemas, here = read(text, detector)
    found.update(dict(here))
    return schemas


def _read_tools(
    text: str, detector: Detector
) -> tuple[tuple[dict[str, Any], ...], tuple[tuple[str, int], ...]]:
    """The schemas, and the personal data found in them."""
    found: Counter[str] = Counter()
    schemas = _parse(text)
    if not isinstance(schemas, list):
        raise MalformedError("bad_tools")
    for schema in schemas:
        function = schema.get("function") if isinstance(schema, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise MalformedError("bad_tools")
    return tuple(detector.scan_json(schemas, found)), tuple(found.items())


_remembered_tools = lru_cache(maxsize=256)(_read_tools)  # most rows of a file share theirs


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


def _parse(text: str) -> Any:
    """The value of JSON text, read as strictly as a line is; None where it has none."""
    content, _ = parse_object(f'{{"value":{text}}}')
    return content and content.get("value") if content and len(content) == 1 else None
