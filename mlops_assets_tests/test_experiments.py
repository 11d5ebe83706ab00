"""Two releases compared by what users say: terms first, one verdict, and harm ends it."""

import asyncio
import json
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from typer.testing import CliRunner

from mlops_assets.artifacts import LineageError
from mlops_assets.cli import app
from mlops_assets.feedback_record import FeedbackRecord
from mlops_assets.home import Home
from mlops_assets.ledger import LedgerEntry
from mlops_assets.promotion.audit import audit
from mlops_assets.release_state import ReleaseState, read_release
from mlops_assets.request_record import CHAMPION, OUTSIDE, RequestRecord
from mlops_assets.serving.gateway.upstream import Upstream
from mlops_assets.serving.rollout import release_steps
from mlops_assets.serving.rollout.release_spec import ReleaseSpec
from mlops_assets.serving.traffic import experiments
from mlops_assets.serving.traffic.experiment_progress import ExperimentProgress
from mlops_assets.serving.traffic.experiment_state import read_experiments, releases_in_experiments
from mlops_assets.serving.traffic.router import Router
from mlops_assets_tests.releases import MODEL, request
from mlops_assets_tests.served_homes import promote

SPEC = ReleaseSpec()
PLAN: dict[str, Any] = {"metric": "rating", "minimum_effect": 0.2, "baseline": 0.5}
USERS = [f"{number:064x}" for number in range(1000)]


@dataclass
class Served:
    """A home in which users have had versions 1 and 2, and a log."""

    home: Home
    clock: datetime = field(default_factory=lambda: datetime.now(UTC) + timedelta(minutes=1))
    count: int = 0

    @property
    def entries(self) -> list[LedgerEntry]:
        return self.home.ledger.entries()

    @property
    def state(self) -> ReleaseState:
        return read_release(self.entries, MODEL)

    def start(self, name: str = "tone", **terms: Any) -> Any:
        return experiments.start(self.home, MODEL, name, (1, 2), PLAN | terms)

    def met(self, user: str, variant: str, **changes: Any) -> None:
        """A user had an answer of this variant."""
        self.clock += timedelta(milliseconds=200)
        self.count += 1
        record = RequestRecord(
            id=f"r{self.count}",
            timestamp=self.clock.isoformat(),
            release="",
            messages=(),
            output="fine",
            status=200,
            user=user,
            finish="stop",
            latency_ms=20.0 + self.count % 13,
            experiment={"tone": variant},
        )
        self._write("requests", replace(record, **changes))

    def voted(self, user: str, variant: str, score: float, metric: str = "rating") -> None:
        """A user said what it thinks of an answer."""
        now = self.clock.isoformat()
        self.count += 1
        vote = FeedbackRecord(
            id=f"v{self.count}",
            timestamp=now,
            request=f"r{self.count}",
            asked=now,
            metric=metric,
            score=score,
            user=user,
            experiment={"tone": variant},
        )
        self._write("feedback", vote)

    def _write(self, log: str, record: Any) -> None:
        folder = self.home.root / "serving" / log
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "00000001.jsonl").open("a") as stream:
            stream.write(json.dumps(asdict(record), separators=(",", ":")) + "\n")


@pytest.fixture
def served(home: Home, monkeypatch: pytest.MonkeyPatch) -> Served:
    monkeypatch.setenv("MLOPS_HOME", str(home.root))
    home.ledger.append(release_steps.release_first(promote(home, 1, "a")))
    home.ledger.append(release_steps.advance(promote(home, 2, "b"), 100, "fine", {}))
    return Served(home)


@dataclass
class Told:
    """The ledger as the gateway read it."""

    entries: list[LedgerEntry]
    state: ReleaseState


class Everybody:
    def eligible(self, flag: str, user: str, attributes: dict[str, Any]) -> bool:
        return flag != "staff" or attributes["tenant"] == "staff"


