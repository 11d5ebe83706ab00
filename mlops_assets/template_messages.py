"""Messages in the form that chat templates take, which is not quite the OpenAI form."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from mlops_assets.refs import Message


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
