"""An engine's answer as it passes: what the log, the budgets and the callers need of it.

The engine's bytes go through as they are. Two things are exchanged where they stand, the
completion's id and the model's name: an engine knows the model by a path of ours, and the caller
gives the id back with its feedback. Inside a JSON text every quote is escaped, so the name with
its value in quotes can only be the field itself.
"""

import re
from dataclasses import dataclass, field
from typing import Any

import orjson

from mlops_assets.serving.gateway.refusal import ENGINE, Refusal
from mlops_assets.serving.records.observations import ENGINE_NOT_FINITE

EVENT_END = re.compile(rb"\r?\n\r?\n")
LONGEST_END = 4  # bytes
NO_NUMBER = re.compile(rb"(?<=[:\[,\s])-?(?:NaN|Infinity)(?=\s*[,\]}])")
DONE = b"[DONE]"


class Garbage(Exception):
    """The engine's bytes are no answer."""

    code = "engine_garbage"


class NotFinite(Garbage):
    """A number in the engine's answer is none: its arithmetic broke down."""

    code = ENGINE_NOT_FINITE


@dataclass(slots=True)
class Answer:
    """What is known of an answer so far."""

    id: str
    """The gateway's request id."""
    model: str = ""
    """The name by which callers know the model."""
    text: str = ""
    tool_calls: bool = False
    refusal: bool = False
    finish: str = ""
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost: float | None = None
    """What the engine says that the answer cost; hosted providers' prices are known there."""
    pieces: int = 0
    """Events that carried a part of the answer: a lower bound of its tokens."""
    _parts: list[str] = field(default_factory=list)
    _exchange: list[tuple[bytes, bytes]] | None = None

    def take_completion(self, body: bytes) -> bytes:
        """Read a plain completion; returns it under our names. Raises Garbage."""
        completion = _object(body)
        choices = completion.get("choices")
        if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
            raise Garbage
        message = choices[0].get("message")
        if not isinstance(message, dict):
            raise Garbage
        self._take_choice(choices[0], message)
        self._take_usage(completion.get("usage"))
        self.close()
        return self._rename(body, completion)

    def take_event(self, payload: bytes) -> tuple[bytes, bool]:
        """Read the data of one event; returns it under our names, and whether it is usage alone.

        Raises Garbage for what is no chunk of a completion.
        """
        chunk = _object(payload)
        choices = chunk.get("choices")
        if not isinstance(choices, list) or len(choices) > 1:
            raise Garbage
        for choice in choices:
            if not isinstance(choice, dict) or not isinstance(choice.get("delta"), dict):
                raise Garbage
            self._take_choice(choice, choice["delta"])
        self._take_usage(chunk.get("usage"))
        return self._rename(payload, chunk), not choices

    def close(self) -> None:
        """Put the parts together."""
        self.text = "".join(self._parts)

    def _take_choice(self, choice: dict[str, Any], said: dict[str, Any]) -> None:
        content, reason = said.get("content"), choice.get("finish_reason")
        if content is not None and not isinstance(content, str):
            raise Garbage
        if content:
            self._parts.append(content)
        if said.get("tool_calls"):
            self.tool_calls = True
        if said.get("refusal"):
            self.refusal = True
        self.pieces += bool(content or said.get("tool_calls"))
        if isinstance(reason, str):
            self.finish = reason[:32]

    def _take_usage(self, usage: Any) -> None:
        if isinstance(usage, dict):
            read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
            if _is_count(read) and _is_count(written):
                self.tokens_in, self.tokens_out = read, written
            self.cost = _amount(usage.get("cost"))

    def _rename(self, raw: bytes, parsed: dict[str, Any]) -> bytes:
        if self._exchange is None:
            self._exchange = [
                pair
                for name, ours in (("id", self.id), ("model", self.model))
                for pair in _spellings(name, parsed.get(name), ours)
                if pair[0] in raw
            ]
        for theirs, ours in self._exchange:
            if theirs not in raw:
                break
            raw = raw.replace(theirs, ours, 1)
        else:
            if len(self._exchange) == 2:
                return raw
        # Spelled otherwise than anybody does, or changing from event to event.
        return orjson.dumps({**parsed, "id": self.id, "model": self.model})


class Events:
    """Server-sent events cut out of a byte stream."""

    def __init__(self, largest: int) -> None:
        """``largest`` is the most bytes of one event."""
        self._rest = bytearray()
        self._largest = largest

    def feed(self, block: bytes) -> list[bytes]:
        """The data of the events that are complete with this block. Raises Garbage."""
        # What was there is not searched again: a flood without an end would hold up everybody.
        unsearched = max(0, len(self._rest) - LONGEST_END + 1)
        self._rest += block
        parts = []
        if EVENT_END.search(self._rest, unsearched):
            *parts, rest = EVENT_END.split(self._rest)
            self._rest = bytearray(rest)
        if len(self._rest) > self._largest:
            raise Garbage
        return [data for part in parts if (data := _data(part))]


def broken(code: str = "engine_failed") -> Refusal:
    """What a caller is told when the engine gave no usable answer."""
    return Refusal(503, ENGINE, "The model gave no usable answer. Try again.", 1.0, code=code)


def _data(event: bytes) -> bytes:
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    lines = [line for line in event.splitlines() if line.startswith(b"data:")]
    if not lines and event.strip() and not event.lstrip().startswith((b":", b"event:", b"id:")):
        raise Garbage
    # One line again, as it goes on: JSON takes a space wherever it takes the end of a line.
    return b" ".join(line[5:].removeprefix(b" ") for line in lines)


def _object(raw: bytes) -> dict[str, Any]:
    try:
        parsed = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise NotFinite if _holds_no_number(raw) else Garbage from None
    if not isinstance(parsed, dict) or "error" in parsed:
        raise Garbage
    return parsed


def _holds_no_number(raw: bytes) -> bool:
    """Whether it is JSON but for a NaN or an infinity, as Python writes them."""
    mended, found = NO_NUMBER.subn(b"null", raw)
    try:
        orjson.loads(mended)
    except orjson.JSONDecodeError:
        return False
    return found > 0


def _spellings(name: str, theirs: Any, ours: str) -> list[tuple[bytes, bytes]]:
    """A field as servers write it: without a space after the colon, or with one."""
    if not isinstance(theirs, str):
        return []
    value, key = orjson.dumps(theirs), orjson.dumps(name)
    new = key + b":" + orjson.dumps(ours)
    return [(key + b":" + value, new), (key + b": " + value, new)]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9


def _amount(value: Any) -> float | None:
    """A sum of money; None for what is none."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < 10**6 else None
