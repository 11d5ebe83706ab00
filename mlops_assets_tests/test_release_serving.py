"""A release under users: the real gateway over loopback, from the ledger's rows to the answers."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest

from mlops_assets.home import Home
from mlops_assets.release_state import ReleaseState, read_release
from mlops_assets.serving.gateway.api_keys import SCOPES, new_key
from mlops_assets.serving.gateway.application import make_app
from mlops_assets.serving.gateway.lifecycle import Settings, open_gateway
from mlops_assets.serving.gateway.server import address, listen, make_server
from mlops_assets.serving.gateway_spec import GatewaySpec
from mlops_assets.serving.rollout.release_spec import ReleaseSpec
from mlops_assets.serving.rollout.rollback import roll_back
from mlops_assets.serving.serving_home import ServingHome
from mlops_assets_tests.engine_server import EngineServer, serve_engine
from mlops_assets_tests.releases import MODEL, make_bundle, stranger
from mlops_assets_tests.releasing import QUICK
from mlops_assets_tests.served_homes import promote
from mlops_assets_tests.serving_client import Answer, ask, find_breach
from mlops_assets_tests.waiting import wait_until

WITHIN_S = 5.0
"""From the decision to the last answer of what was taken back."""
HALF = QUICK.model_copy(update={"canary_steps": [50], "minimum_requests": 50_000})
"""Half of the users get the candidate, and it stays at that."""
BRIEF = QUICK.model_copy(update={"canary_steps": [50]})
"""One step, wide enough that some of thirty users are in it, however they are drawn."""


@dataclass
class Users:
    """Thirty of them, who ask one question after the other."""

    url: str
    key: str
    got: list[tuple[float, Answer]] = field(default_factory=list)
    """With the monotonic clock's time of each answer."""
    _ended: threading.Event = field(default_factory=threading.Event)

    def served(self, digest: str, since: float = 0.0) -> list[float]:
        """When a release answered."""
        return [at for at, one in self.got if at > since and one.answered_by == digest]

    def ask(self) -> None:
        """Until they are told to stop."""
        asyncio.run(self._ask())

    async def _ask(self) -> None:
        headers = {"Authorization": f"Bearer {self.key}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            await asyncio.gather(*(self._user(session, number) for number in range(30)))

    async def _user(self, session: aiohttp.ClientSession, number: int) -> None:
        turn = 0
        while not self._ended.is_set():
            turn += 1
            question = f"question {turn} of {number}"
            one = await ask(session, f"{self.url}/v1", question, user=f"user-{number}")
            self.got.append((time.monotonic(), one))
            await asyncio.sleep(0.05)


def moment(is_so: Callable[[], object]) -> float:
    """When it was so, by the monotonic clock."""
    wait_until(is_so)
    return time.monotonic()


def state(home: Home) -> ReleaseState:
    return read_release(home.ledger.entries(), MODEL)


@contextmanager
def gateway(home: Home, engine: EngineServer, release: ReleaseSpec) -> Iterator[Users]:
    """Run it with users until the block ends; every answer they got was a right one or a clean
    error."""
    spec = GatewaySpec(engine="openai", engine_url=engine.url, engine_model="{release}")
    settings = Settings(MODEL, spec, release)
    server = make_server(make_app(lambda: open_gateway(home, settings)))
    listener = listen("127.0.0.1", 0)
    _, key = new_key(ServingHome.of(home).keys, f"tests-{time.monotonic_ns()}", SCOPES)
    users = Users(address(listener), key)
    threads = [
        threading.Thread(target=server.run, kwargs={"sockets": [listener]}),
        threading.Thread(target=users.ask),
    ]
    try:
        for thread in threads:
            thread.start()
            wait_until(lambda: server.started)
        yield users
    finally:
        users._ended.set()
        threads[1].join()
        server.should_exit = True
        threads[0].join()
        listener.close()
    assert [why for _, one in users.got if (why := find_breach(one))] == []


@pytest.fixture
def engine() -> Iterator[EngineServer]:
    with serve_engine() as server:
        yield server


def digest(home: Home, seed: str) -> str:
    return make_bundle(home, seed).digest


def begun(home: Home, users: Users) -> None:
    """Version 1 is served, version 2 is on its way to half of the users."""
    wait_until(lambda: state(home).stage == "released" and users.served(digest(home, "a")))
    promote(home, 2, "b")
    wait_until(lambda: users.served(digest(home, "b")))


@pytest.mark.slow
def test_a_failing_candidate_is_gone_within_seconds(home: Home, engine: EngineServer) -> None:
    promote(home, 1, "a")
    a, b = digest(home, "a"), digest(home, "b")
    with gateway(home, engine, HALF) as users:
        begun(home, users)
        engine.switch(by_model={b: "error"})
        decided = moment(lambda: state(home).stage == "rolled_back")
        engine.switch()  # from now on it would answer
        wait_until(lambda: len(users.served(a, decided)) > 60)
        late = [at - decided for at in users.served(b, decided)]
        assert max(late, default=0.0) < WITHIN_S
        assert users.served(b, decided + WITHIN_S) == []
    row = home.ledger.entries()[-1].decision
    assert "errors" in row.reason
    assert row.evidence["verdict"]["criteria"]


@pytest.mark.slow
def test_a_rollback_by_hand_reaches_users_within_seconds(home: Home, engine: EngineServer) -> None:
    """Once while it is on its way, and once after everybody had it: previous stays warm."""
    promote(home, 1, "a")
    a, b = digest(home, "a"), digest(home, "b")
    with gateway(home, engine, HALF) as users:
        begun(home, users)
        roll_back(home, "ada", "users complain", stranger(home, "ada").key)
        decided = time.monotonic()
        wait_until(lambda: len(users.served(a, decided + 1.5)) > 30)
        assert max((at - decided for at in users.served(b, decided)), default=0.0) < WITHIN_S
        promote(home, 3, "c")
        c = digest(home, "c")
        wait_until(lambda: users.served(c))
    with gateway(home, engine, BRIEF) as users:
        released = moment(lambda: state(home).stage == "released")
        wait_until(lambda: len(users.served(c, released)) > 60)
        roll_back(home, "ada", "users complain", stranger(home, "ada").key)
        decided = time.monotonic()
        first = moment(lambda: users.served(a, decided)) - decided
        assert first < WITHIN_S
        wait_until(lambda: len(users.served(a, decided)) > 60)
        assert max((at - decided for at in users.served(c, decided)), default=0.0) < WITHIN_S
    assert state(home).stage == "rolled_back"


@pytest.mark.slow
def test_a_gateway_that_starts_without_its_ledger_serves_what_was_in_force(
    home: Home, engine: EngineServer
) -> None:
    promote(home, 1, "a")
    a = digest(home, "a")
    with gateway(home, engine, BRIEF):
        wait_until(lambda: state(home).stage == "released")
    ledger = home.root / "ledger.db"
    kept = ledger.rename(home.root / "kept.db")
    ledger.mkdir()  # nothing can be read there
    with gateway(home, engine, BRIEF) as users:
        wait_until(lambda: len(users.served(a)) > 10)
        ledger.rmdir()
        kept.rename(ledger)
        promote(home, 2, "b")
        wait_until(lambda: users.served(digest(home, "b")))
