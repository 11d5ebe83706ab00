"""GrowthBook's OpenFeature provider, made usable.

As it comes it cannot be used: its ``initialize`` is a coroutine, which OpenFeature's SDK does not
await, and each evaluation starts a thread with an event loop of its own. GrowthBook's evaluation
itself waits for nothing, so here its coroutine is run to its end in place, and one thread keeps the
event loop in which GrowthBook fetches the features and refreshes them.

Imported where GrowthBook is configured, and only there: the extra may not be installed.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from growthbook_openfeature_provider import GrowthBookProvider, GrowthBookProviderOptions
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import GeneralError, ProviderNotReadyError
from openfeature.flag_evaluation import FlagResolutionDetails

FIRST_TRY = 10.0  # seconds that a start waits for the server
"""A server that answers later is used then."""


class Provider(GrowthBookProvider):  # type: ignore[misc]
    """GrowthBook's own, with an event loop in a thread."""

    def __init__(self, url: str, client_key: str, retry_every: float) -> None:
        super().__init__(GrowthBookProviderOptions(api_host=url, client_key=client_key))
        self._url, self._retry_every = url, retry_every
        self._loop = asyncio.new_event_loop()
        self._tried = threading.Event()

    def initialize(self, evaluation_context: EvaluationContext) -> None:  # noqa: ARG002
        threading.Thread(target=self._run, name="growthbook", daemon=True).start()
        self._tried.wait(FIRST_TRY)
        if not self.initialized:
            raise ProviderNotReadyError(f"{self._url} gave no features; it is tried again")

    def shutdown(self) -> None:
        if self._loop.is_running():
            self._loop.call_soon_threadsafe(self._task.cancel)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._task = self._loop.create_task(self._keep())
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            self._loop.run_until_complete(self.close())
        self._loop.close()

    async def _keep(self) -> None:
        while not self.initialized:
            await super().initialize()
            self._tried.set()
            if not self.initialized:
                await asyncio.sleep(self._retry_every)
        await asyncio.Event().wait()  # GrowthBook refreshes in the meantime

    def _process_flag_evaluation(
        self,
        flag_key: str,
        default_value: Any,
        evaluation_context: EvaluationContext | None = None,
        value_converter: Callable[[Any], Any] = bool,  # noqa: ARG002
    ) -> FlagResolutionDetails[Any]:
        # Theirs makes a boolean of anything: "false" would be true.
        found: FlagResolutionDetails[Any] = _run_at_once(
            self._process_flag_evaluation_async(flag_key, default_value, evaluation_context)
        )
        return found


def _run_at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that waits for nothing. Raises GeneralError for any other."""
    try:
        coroutine.send(None)
    except StopIteration as ended:
        return ended.value
    coroutine.close()
    raise GeneralError("GrowthBook wants to wait, which a request cannot")
