"""Where the answers of one release come from: a server that speaks the OpenAI protocol."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Upstream:
    """A ready engine for one release. Any OpenAI-compatible server can be one."""

    release: str
    """Digest of the bundle that it serves."""
    url: str
    """Up to and with ``/v1``, without a slash at the end."""
    model: str
    """The model's name in the body of a request."""
    system: str = ""
    """The bundle's system prompt, put before the caller's messages; empty adds none."""
    prompt: str = ""
    """Digest of that prompt."""
    generation: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the body that the bundle fixes unless the caller says otherwise."""
    api_key: str = field(default="", repr=False)
    """Sent as bearer token; empty sends none."""
