"""Who gets which release, at every step of a rollout."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from mlops_assets.home import Home
from mlops_assets.ledger import LedgerEntry
from mlops_assets.release_state import ReleaseState, read_release
from mlops_assets.request_record import CANARY, CHAMPION, OUTSIDE
from mlops_assets.serving.gateway.refusal import Refusal
from mlops_assets.serving.gateway.upstream import Upstream
from mlops_assets.serving.traffic.router import Router
from mlops_assets_tests.release_stories import Story
from mlops_assets_tests.releases import MODEL, make_bundle

USERS = [f"{number:064x}" for number in range(2000)]


@dataclass
class Flags:
    """On for all users, or for some."""

    only: set[str] | None = None

    def eligible(self, flag: str, user: str, attributes: dict[str, object]) -> bool:
        return self.only is None or str(attributes["tenant"]) in self.only


@dataclass
class Told:
    """A ledger's rows as the gateway read them."""

    entries: Sequence[LedgerEntry]

    @property
    def state(self) -> ReleaseState:
        return read_release(self.entries, MODEL)


@dataclass
class World:
    """A ledger, engines that are ready, and a router over both."""

    home: Home
    flags: Flags = field(default_factory=Flags)
    shadow_share: float = 1.0

    def __post_init__(self) -> None:
        self.digests = {name: make_bundle(self.home, name).digest for name in "abc"}
        self.names = {digest: name for name, digest in self.digests.items()}
        self.ready, self.failed = set("abc"), set[str]()
        self.story, self.told = Story(self.home), Told(())
        self.router = Router(
            self.told,
            MODEL,
            self.upstream,
            self.flags,  # type: ignore[arg-type]
            self.shadow_share,
            chance=lambda: 0.5,
            withheld=lambda digest: self.names[digest] in self.failed,
        )

    def upstream(self, digest: str) -> Upstream | None:
        name = self.names[digest]
        return Upstream(digest, f"http://{name}/v1", name) if name in self.ready else None

    def tell(self, words: str) -> None:
        for sentence in words.split(", "):
            self.story.tell(sentence)
        self.told.entries = self.home.ledger.entries()

    def route(self, user: str, tenant: str = "acme") -> tuple[str, str, str]:
        """Arm, release, and who gets a copy."""
        route = self.router.route(tenant, user, {})
        mirror = self.names[route.mirror.release] if route.mirror else "-"
        return route.arm, self.names[route.upstream.release], mirror

    def counts(self, users: Sequence[str] = USERS) -> Counter[tuple[str, str, str]]:
        return Counter(self.route(user) for user in users)


@pytest.fixture
def world(home: Home) -> World:
    return World(home)


RELEASED = "promote a, released a"


@pytest.mark.parametrize(
    ("story", "expected"),
    [
        ("promote a", {(CHAMPION, "a", "-")}),
        (RELEASED, {(CHAMPION, "a", "-")}),
        (f"{RELEASED}, promote b", {(CHAMPION, "a", "-")}),
        (f"{RELEASED}, promote b, shadow b", {(CHAMPION, "a", "b")}),
        (f"{RELEASED}, promote b, canary b 25", {(CHAMPION, "a", "-"), (CANARY, "b", "-")}),
        (f"{RELEASED}, promote b, canary b 25, back a", {(CHAMPION, "a", "-")}),
        (f"{RELEASED}, promote b, canary b 50, released b", {(CHAMPION, "b", "-")}),
        (f"{RELEASED}, promote b, canary b 50, promote c", {(CHAMPION, "a", "-")}),
    ],
)
def test_users_get_what_the_ledger_says(
    world: World, story: str, expected: set[tuple[str, str, str]]
) -> None:
    world.tell(story)
    assert set(world.counts(USERS[:200])) == expected


def test_a_canary_grows_by_users_and_the_rest_are_its_control(world: World) -> None:
    world.tell(f"{RELEASED}, promote b")
    reached: list[set[str]] = [set()]
    for percent in (5, 25, 50):
        world.tell(f"canary b {percent}")
        arms = {user: world.route(user)[0] for user in USERS}
        assert set(arms.values()) == {CANARY, CHAMPION}
        reached.append({user for user, arm in arms.items() if arm == CANARY})
        assert reached[-2] < reached[-1]  # nobody loses the candidate as it grows
        assert len(reached[-1]) / len(USERS) == pytest.approx(percent / 100, abs=0.03)
    world.tell("back a, promote b, canary b 5")
    again = {user for user in USERS if world.route(user)[0] == CANARY}
    assert len(again & reached[1]) < len(again) / 2  # other users are the first this time


def test_who_is_not_eligible_gets_the_champion_and_is_no_control(world: World) -> None:
    world.flags.only = {"acme"}
    world.tell(f"{RELEASED}, promote b, canary b 50")
    assert {world.route(user, "acme")[0] for user in USERS[:50]} == {CANARY, CHAMPION}
    assert {world.route(user, "umbrella") for user in USERS[:50]} == {(OUTSIDE, "a", "-")}


def test_shadow_copies_a_share_of_those_who_are_eligible(world: World, home: Home) -> None:
    world.flags.only = {"acme"}
    world.tell(f"{RELEASED}, promote b, shadow b")
    assert world.route("u", "acme") == (CHAMPION, "a", "b")
    assert world.route("u", "umbrella") == (CHAMPION, "a", "-")
    rarely = World(home, shadow_share=0.4)  # the draw gives 0.5
    rarely.told.entries = home.ledger.entries()
    assert rarely.route("u") == (CHAMPION, "a", "-")


def test_a_candidate_whose_engine_is_not_ready_gets_nobody(world: World) -> None:
    world.tell(f"{RELEASED}, promote b, shadow b")
    world.ready = {"a"}
    assert set(world.counts(USERS[:50])) == {(CHAMPION, "a", "-")}
    world.tell("canary b 50")
    assert set(world.counts(USERS[:50])) == {(CHAMPION, "a", "-"), (OUTSIDE, "a", "-")}


def test_without_a_ready_champion_callers_are_told_to_wait(world: World) -> None:
    with pytest.raises(Refusal, match="No release") as refused:
        world.route("u")
    assert refused.value.status == 503
    world.tell(f"{RELEASED}, promote b, canary b 50")
    world.ready = {"b"}
    told: Counter[object] = Counter()
    for user in USERS[:100]:
        try:
            told[world.route(user)] += 1
        except Refusal as refusal:
            told[refusal.status, bool(refusal.retry_after)] += 1
    # The canary's users have an engine; the others never get the candidate in its place.
    assert set(told) == {(CANARY, "b", "-"), (503, True)}


@pytest.mark.parametrize(("failed", "code"), [("", "model_starting"), ("a", "release_withheld")])
def test_who_gets_nothing_is_told_whether_to_wait(world: World, failed: str, code: str) -> None:
    world.tell(RELEASED)
    world.ready, world.failed = set(), set(failed)
    with pytest.raises(Refusal) as refused:
        world.route("u")
    assert (refused.value.status, refused.value.code) == (503, code)
