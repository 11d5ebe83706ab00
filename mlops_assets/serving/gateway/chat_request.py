"""The body of a chat completion: what we rely on is checked, what is dangerous is refused, and
the rest is the engine's."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from mlops_assets.serving.gateway.refusal import NOT_FOUND, Refusal, invalid
from mlops_assets.serving.gateway.upstream import Upstream
from mlops_assets.serving.gateway_spec import GatewaySpec

ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
PASSED_ON = frozenset(
    {
        *("messages", "model", "stream", "stream_options", "n", "stop", "seed"),
        *("temperature", "top_p", "presence_penalty", "frequency_penalty", "logit_bias"),
        *("logprobs", "top_logprobs", "response_format", "reasoning_effort", "verbosity"),
        *("tools", "tool_choice", "parallel_tool_calls"),
        # Samplers that open engines have beside the protocol's.
        *("top_k", "min_p", "repetition_penalty"),
    }
)
"""Every other field is refused: engines know many that change the prompt that was approved,
exchange the adapter, load code, reach the network or cost without bound, and new ones come."""
OURS = frozenset({"metadata", "user", "max_completion_tokens", "max_tokens"})
"""Fields that are for the gateway: the engine gets none of them as they came."""
IGNORED = frozenset({"safety_identifier", "prompt_cache_key", "service_tier"})
"""What clients tell OpenAI's servers about themselves; no engine gets it."""
DEEPEST = 200
"""Levels of a body's nesting. JSON is read four times as deep as it is written."""
MOST_ATTRIBUTES = 16
LONGEST_USER = 256
LONGEST_FEATURE = 64
LONGEST_SLICE = 64
FEATURE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")


@dataclass(slots=True)
class ChatRequest:
    """A request that was checked."""

    fields: dict[str, Any]
    """The body; messages hold text alone."""
    messages: list[dict[str, Any]]
    model: str
    stream: bool
    wants_usage: bool
    """Whether the caller asked for the usage of a stream."""
    user: str
    """As the caller names its user; empty if it does not."""
    attributes: Mapping[str, Any]
    slices: Mapping[str, str]
    """Those of the attributes that stand in the record."""
    max_tokens: int | None

    def upstream_body(self, upstream: Upstream, most_tokens: int) -> bytes:
        """What the engine is asked: the bundle's prompt first, its settings where the caller
        says nothing else, and for a stream its usage."""
        body = {**upstream.generation, **self.fields, "model": upstream.model}
        if upstream.system:
            system = {"role": "system", "content": upstream.system}
            body["messages"] = [system, *self.messages]
        body["max_tokens"] = self.longest_answer(upstream, most_tokens)
        if self.stream:
            body["stream_options"] = {"include_usage": True}
        return orjson.dumps(body)

    def longest_answer(self, upstream: Upstream, most_tokens: int) -> int:
        """What the answer is limited to, in tokens."""
        given = self.max_tokens or upstream.generation.get("max_tokens") or most_tokens
        return min(int(given), most_tokens)

    def parameters(self) -> dict[str, Any]:
        """What beside the messages decides the answer, for caches."""
        left_out = ("messages", "model", "stream", "stream_options")
        chosen = {name: value for name, value in self.fields.items() if name not in left_out}
        return chosen | {"max_tokens": self.max_tokens}


