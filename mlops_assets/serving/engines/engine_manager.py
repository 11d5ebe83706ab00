"""The engines of a gateway: one for each release that it may need, verified and kept running."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home
from mlops_assets.ledger import PROMOTED, LedgerEntry
from mlops_assets.prompts import system_text
from mlops_assets.release_check import verify_release
from mlops_assets.release_state import STEPS
from mlops_assets.serving.engines.engine_plans import PLANS, EnginePlan, request_fields
from mlops_assets.serving.engines.engine_probe import EngineFault
from mlops_assets.serving.engines.engine_spec import EngineSpec
from mlops_assets.serving.engines.engine_startup import POLL_S
from mlops_assets.serving.engines.engine_supervisor import READY, TAMPERED, EngineSupervisor
from mlops_assets.serving.engines.release_files import ReleaseFiles, remove_copies
from mlops_assets.serving.engines.served_release import ServedRelease
from mlops_assets.serving.gateway.upstream import Upstream

if TYPE_CHECKING:
    import aiohttp

DRAINING = "draining"

Rows = Callable[[], Sequence[LedgerEntry] | None]


@dataclass(frozen=True)
class EngineState:
    """A release's engine, for /health, the UI and whoever decides on the release."""

    release: str
    """Digest of the bundle."""
    engine: str
    """``transformers``, ``vllm`` or ``openai``."""
    state: str
    """``starting``, ``ready``, ``restarting``, ``draining``, ``failed`` (it died too often),
    ``tampered`` (a file is not what was approved) or ``stopped``."""
    detail: str
    """Why, for people; empty where there is nothing to say."""
    since: str
    """ISO 8601 in UTC."""
    deaths: int
    """In the last hour."""
    restarts: int
    """Times that it was taken down since this process knows it; see ``detail`` for the last."""
    in_flight: int
    """Requests of users that it is answering."""
    pid: int | None
    """Of its process, where that is ours and runs."""


