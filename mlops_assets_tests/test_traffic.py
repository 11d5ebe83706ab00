"""The whole way of a request: ledger, flags, router, engines, log, feedback; over real HTTP."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from openfeature import api

from mlops_assets.feedback_record import read_feedback
from mlops_assets.home import Home
from mlops_assets.request_record import CANARY, CHAMPION, OUTSIDE
from mlops_assets.serving.gateway.upstream import Upstream
from mlops_assets.serving.rollout.desired_state import DesiredState
from mlops_assets.serving.traffic.flag_file import FlagFile
from mlops_assets.serving.traffic.flags import Flags
from mlops_assets.serving.traffic.router import Router
from mlops_assets.serving.traffic.shadow_pairs import read_pairs
from mlops_assets_tests.engine_server import serve_engine
from mlops_assets_tests.gateway_server import MODEL, RunningGateway, serve_gateway
from mlops_assets_tests.release_stories import Story
from mlops_assets_tests.releases import make_bundle
from mlops_assets_tests.waiting import wait_until

FLAGS = """
flags:
  canary: &everybody-but-vip
    state: ENABLED
    variants: {in: true, out: false}
    defaultVariant: in
    targeting: {if: [{"==": [{var: plan}, vip]}, out, in]}
  shadow: *everybody-but-vip
"""
NAMES = {"a": "/models/a", "b": "/models/b"}


@dataclass
class Serving:
    """A gateway over two engines, and the ledger that it follows."""

    gateway: RunningGateway
    story: Story
    desired: DesiredState

    def tell(self, words: str) -> None:
        for sentence in words.split(", "):
            self.story.tell(sentence)
        self.desired.refresh()

    def ask(self, user: str, **metadata: str) -> tuple[str, str]:
        """Which release answered, and the request's id."""
        body: dict[str, Any] = {"model": MODEL, "user": user, "metadata": metadata}
        body["messages"] = [{"role": "user", "content": "Hello"}]
        told = requests.post(
            f"{self.gateway.url}/v1/chat/completions",
            json=body,
            headers=self.gateway.authorization,
            timeout=60,
        ).json()
        text = told["choices"][0]["message"]["content"]
        return text.removeprefix("/models/")[0], told["id"]

    def arms(self) -> Counter[str]:
        return Counter(record["arm"] for record in self.gateway.records)


@pytest.fixture
def serving(home: Home, tmp_path: Path) -> Iterator[Serving]:
    file = tmp_path / "flags.yaml"
    file.write_text(FLAGS)
    with ExitStack() as stack:
        engine = stack.enter_context(serve_engine())
        digests = {make_bundle(home, name).digest: name for name in NAMES}
        upstreams = {
            digest: Upstream(digest, engine.url, NAMES[name]) for digest, name in digests.items()
        }
        desired, flags = DesiredState(home, MODEL), Flags(FlagFile(file))
        stack.callback(api.clear_providers)
        stack.callback(flags.close)
        router = Router(desired, MODEL, upstreams.get, flags, shadow_share=1.0)
        gateway = serve_gateway(home.root, routes=router, shadow_tokens_per_day=10**6)
        yield Serving(stack.enter_context(gateway), Story(home), desired)


def test_a_release_from_its_shadow_to_its_rollback(serving: Serving) -> None:
    serving.tell("promote a, released a, promote b, shadow b")
    assert [serving.ask(user)[0] for user in ("kim", "lee")] == ["a", "a"]
    assert serving.ask("vip", plan="vip")[0] == "a"
    directory = serving.gateway.files.root / "shadow"
    wait_until(lambda: len(list(read_pairs(directory))) == 2, "the shadow's answers")
    pairs = list(read_pairs(directory))
    assert {pair.shadow.output for pair in pairs} == {"/models/b: Hello"}

    serving.tell("canary b 50")
    users = [f"user {number}" for number in range(60)]
    first = {user: serving.ask(user)[0] for user in users}
    assert set(first.values()) == {"a", "b"}
    assert {user: serving.ask(user)[0] for user in users} == first  # sticky
    assert serving.ask("vip", plan="vip")[0] == "a"
    arms = serving.arms()
    assert arms[CANARY] == 2 * Counter(first.values())["b"]
    assert arms[OUTSIDE] == 1
    assert arms[CHAMPION] == 3 + 2 * Counter(first.values())["a"]

    told, id = serving.ask(next(user for user in users if first[user] == "b"))
    assert told == "b"
    vote = {"request_id": id, "rating": "down"}
    url, key = f"{serving.gateway.url}/v1/feedback", serving.gateway.authorization
    assert requests.post(url, json=vote, headers=key, timeout=60).status_code == 201
    (kept,) = read_feedback(serving.gateway.files.feedback)
    assert (kept.arm, kept.release) == (CANARY, make_bundle(serving.story.home, "b").digest)

    serving.tell("back a")
    assert {serving.ask(user)[0] for user in users} == {"a"}
    assert len(list(read_pairs(directory))) == 2  # what is no shadow any more is not copied
