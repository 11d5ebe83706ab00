"""The release goes on by itself, or back: every step a row, whatever dies in between."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home
from mlops_assets.ledger import ROLLED_BACK, Ledger
from mlops_assets.promotion.audit import audit
from mlops_assets.request_record import CANARY, LEFT
from mlops_assets.serving.records.observations import ENGINE_NOT_FINITE, ENGINE_REFUSED
from mlops_assets.serving.rollout.release_spec import ReleaseSpec
from mlops_assets.serving.rollout.release_steps import begin, roll_back
from mlops_assets_tests.releases import make_bundle
from mlops_assets_tests.releasing import QUICK, Release
from mlops_assets_tests.served_homes import promote


def outcomes(home: Home) -> list[str]:
    """The rows of the release."""
    steps = ("shadow", "canary", "released", "rolled_back")
    return [
        f"{row.decision.outcome} {row.decision.evidence.get('percent', '')}".strip()
        for row in home.ledger.entries()
        if row.decision.outcome in steps
    ]


async def begun(home: Home, spec: ReleaseSpec = QUICK) -> Release:
    """Version 1 is served, version 2 takes its first step."""
    release = Release(home, spec)
    promote(home, 1, "a")
    await release.reach("released 0 v1")
    promote(home, 2, "b")
    return release


def test_a_first_promotion_goes_to_everybody_at_once(home: Home) -> None:
    async def story() -> None:
        release = Release(home)
        await release.controller.step()
        assert release.where == " 0 v0", "nothing was promoted"
        promote(home, 1, "a")
        assert release.where == "waiting 0 v1"
        await release.reach("released 0 v1")
        await release.controller.step()

    asyncio.run(story())
    assert outcomes(home) == ["released 100"]
    assert audit(home).problems == ()


def test_a_good_candidate_reaches_everybody_step_by_step(home: Home) -> None:
    async def story() -> None:
        release = await begun(home)
        for where in ("canary 5 v1", "canary 25 v1", "canary 50 v1"):
            await release.reach(where)
            release.both()
        await release.reach("released 0 v2")
        digests = [make_bundle(home, seed).digest for seed in "ab"]
        assert release.engines.started == digests
        assert release.engines.retired == [], "what was there before stays warm"

    asyncio.run(story())
    assert outcomes(home) == ["released 100", "canary 5", "canary 25", "canary 50", "released 100"]
    criteria = home.ledger.entries()[-1].decision.evidence["verdict"]["criteria"]
    assert {"errors", "latency/p50", "sample", "time"} <= {each["name"] for each in criteria}
    assert audit(home).problems == ()


def failing(release: Release) -> None:
    release.both(status=503, output="", error="engine_failed")


def silent(release: Release) -> None:
    release.both(output="")


def declining(release: Release) -> None:
    release.both(output="I'm sorry, but I cannot help with that.")


def refusing(release: Release) -> None:
    release.both(status=400, output="", error=ENGINE_REFUSED)


def left_alone(release: Release) -> None:
    """Users wait for the first byte, and give up."""
    release.both(status=LEFT, output="", error="client_closed_request")


def no_number(release: Release) -> None:
    release.both(latency_ms=None)


def broken_down(release: Release) -> None:
    """One answer is enough."""
    release.both(count=10)
    release.answer("b", CANARY, count=1, status=503, output="", error=ENGINE_NOT_FINITE)


def dying(release: Release) -> None:
    release.engines.crashed(make_bundle(release.home, "b").digest)


def swapped(release: Release) -> None:
    release.engines.mismatched(make_bundle(release.home, "b").digest)


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (failing, "errors"),
        (refusing, "errors"),
        (left_alone, "errors"),
        (silent, "empty"),
        (declining, "refusals"),
        (no_number, "number"),
        (broken_down, "number"),
        (dying, "died 1 times"),
        (swapped, "not what was approved"),
    ],
)
def test_a_harmful_candidate_is_taken_back(
    home: Home, harm: Callable[[Release], None], why: str
) -> None:
    async def story() -> None:
        release = await begun(home)
        await release.reach("canary 5 v1")
        harm(release)
        await release.reach("rolled_back 0 v1")
        await release.controller.step()
        assert release.engines.retired == [make_bundle(home, "b").digest]
        assert release.engines.started.count(make_bundle(home, "a").digest) == 1, "no cold start"

    asyncio.run(story())
    row = home.ledger.entries()[-1]
    assert why in row.decision.reason + str(row.decision.evidence)
    assert row.decision.evidence["verdict"]["action"] == "ROLL_BACK"
    assert audit(home).problems == ()


def test_a_candidate_that_cannot_be_started_is_taken_back(home: Home) -> None:
    async def story() -> None:
        release = Release(home)
        release.engines.broken[make_bundle(home, "b").digest] = "one byte was changed."
        promote(home, 1, "a")
        await release.reach("released 0 v1")
        promote(home, 2, "b")
        await release.reach("rolled_back 0 v1")

    asyncio.run(story())
    assert home.ledger.entries()[-1].decision.reason == "it cannot be served: one byte was changed."


def test_no_verdict_holds_and_ends_at_the_deadline(home: Home) -> None:
    spec = QUICK.model_copy(update={"minimum_requests": 10_000, "maximum_requests": 10_000})

    async def story() -> None:
        release = await begun(home, spec)
        await release.reach("canary 5 v1")
        release.both(count=50)
        for _ in range(3):
            await release.controller.step()
        assert release.where == "canary 5 v1"
        verdict = release.controller.verdict
        assert verdict is not None
        assert verdict.action == "HOLD"
        late = Release(home, spec.model_copy(update={"deadline_s": 0.01, "maximum_stage_s": 0.01}))
        await late.reach("rolled_back 0 v1")

    asyncio.run(story())
    assert "No verdict within" in home.ledger.entries()[-1].decision.reason


def test_a_killed_controller_goes_on_where_it_was(home: Home) -> None:
    """Half of the requests are counted by one, the other half by the next; none twice."""
    spec = QUICK.model_copy(update={"minimum_requests": 200})

    async def story() -> None:
        first = await begun(home, spec)
        await first.reach("canary 5 v1")
        first.both(count=120)
        await first.controller.step()
        assert first.where == "canary 5 v1"
        second = Release(home, spec)
        second.clock = first.clock
        second.both(count=70)
        await second.until(lambda: second.controller.verdict)
        sample = {each.name: each for each in second.controller.verdict.criteria}["sample"]  # type: ignore[union-attr]
        assert sample.numbers["requests"] == 190
        second.both(count=10)
        await second.reach("canary 25 v1")

    asyncio.run(story())
    assert outcomes(home)[1:] == ["canary 5", "canary 25"]


def test_what_was_decided_on_rows_of_before_is_not_written_behind_new_ones(home: Home) -> None:
    """A promotion comes while a step, or a rollback, of the one before is decided."""

    async def story() -> None:
        release = await begun(home)
        await release.reach("canary 5 v1")
        known = release.desired.known
        candidate = known.release.candidate
        assert candidate is not None
        promote(home, 3, "c")
        release.desired.refresh()
        rows = len(home.ledger.entries())
        for stale in (begin(candidate, 25), roll_back(known.release, "late", {})):
            await release.controller._write(stale, known)
        assert len(home.ledger.entries()) == rows
        await release.reach("canary 5 v1")
        assert release.desired.state.candidate.decision.version == 3  # type: ignore[union-attr]

    asyncio.run(story())
    assert audit(home).problems == ()


def test_steps_that_were_changed_on_the_way_do_not_stop_it(home: Home) -> None:
    async def story() -> None:
        first = await begun(home)
        await first.reach("canary 5 v1")
        changed = Release(home, QUICK.model_copy(update={"canary_steps": [10, 60]}))
        changed.both()
        await changed.reach("canary 10 v1")

    asyncio.run(story())


def test_two_controllers_write_every_row_once(home: Home) -> None:
    async def story() -> None:
        first = await begun(home)
        second = Release(home)
        await asyncio.gather(first.reach("canary 5 v1"), second.reach("canary 5 v1"))
        first.both(status=503, output="", error="engine_failed")
        await asyncio.gather(first.reach("rolled_back 0 v1"), second.reach("rolled_back 0 v1"))

    asyncio.run(story())
    assert outcomes(home) == ["released 100", "canary 5", "rolled_back"]
    assert audit(home).problems == ()


def test_a_rollback_does_not_wait_for_the_ledger(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users are off the candidate at once, a restarted gateway stays off it, the row follows."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise LineageError("The ledger is gone.", "Bring it back.")

    async def story() -> None:
        release = await begun(home)
        await release.reach("canary 5 v1")
        with monkeypatch.context() as down:
            for name in ("append", "rows", "tip"):
                down.setattr(Ledger, name, refuse)
            release.both(status=503, output="", error="engine_failed")
            await release.until(lambda: release.seen[-1].candidate is None)
            assert release.seen[-1].stable.decision.version == 1  # type: ignore[union-attr]
            again = Release(home)
            again.desired.start()
            again.desired.stop()
            assert again.desired.known.release.stage == "canary"
            assert again.desired.state.candidate is None
            await again.controller.step()
        assert release.where == "canary 5 v1", "no row yet"
        await again.reach("rolled_back 0 v1")
        assert again.desired.withdrawn == {}

    asyncio.run(story())
    row = home.ledger.entries()[-1].decision
    assert (row.outcome, row.evidence["verdict"]["action"]) == (ROLLED_BACK, "ROLL_BACK")
    assert audit(home).problems == ()


def test_a_new_promotion_takes_the_place_of_the_candidate(home: Home) -> None:
    async def story() -> None:
        release = await begun(home)
        await release.reach("canary 5 v1")
        promote(home, 3, "c")
        await release.reach("canary 5 v1")
        await release.until(lambda: release.seen[-1].stage == "canary")
        assert release.state.candidate.decision.version == 3  # type: ignore[union-attr]
        assert make_bundle(home, "b").digest in release.engines.retired

    asyncio.run(story())