class EngineManager:
    """Brings releases up and takes them down. All of it runs in one event loop."""

    def __init__(self, home: Home, spec: EngineSpec, rows: Rows = lambda: None) -> None:
        """``rows`` gives the ledger as it was last read, for while it cannot be."""
        self.home, self.spec, self._rows = home, spec, rows
        self.crashed: Callable[[str], object] = lambda _: None
        """Told the release whose engine, once ready, has died or hangs."""
        self.mismatched: Callable[[str], object] = lambda _: None
        """Told the release whose files are not what was approved."""
        self._served: dict[str, ServedRelease] = {}
        self._on: dict[str, EngineSupervisor] = {}
        """By release; several releases may stand on one."""
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._joining = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None

    async def ensure(self, entry: LedgerEntry) -> Upstream:
        """Where the release of this ledger row is answered, once it is verified, up and warm.

        Raises LineageError when the approval does not hold, when a file is not what was approved,
        and when the engine does not come up.
        """
        digest = entry.decision.bundle.digest
        async with self._locks[digest]:
            if begun := digest not in self._served:
                await self._bring_up(digest, entry)
            served, supervisor = self._served[digest], self._on[digest]
        try:
            await asyncio.wait_for(supervisor.ready(served), self.spec.engine_start_s)
        except TimeoutError:
            error = LineageError(
                f"The engine {supervisor.name} is not up after {self.spec.engine_start_s:g} s"
                f" ({supervisor.detail or 'it is still loading'}).",
                "See its log, or give it more time with engine_start_s.",
            )
        except LineageError as found:
            error = found
        else:
            return served.upstream
        if begun:  # nobody waits for it any more
            await self.retire(digest)
        raise error

    def is_ready(self, release: str) -> bool:
        """Whether requests may be sent there now."""
        served = self._served.get(release)
        up = served is not None and served.fault is None and not served.draining
        return up and self._on[release].state == READY

    @contextmanager
    def track(self, release: str) -> Iterator[None]:
        """Count a request as under way; one that ends without an error shows that the engine
        works. What is not ours to run is not counted."""
        served = self._served.get(release)
        if served is None:
            yield
            return
        served.begin()
        answered = False
        try:
            yield
            answered = True
        finally:
            served.end(answered=answered)

    async def retire(self, release: str) -> None:
        """Take a release down: no new requests, those under way may finish, then it is stopped."""
        async with self._locks[release]:
            if (served := self._served.get(release)) is None:
                return
            served.draining = True
            await self._drain(served)
            await self._take_down(release)

    async def close(self) -> None:
        """Take everything down, gracefully and at once."""
        await asyncio.gather(*(self.retire(release) for release in list(self._served)))
        if self._session is not None:
            await self._session.close()

    def state(self) -> tuple[EngineState, ...]:
        """Every engine, in the order in which they came."""
        return tuple(self._state(release) for release in self._served)

    def _state(self, release: str) -> EngineState:
        served, supervisor = self._served[release], self._on[release]
        state, detail = supervisor.state, supervisor.detail
        if served.fault is not None:
            state, detail = TAMPERED, served.fault.problem
        elif served.draining:
            state = DRAINING
        return EngineState(
            release,
            self.spec.engine,
            state,
            detail,
            supervisor.since,
            supervisor.deaths,
            supervisor.restarts,
            served.in_flight,
            supervisor.process.pid if supervisor.process else None,
        )

    async def _bring_up(self, release: str, entry: LedgerEntry) -> None:
        if entry.decision.outcome not in (PROMOTED, *STEPS):
            raise LineageError(
                f"Ledger entry {entry.entry} ({entry.decision.outcome}) promotes nothing.",
                "Only what was approved is served: `mlops status` shows what waits for approval.",
            )
        await asyncio.to_thread(verify_release, self.home, entry, self._rows())
        plan = await PLANS[self.spec.engine](self.home, self.spec, entry)
        async with self._joining:
            await self._join(release, entry, plan)

    async def _join(self, release: str, entry: LedgerEntry, plan: EnginePlan) -> None:
        """On the server that runs already under this plan's name, or on a new one."""
        running = (one for one in self._on.values() if one.name == plan.server)
        supervisor = next(running, None) or self._supervise(plan)
        address = f"{supervisor.process.address}/v1" if supervisor.process else plan.url
        served = ServedRelease(
            plan,
            ReleaseFiles(self.home, entry, plan.reads),
            await asyncio.to_thread(self._upstream, entry, plan, address),
            lambda release: self.mismatched(release),
        )
        try:
            await supervisor.add(served)
        except EngineFault as fault:
            raise LineageError(
                f"The engine {plan.server} does not take the release: {fault}.",
                f"Look into {supervisor.process.log}."
                if supervisor.process
                else "Look at its log.",
            ) from fault
        self._served[release], self._on[release] = served, supervisor

    def _upstream(self, entry: LedgerEntry, plan: EnginePlan, address: str) -> Upstream:
        bundle = entry.decision.bundle
        return Upstream(
            release=bundle.digest,
            url=address,
            model=plan.model,
            system=system_text(self.home.store, bundle.prompt),
            prompt=bundle.prompt_digest,
            generation=request_fields(bundle.generation),
            api_key=plan.api_key,
        )

    def _supervise(self, plan: EnginePlan) -> EngineSupervisor:
        if self._session is None:
            import aiohttp

            self._session = aiohttp.ClientSession(trust_env=False)
            remove_copies(self.home.root / "serving" / "engines")
        supervisor = EngineSupervisor.of(self.home, self.spec, plan, self._session)
        supervisor.crashed = lambda release: self.crashed(release)
        return supervisor

    async def _drain(self, served: ServedRelease) -> None:
        deadline = time.monotonic() + self.spec.engine_drain_s
        while served.in_flight and time.monotonic() < deadline:
            await asyncio.sleep(POLL_S)

    async def _take_down(self, release: str) -> None:
        served, supervisor = self._served[release], self._on[release]
        await supervisor.remove(served)
        del self._served[release], self._on[release]