def parse(body: bytes, spec: GatewaySpec) -> ChatRequest:
    """Read and check a body. Raises Refusal (400)."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise invalid(f"The body is not JSON: {error}.") from None
    if not isinstance(fields, dict):
        raise invalid("The body is not a JSON object.")
    if unwanted := fields.keys() - PASSED_ON - OURS - IGNORED:
        name = min(unwanted)[:100]
        raise invalid(f"The field {name!r} is not accepted here.", name, "unsupported_parameter")
    _check_depth(body, fields)
    if fields.get("n") not in (None, 1):
        raise invalid("n must be 1: ask again for another answer.", "n")
    messages = _messages(fields.get("messages"), spec.maximum_messages)
    stream = _of_type(fields, "stream", bool, False)
    attributes = _attributes(fields.get("metadata"))
    request = ChatRequest(
        # Null is what is not said: it takes no setting of the bundle away.
        fields={
            name: value for name, value in fields.items() if name in PASSED_ON and value is not None
        },
        messages=messages,
        model=_of_type(fields, "model", str, ""),
        stream=stream,
        wants_usage=_wants_usage(fields, stream),
        user=_user(fields),
        attributes=attributes,
        slices={
            name: _slice(attributes[name]) for name in spec.slices if attributes.get(name, "") != ""
        },
        max_tokens=_max_tokens(fields, spec.maximum_output_tokens),
    )
    request.fields["messages"] = messages
    return request


def check_model(wanted: str, served: str) -> None:
    """Raises Refusal unless the caller names the model that is served."""
    if not wanted:
        raise invalid("The body names no model.", "model")
    if wanted != served:
        raise Refusal(
            404,
            NOT_FOUND,
            f"There is no model {wanted[:100]!r} here; GET /v1/models lists what is served.",
            param="model",
            code="model_not_found",
        )


def parse_feature(header: str) -> str:
    """The header ``X-Feature``. Raises Refusal (400) for what is no name."""
    if header and (len(header) > LONGEST_FEATURE or not FEATURE.match(header)):
        raise invalid(
            f"X-Feature is a name of up to {LONGEST_FEATURE} letters, digits, `.`, `_`, `/`, `-`."
        )
    return header


def _check_depth(body: bytes, fields: Any) -> None:
    """Raises Refusal (400) for what could be read and could not be written again."""
    if body.count(b"[") + body.count(b"{") <= DEEPEST:
        return
    level = [fields]
    for _ in range(DEEPEST):
        if not (level := [each for one in level for each in _inside(one)]):
            return
    raise invalid(f"The body is nested deeper than {DEEPEST} levels.")


def _inside(value: Any) -> list[Any]:
    """The lists and objects that a list or object holds."""
    held = value.values() if isinstance(value, dict) else value
    return [each for each in held if isinstance(each, list | dict)]


def _messages(given: Any, most: int) -> list[dict[str, Any]]:
    if not isinstance(given, list) or not given:
        raise invalid("messages must be a list with at least one message.", "messages")
    if len(given) > most:
        raise invalid(f"messages may hold {most:,} messages.", "messages")
    return [_message(each, f"messages.{index}") for index, each in enumerate(given)]


def _message(given: Any, where: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise invalid(f"{where} is not an object.", where)
    role = given.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise invalid(f"{where}.role must be one of {', '.join(sorted(ROLES))}.", f"{where}.role")
    content = given.get("content")
    if isinstance(content, str):
        return given
    if content is None:
        if role == "assistant" and given.get("tool_calls"):
            return given
        raise invalid(f"{where}.content is missing.", f"{where}.content")
    return {**given, "content": _text(content, f"{where}.content")}


def _text(parts: Any, where: str) -> str:
    """The text of content in parts. Anything else could have the engine fetch an address."""
    if not isinstance(parts, list):
        raise invalid(f"{where} must be text, or a list of parts.", where)
    texts = []
    for part in parts:
        text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
        if not isinstance(text, str):
            raise invalid(f"{where} may hold parts of type `text` alone.", where)
        texts.append(text)
    return "".join(texts)


def _of_type(fields: Mapping[str, Any], name: str, kind: type, default: Any) -> Any:
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, kind):
        raise invalid(f"{name} must be a {kind.__name__}.", name)
    return value


def _wants_usage(fields: Mapping[str, Any], stream: bool) -> bool:
    options = _of_type(fields, "stream_options", dict, {})
    if options and not stream:
        raise invalid("stream_options belong to a stream.", "stream_options")
    return options.get("include_usage") is True


def _user(fields: Mapping[str, Any]) -> str:
    user: str = _of_type(fields, "user", str, "")
    if len(user) > LONGEST_USER:
        raise invalid(f"user may have {LONGEST_USER} characters.", "user")
    return user


def _attributes(metadata: Any) -> Mapping[str, Any]:
    if metadata is None:
        return {}
    if (
        not isinstance(metadata, dict)
        or len(metadata) > MOST_ATTRIBUTES
        or not all(isinstance(value, str | int | float | bool) for value in metadata.values())
    ):
        raise invalid(
            f"metadata must be an object of up to {MOST_ATTRIBUTES} texts, numbers and booleans.",
            "metadata",
        )
    return metadata


def _slice(value: str | float | bool) -> str:
    """As the data of training would write it: JSON but for text's quotes."""
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return text[:LONGEST_SLICE]


def _max_tokens(fields: Mapping[str, Any], most: int) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        value = fields.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise invalid(f"{name} must be a whole number from 1 to {most:,}.", name)
        return value
    return None