def route_of(served: Served) -> Router:
    """A router whose engines are all ready."""
    entries, state = served.entries, served.state
    upstreams = {row.decision.bundle.digest: row.decision.version for row in entries}
    return Router(
        Told(entries, state),
        MODEL,
        lambda digest: Upstream(digest, "", str(upstreams[digest])),
        Everybody(),  # type: ignore[arg-type]
        0.0,
    )


def test_users_are_split_while_it_runs(served: Served) -> None:
    served.start(share=0.5, salt="fixed")
    route = route_of(served).route
    found = {user: route("acme", user, {}) for user in USERS}
    counts = Counter(
        (each.arm, each.upstream.model, *each.experiment.values()) for each in found.values()
    )
    assert set(counts) == {(CHAMPION, "2"), (OUTSIDE, "1", "a"), (OUTSIDE, "2", "b")}
    assert counts[OUTSIDE, "1", "a"] == pytest.approx(250, abs=45)
    assert counts[OUTSIDE, "2", "b"] == pytest.approx(250, abs=45)
    # A canary that begins meanwhile leaves its users alone.
    served.home.ledger.append(release_steps.begin(promote(served.home, 3, "c"), 50))
    route = route_of(served).route
    for user, before in found.items():
        now = route("acme", user, {})
        assert now.experiment == before.experiment
        assert now.arm == OUTSIDE or not now.experiment
    engines = [row.decision.version for row in releases_in_experiments(served.entries, MODEL)]
    assert engines == [1, 2]
    experiments.stop(served.home, MODEL, "tone", "enough", SPEC)
    route = route_of(served).route
    assert not any(route("acme", user, {}).experiment for user in USERS[:100])
    assert list(releases_in_experiments(served.entries, MODEL)) == []
    assert audit(served.home).problems == ()


def test_flags_decide_who_takes_part(served: Served) -> None:
    served.start(flag="staff")
    route = route_of(served).route
    assert not any(route("acme", user, {}).experiment for user in USERS[:100])
    assert all(route("staff", user, {}).experiment for user in USERS[:100])


def test_a_rollback_of_one_of_its_releases_halts_it(served: Served) -> None:
    served.start()
    rolled = release_steps.roll_back(served.state, "bad", {})
    served.home.ledger.append(rolled)
    (found,) = read_experiments(served.entries, MODEL)
    assert not found.runs
    assert "rolled" in found.halted
    route = route_of(served).route
    assert not any(route("acme", user, {}).experiment for user in USERS[:100])
    with pytest.raises(LineageError, match="taken back"):
        served.start("again")


def test_a_release_that_an_earlier_rollback_had_restored_is_taken_back_too(served: Served) -> None:
    """That rollback names the row that restored it, not the promotion."""
    served.home.ledger.append(release_steps.advance(promote(served.home, 3, "c"), 100, "fine", {}))
    served.home.ledger.append(release_steps.roll_back(served.state, "bad", {}))
    served.start()
    assert route_of(served).route("acme", USERS[0], {}).experiment
    served.home.ledger.append(release_steps.roll_back(served.state, "bad as well", {}))
    (found,) = read_experiments(served.entries, MODEL)
    assert "rolled" in found.halted
    assert not route_of(served).route("acme", USERS[0], {}).experiment


def test_a_row_cannot_bring_what_nobody_approved_to_users(served: Served) -> None:
    """Whoever writes the ledger names the row of a request instead of a promotion."""
    requested = request(served.home, 3, "c").request.entry
    started = served.start().started.decision
    terms = started.evidence["terms"] | {
        "name": "forged",
        "promotion_b": requested.entry,
        "release_b": requested.decision.bundle.digest,
    }
    key = f"experiment/{MODEL}/forged"
    served.home.ledger.append(replace(started, key=key, evidence={"terms": terms}))
    experiments.stop(served.home, MODEL, "tone", "enough", SPEC)
    assert list(releases_in_experiments(served.entries, MODEL)) == []
    assert not route_of(served).route("acme", USERS[0], {}).experiment


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"versions": (1, 9)}, "never promoted"),
    ({"versions": (1, 1)}, "the same release"),
    ({"versions": (2, 3)}, "not released"),
    ({"name": "No name"}, "name"),
    ({"minimum_effect": 0.0}, "cannot look for"),
    ({"minimum_effect": 0.6}, "cannot look for"),
    ({"baseline": None}, "0 votes"),
    ({"share": 2.0}, "share"),
    ({"metric": "no metric"}, "metric"),
]


