"""`mlops export litellm`, tried on the real LiteLLM proxy, without a database."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import requests
import yaml

from mlops_assets.home import Home
from mlops_assets.ledger import Decision
from mlops_assets.release_state import read_release
from mlops_assets.serving.gateway.gateway import Gateway
from mlops_assets.serving.gateway.upstream import Upstream
from mlops_assets.serving.litellm_proxy.litellm_export import CONFIG, STATE, Engines, Export
from mlops_assets.serving.rollout.release_steps import advance, begin, release_first, roll_back
from mlops_assets.serving.serving_home import ServingHome
from mlops_assets.serving.traffic.flags import make_flags
from mlops_assets.serving.traffic.router import Router
from mlops_assets_tests.engine_replies import Asked
from mlops_assets_tests.engine_server import EngineServer, free_port, serve_engine
from mlops_assets_tests.litellm_venv import program, running
from mlops_assets_tests.releases import MODEL
from mlops_assets_tests.served_homes import promote
from mlops_assets_tests.waiting import wait_until

pytestmark = pytest.mark.slow

MASTER_KEY = "sk-master"
SYSTEM = "Answer with one queue."
USERS = [f"user-{number}" for number in range(40)]
ON_FOR_ALL = {"state": "ENABLED", "variants": {"in": True, "out": False}, "defaultVariant": "in"}


@dataclass
class Proxy:
    """The real proxy over an engine of tests, and the home whose release it follows."""

    home: Home
    export: Export
    url: str
    engine: EngineServer

    def ask(self, user: str = "", *, model: str = MODEL, **fields: Any) -> requests.Response:
        messages = [{"role": "user", "content": "Is my line down?"}]
        named = {"user": user} if user else {}
        return requests.post(
            f"{self.url}/v1/chat/completions",
            json={"model": model, "messages": messages, **named, **fields},
            headers={"Authorization": f"Bearer {MASTER_KEY}"},
            timeout=60,
        )

    def asked(self, user: str = "", **fields: Any) -> Asked:
        """What the engine was asked when this user asked the proxy."""
        answer = self.ask(user, **fields)
        assert answer.status_code == 200, answer.text
        return self.engine.asked[-1]

    def step(self, decide: Callable[[Any], Decision]) -> None:
        """The next row of the release, and what the proxy then follows."""
        state = read_release(self.home.ledger.entries(), MODEL)
        self.home.ledger.append(decide(state))
        self.export.write()

    def eventually(self, user: str, release: str) -> None:
        """The user is answered by this release, within seconds."""
        wait_until(lambda: self.asked(user).model == release, f"{release} for {user}")


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("proxy")
    home, flags, port = Home(folder / "home"), folder / "flags.yaml", free_port()
    home.prepare()
    flags.write_text(yaml.safe_dump({"flags": {"canary": ON_FOR_ALL}}))
    first = promote(home, 1, "a")
    home.ledger.append(release_first(first))
    with serve_engine() as engine:
        engines = Engines(engine.url, "{version}@{release}")
        export = Export(home, folder / "proxy", MODEL, engines, flags)
        export.write()
        config = export.directory / CONFIG
        words = [program("litellm"), "--config", str(config), "--host", "127.0.0.1"]
        environment = {
            "LITELLM_MASTER_KEY": MASTER_KEY,
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_MODE": "PRODUCTION",
        }
        url = f"http://127.0.0.1:{port}"
        ready, log = f"{url}/health/liveliness", folder / "proxy.log"
        with running([*words, "--port", str(port)], ready, log, environment):
            yield Proxy(home, export, url, engine)


def names(proxy: Proxy) -> tuple[str, str]:
    """What the engine calls stable and candidate."""
    state = json.loads((proxy.export.directory / STATE).read_text())
    stable, candidate = state["stable"], state["candidate"]
    return stable["served_as"], candidate["served_as"] if candidate else ""


def test_what_is_approved_is_asked(proxy: Proxy) -> None:
    asked = proxy.asked("ada", temperature=0.5)
    digest = read_release(proxy.home.ledger.entries(), MODEL).stable.decision.bundle.digest
    assert asked.model == f"1@{digest}"
    assert asked.body["messages"][0] == {"role": "system", "content": SYSTEM}
    assert asked.body["messages"][1]["content"] == "Is my line down?"
    assert asked.body["max_tokens"] == 32  # the bundle's
    assert asked.body["temperature"] == 0.5  # the caller's


def test_a_stream_is_the_same(proxy: Proxy) -> None:
    answer = proxy.ask("ada", stream=True)
    assert answer.text.rstrip().endswith("data: [DONE]")
    assert proxy.engine.asked[-1].body["messages"][0]["content"] == SYSTEM


@pytest.mark.parametrize(
    ("model", "key", "status"),
    [("release/1@abc", MASTER_KEY, 404), (MODEL, "sk-wrong", 400), ("another", MASTER_KEY, 400)],
)
def test_nobody_gets_round_the_hook(proxy: Proxy, model: str, key: str, status: int) -> None:
    before = proxy.engine.count
    answer = requests.post(
        f"{proxy.url}/v1/chat/completions",
        json={"model": model, "messages": [{"role": "user", "content": "hi"}]},
        headers={"Authorization": f"Bearer {key}"},
        timeout=60,
    )
    assert answer.status_code == status
    assert proxy.engine.count == before


def test_a_canary_splits_users_as_the_gateway_does_and_is_taken_back(proxy: Proxy) -> None:
    second = promote(proxy.home, 2, "b")
    proxy.step(lambda _: begin(second, 0))
    stable, _ = names(proxy)
    assert {proxy.asked(user).model for user in USERS[:5]} == {stable}  # in shadow nobody gets it
    proxy.step(lambda _: advance(second, 25, "fine", {}))
    expected = as_the_gateway_routes(proxy)
    _, candidate = names(proxy)
    assert 2 <= list(expected.values()).count(candidate) <= 20
    canary_user = next(user for user in USERS if expected[user] == candidate)
    proxy.eventually(canary_user, candidate)
    for _ in range(2):  # and stays
        assert {user: proxy.asked(user).model for user in USERS} == expected
    proxy.step(lambda state: roll_back(state, "worse", {}))
    proxy.eventually(canary_user, stable)
    assert {proxy.asked(user).model for user in USERS[:5]} == {stable}


def as_the_gateway_routes(proxy: Proxy) -> dict[str, str]:
    """Model by user, decided by the gateway's own router for a key without a name."""
    state = read_release(proxy.home.ledger.entries(), MODEL)
    named = {}
    for row, name in zip((state.stable, state.candidate), names(proxy), strict=True):
        assert row is not None
        digest = row.decision.bundle.digest
        named[digest] = Upstream(digest, proxy.engine.url, name)
    flags = make_flags(str(proxy.export.flags), "")
    desired: Any = SimpleNamespace(state=state, entries=())
    router = Router(desired, MODEL, named.get, flags, 0.0)
    gateway: Any = SimpleNamespace(_salt=ServingHome.of(proxy.home).salt())
    hashed = {user: Gateway.hash_user(gateway, "", user) for user in USERS}
    try:
        return {user: router.route("", name, {}).upstream.model for user, name in hashed.items()}
    finally:
        flags.close()


def test_a_state_that_cannot_be_read_leaves_the_last_one_in_force(proxy: Proxy) -> None:
    stable, _ = names(proxy)
    path = proxy.export.directory / STATE
    path.write_text('{"model": ')
    time_enough = time.monotonic() + 1.5
    while time.monotonic() < time_enough:
        assert proxy.asked("ada").model == stable
    proxy.export.write()
