"""Which arm of a release answers a request, and what then mirrors it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from mlops_assets.request_record import CHAMPION
from mlops_assets.serving.gateway.upstream import Upstream


@dataclass(frozen=True, slots=True)
class Route:
    """Where one request goes."""

    arm: str
    upstream: Upstream
    mirror: Upstream | None = None
    """The candidate that gets a copy; what it answers nobody sees."""
    experiment: Mapping[str, str] = field(default_factory=dict)
    """Variant of each experiment, by its name."""


class Routes(Protocol):
    """Decides for every request. Must not wait: it runs in the event loop."""

    def route(self, caller: str, user: str, attributes: Mapping[str, Any]) -> Route:
        """``caller`` is the key's name, ``user`` the hash of the caller's user.

        Raises Refusal while nothing can be served.
        """
        ...


@dataclass(frozen=True, slots=True)
class OneUpstream:
    """Everything goes to one engine."""

    upstream: Upstream

    def route(self, caller: str, user: str, attributes: Mapping[str, Any]) -> Route:  # noqa: ARG002
        """Always the champion."""
        return Route(CHAMPION, self.upstream)