def test_what_cannot_be_compared_is_not_started(served: Served) -> None:
    promote(served.home, 3, "c")
    rows = len(served.entries)
    for terms, problem in REFUSED:
        plan = PLAN | terms
        versions, name = plan.pop("versions", (1, 2)), plan.pop("name", "tone")
        with pytest.raises(LineageError, match=problem):
            experiments.start(served.home, MODEL, name, versions, plan)
    assert len(served.entries) == rows


def test_a_better_release_wins_by_its_users_votes(served: Served) -> None:
    served.start()
    for number, user in enumerate(USERS[:500]):
        variant = "ab"[number % 2]
        served.met(user, variant)
        served.voted(user, variant, float(number % 10 < (4 if variant == "a" else 8)))
        served.voted(user, variant, 0.0)  # a second vote of the same user counts for nothing
        served.voted(user, variant, 0.0, metric="resolved")
    _, verdict = experiments.stop(served.home, MODEL, "tone", "shown", SPEC)
    assert verdict.winner == "b"
    ended = served.entries[-1].decision.evidence
    assert ended["winner"] == "b"
    assert {"split", "metric/a", "metric/b", "guardrail/errors"} <= {
        each["name"] for each in ended["criteria"]
    }
    with pytest.raises(LineageError, match="ended"):
        experiments.stop(served.home, MODEL, "tone", "again", SPEC)
    with pytest.raises(LineageError, match="already"):
        served.start()


def test_a_line_of_another_shape_is_passed_over(served: Served) -> None:
    experiment = served.start()
    served.met(USERS[0], "a", experiment="tone")
    served.met(USERS[1], "b")
    progress = ExperimentProgress(served.home.root / "serving", experiment, SPEC)
    assert progress.catch_up().assigned == progress.catch_up().assigned == {"a": 0, "b": 1}


def test_the_gateway_ends_what_does_harm(served: Served) -> None:
    served.start()
    for number, user in enumerate(USERS[:600]):
        variant = "ab"[number % 2]
        failed = {"status": 503, "error": "engine_failed", "output": ""}
        served.met(user, variant, **(failed if variant == "b" and number % 3 else {}))

    async def watch() -> None:
        watching = asyncio.create_task(
            experiments.watch_guardrails(
                served.home, MODEL, lambda: served.entries, SPEC, every=0.01
            )
        )
        async with asyncio.timeout(20):
            while read_experiments(served.entries, MODEL)[0].runs:
                await asyncio.sleep(0.02)
        watching.cancel()

    asyncio.run(watch())
    row = served.entries[-1].decision
    assert row.reason.startswith("guardrail/errors")
    assert row.evidence["winner"] == "a"


def test_the_commands(served: Served) -> None:
    def mlops(*words: str) -> Any:
        return CliRunner().invoke(app, ["experiment", *words])

    assert "--mde" in mlops("start", "tone", "1", "2").output  # not without
    assert "There is no experiment" in mlops("status").output
    begun = mlops("start", "tone", "1", "2", "--mde", "0.1", "--baseline", "0.7")
    assert begun.exit_code == 0, begun.output
    assert "voting users of each variant" in begun.output
    for number, user in enumerate(USERS[:20]):
        served.met(user, "ab"[number % 2])
        served.voted(user, "ab"[number % 2], 1.0)
    shown = mlops("status", "tone")
    assert "INCONCLUSIVE" in shown.output
    assert "10 users have a, 10 b" in " ".join(shown.output.split())
    (told,) = json.loads(mlops("status", "--json").stdout)
    assert (told["state"], told["users_needed"] > 100) == ("runs", True)
    assert mlops("stop", "tone", "--reason", "[/] enough").exit_code == 0
    assert "[/] enough" in mlops("status", "tone").output
    assert mlops("status", "none").exit_code == 1
