"""Who is eligible, by OpenFeature: flags keep users out of canaries, shadows and experiments.

Whatever goes wrong (no such flag, a broken file, a server that cannot be reached, a flag that
is no boolean) means that the user is not eligible, and gets what everybody gets. A flag's value
is remembered for a few seconds by user and attributes, because every request asks for it: a
changed file counts at once, a rule about the time of day within those seconds.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cachetools import TTLCache
from openfeature import api
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import EventDetails, ProviderEvent
from openfeature.provider import AbstractProvider

from mlops_assets.profiles import PROJECT
from mlops_assets.serving.traffic.flag_file import FlagFile

logger = logging.getLogger(__name__)

DOMAIN = "mlops_assets"
CANARY, SHADOW = "canary", "shadow"
"""Flags that the router asks; an experiment names its own."""
REMEMBERED, SECONDS = 65_536, 5.0
LONGEST_ATTRIBUTE = 512  # characters; a longer one is cut, for flags and for memory


class Flags:
    """Evaluates boolean flags. Used from one thread: the event loop's."""

    def __init__(self, provider: AbstractProvider, seconds: float = SECONDS) -> None:
        """``seconds`` is how long a value is remembered."""
        self._provider = provider
        self._changed = False
        self._known: TTLCache[Any, bool] = TTLCache(REMEMBERED, seconds)
        try:
            api.set_provider_and_wait(provider, DOMAIN)
        except Exception as error:  # whatever a provider raises: without flags nobody is eligible
            logger.error("The flags cannot be used (%s): nobody is eligible", error)
        self._client = api.get_client(DOMAIN)
        self._client.add_handler(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED, self._forget)

    def eligible(self, flag: str, user: str, attributes: Mapping[str, Any]) -> bool:
        """Whether the flag is on for this user."""
        if self._changed:
            self._changed = False
            self._known.clear()
        try:
            # True, 1 and 1.0 are equal to Python, and not to a flag's rule.
            key = (flag, user, *attributes.items(), *map(type, attributes.values()))
            found = self._known.get(key)
        except TypeError:  # an attribute that cannot be remembered
            return self._evaluate(flag, user, attributes)
        if found is None:
            found = self._known[key] = self._evaluate(flag, user, attributes)
        return found

    @property
    def problem(self) -> str | None:
        """Why the flags in force are not those of the file; None while they are."""
        return getattr(self._provider, "problem", None)

    def close(self) -> None:
        """Stop watching."""
        self._client.remove_handler(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED, self._forget)
        self._provider.shutdown()

    def _evaluate(self, flag: str, user: str, attributes: Mapping[str, Any]) -> bool:
        shown = {name: _short(value) for name, value in attributes.items()}
        details = self._client.get_boolean_details(flag, False, EvaluationContext(user, shown))
        return details.error_code is None and details.value is True

    def _forget(self, _: EventDetails) -> None:
        """Called from a thread of the SDK: leave the work to the event loop's."""
        self._changed = True


def make_flags(file: str, growthbook: str, project: Path = PROJECT) -> Flags:
    """The flags that the settings name: of a GrowthBook server where there is one, else of a file.

    ``file`` is relative to the project. ``growthbook`` is the server's URL, and its client key
    comes from GROWTHBOOK_CLIENT_KEY. Raises LineageError where GrowthBook is not installed or has
    no key.
    """
    if growthbook:
        from mlops_assets.serving.traffic.growthbook_flags import growthbook_provider

        return Flags(growthbook_provider(growthbook, os.environ.get("GROWTHBOOK_CLIENT_KEY", "")))
    return Flags(FlagFile(flags_path(file, project)))


def flags_path(file: str, project: Path = PROJECT) -> Path:
    """Where the flags of the settings lie."""
    return project / Path(os.path.expandvars(file)).expanduser()


def _short(value: Any) -> Any:
    return value[:LONGEST_ATTRIBUTE] if isinstance(value, str) else value
