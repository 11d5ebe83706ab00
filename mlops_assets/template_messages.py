"""Messages as chat templates take them: nearly in the OpenAI form, the release's prompt first."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from mlops_assets.refs import Message, Row


def template_messages(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """The messages with the arguments of tool calls as objects.

    The OpenAI form holds them as text; servers parse it before they render, and so do we.
    """
    return [
        dict(message) | {"tool_calls": [_with_object(call) for call in message["tool_calls"]]}
        if message.get("tool_calls")
        else dict(message)
        for message in messages
    ]


def _with_object(call: Mapping[str, Any]) -> dict[str, Any]:
    function = dict(call["function"])
    if isinstance(function["arguments"], str):
        function["arguments"] = json.loads(function["arguments"])
    return dict(call) | {"function": function}


def with_system(system: str, row: Row) -> Row:
    """The row as it is asked when ``system`` is the release's prompt.

    The prompt comes first. A system message of the row's own follows it after a blank line, in
    the same message, because many chat templates take only one.
    """
    if not system:
        return row
    first, *rest = row.messages
    if first["role"] == "system":
        message = {**first, "content": f"{system}\n\n{first['content']}"}
        return replace(row, messages=(message, *rest))
    return replace(row, messages=({"role": "system", "content": system}, *row.messages))
