"""A gateway from its start to its end: what belongs to it is brought up and taken down in order.

The ledger is read first, or the last known good state; the controller then has the engines of
what it says started, stable first. Requests are taken from the beginning: until the stable release
is ready they get 503.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from mlops_assets.home import Home
from mlops_assets.profiles import model_name
from mlops_assets.release_state import ReleaseState
from mlops_assets.request_record import CANARY, CHAMPION, SHADOW
from mlops_assets.serving.engines.engine_manager import EngineManager
from mlops_assets.serving.engines.engine_supervisor import READY
from mlops_assets.serving.gateway import api_keys
from mlops_assets.serving.gateway.gateway import Gateway
from mlops_assets.serving.gateway.home_metrics import HomeMetrics
from mlops_assets.serving.gateway.state_metrics import EngineHealth, StateMetrics
from mlops_assets.serving.gateway_spec import GatewaySpec, read_settings
from mlops_assets.serving.rollout.controller import Controller
from mlops_assets.serving.rollout.desired_state import DesiredState
from mlops_assets.serving.rollout.release_spec import ReleaseSpec
from mlops_assets.serving.serving_home import ServingHome
from mlops_assets.serving.traffic.experiments import watch_guardrails
from mlops_assets.serving.traffic.flags import make_flags
from mlops_assets.serving.traffic.router import Router

logger = logging.getLogger(__name__)

FIRST_KEY = "default"
LOOK_S = 0.2


@dataclass(frozen=True)
class Settings:
    """What the profile says of serving."""

    model: str
    """Name of the model in the registry, the ledger, and for callers."""
    gateway: GatewaySpec
    release: ReleaseSpec

    @classmethod
    def of_profile(cls) -> "Settings":
        """Of the profile in force. Raises LineageError that names what is wrong."""
        return cls(
            model_name(),
            read_settings("gateway", GatewaySpec),
            read_settings("release", ReleaseSpec),
        )


@asynccontextmanager
async def open_gateway(home: Home, settings: Settings) -> AsyncIterator[Gateway]:
    """Bring everything up; at the end of the block take it down. Raises LineageError."""
    files = ServingHome.of(home)
    desired = DesiredState(home, settings.model)
    await asyncio.to_thread(desired.start)
    manager = EngineManager(home, settings.gateway, lambda: desired.entries or None)
    controller = Controller(home, desired, manager, settings.release, files.root)
    flags = make_flags(settings.gateway.flags, settings.gateway.growthbook)
    router = Router(
        desired,
        settings.model,
        controller.ready,
        flags,
        settings.release.shadow_share,
        withheld=controller.withheld,
    )
    state = ServedState(desired, manager, controller)
    gateway = Gateway(
        files,
        settings.gateway,
        settings.model,
        router,
        state.describe,
        settings.release.shadow_tokens_per_day,
    )
    gateway.track, gateway.details = manager.track, state.details

    def follow(release: ReleaseState) -> None:
        gateway.metrics.serving(_arms(release))

    controller.listeners.append(follow)
    state.show_in(gateway.metrics.state)
    gateway.metrics.watch_home(HomeMetrics(home, files.requests))
    guarding = watch_guardrails(home, settings.model, lambda: desired.entries, settings.release)
    tasks = [
        asyncio.create_task(guarding, name="experiments"),
        asyncio.create_task(_announce(state), name="announcements"),
        asyncio.create_task(controller.run(), name="controller"),
    ]
    for task in tasks:
        task.add_done_callback(_lament)
    try:
        async with gateway.running():
            yield gateway
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # engines end, whatever these did
        flags.close()
        await manager.close()
        await asyncio.to_thread(desired.stop)


class ServedState:
    """What is served now, for ``/health`` and for metrics."""

    def __init__(
        self, desired: DesiredState, manager: EngineManager, controller: Controller
    ) -> None:
        self._desired, self._manager, self._controller = desired, manager, controller

    def describe(self) -> dict[str, Any]:
        """Releases by digest, engines, and the ledger; ``unavailable`` without a stable engine."""
        release = self._desired.state
        stable, candidate = release.stable, release.candidate
        served = stable.decision.bundle.digest if stable else None
        up = served is not None and self._manager.is_ready(served)
        age = self._desired.age_s
        verdict = self._controller.verdict if release.stage in (SHADOW, CANARY) else None
        return {
            "status": "ok" if up else "unavailable",
            "release": served,
            "version": stable.decision.version if stable else None,
            "candidate": candidate.decision.bundle.digest if candidate else None,
            "stage": release.stage,
            "percent": release.percent,
            "verdict": verdict.reason if verdict else None,
            "engines": [
                {"release": each.release, "engine": each.engine, "state": each.state}
                for each in self._manager.state()
            ],
            "ledger": {
                "reachable": self._desired.problem is None,
                "read": None if age is None else _ago(age),
            },
        }

    def details(self) -> dict[str, Any]:
        """Why an engine or the ledger is as it is: it may name paths and addresses."""
        verdict = self._controller.verdict
        return {
            "engines": [asdict(each) for each in self._manager.state()],
            "criteria": [asdict(each) for each in verdict.criteria] if verdict else [],
            "ledger": {"problem": self._desired.problem, "age_s": self._desired.age_s},
            "since": self._desired.state.since,
        }

    def ledger_age(self) -> float:
        """Seconds since the ledger was last read; infinite if it never was."""
        age = self._desired.age_s
        return float("inf") if age is None else age

    def show_in(self, metrics: StateMetrics) -> None:
        """Have metrics ask here."""
        desired = self._desired
        metrics.ledger_age, metrics.engines = self.ledger_age, self._engines
        metrics.release = lambda: desired.state
        metrics.outcomes = lambda: (
            row.decision.outcome for row in desired.entries if row.decision.model == desired.model
        )

    def _engines(self) -> tuple[EngineHealth, ...]:
        return tuple(
            EngineHealth(each.release, each.state == READY, each.restarts)
            for each in self._manager.state()
        )


def provide_first_key(files: ServingHome) -> bool:
    """Make one key where there is none yet, so that the gateway can be used at once.

    Returns whether it did. The key lies beside the hashes, for this machine's own commands.
    """
    if api_keys.read_keys(files.keys):
        return False
    files.prepare()
    scopes = (api_keys.CHAT, api_keys.FEEDBACK, api_keys.METRICS)
    files.first_key.touch(mode=0o600)
    files.first_key.chmod(0o600)
    _, token = api_keys.new_key(files.keys, FIRST_KEY, scopes)
    files.first_key.write_text(token + "\n", encoding="utf-8")
    return True


def _lament(task: asyncio.Task[None]) -> None:
    """Nobody waits for these tasks: without this one that died would be missed by nobody."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.critical("the gateway's %s ended: restart it", task.get_name(), exc_info=error)


async def _announce(state: ServedState) -> None:
    """Log when what users get becomes ready, ceases to be, or is another release."""
    told = ""
    while True:
        served = state.describe()
        ready = served["status"] == "ok"
        said = f"version {served['version']} is {'ready' if ready else 'not ready'}"
        if served["version"] is not None and said != told:
            if told or ready:
                logger.log(logging.INFO if ready else logging.WARNING, said)
            else:
                logger.info("version %d is being brought up", served["version"])
            told = said
        await asyncio.sleep(LOOK_S)


def _arms(release: ReleaseState) -> dict[str, str]:
    rows = {CHAMPION: release.stable, CANARY: release.candidate}
    return {arm: row.decision.bundle.digest for arm, row in rows.items() if row is not None}


def _ago(seconds: float) -> str:
    then = datetime.now(UTC).timestamp() - seconds
    return datetime.fromtimestamp(then, UTC).isoformat(timespec="seconds")
