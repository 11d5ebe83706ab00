"""A release while its parts fail: nothing is counted twice, forgotten or frozen by it."""

import asyncio
import os
from pathlib import Path

import pytest

from mlops_assets.home import Home
from mlops_assets.ledger import LedgerEntry
from mlops_assets.request_record import CANARY
from mlops_assets.serving.gateway.upstream import Upstream
from mlops_assets.serving.rollout.release_spec import ReleaseSpec
from mlops_assets.serving.rollout.rollout_progress import first_segment
from mlops_assets_tests.releases import make_bundle
from mlops_assets_tests.releasing import QUICK, Release
from mlops_assets_tests.served_homes import promote

PATIENT = QUICK.model_copy(update={"minimum_requests": 200})


async def begun(home: Home, spec: ReleaseSpec = PATIENT) -> Release:
    """Version 1 is served, version 2 is on its way."""
    release = Release(home, spec)
    promote(home, 1, "a")
    await release.reach("released 0 v1")
    promote(home, 2, "b")
    await release.reach("canary 5 v1")
    return release


def requests_seen(release: Release) -> float:
    """Of the candidate, as the last verdict counts them."""
    assert release.controller.verdict is not None
    (sample,) = (each for each in release.controller.verdict.criteria if each.name == "sample")
    return float(sample.numbers["requests"])


def broken_segment(release: Release) -> Path:
    """One that can be listed, and not be read."""
    folder = release.serving / "feedback" / "00000002.jsonl"
    folder.mkdir(parents=True)
    return folder


def test_a_log_that_could_not_be_read_to_its_end_is_counted_once(home: Home) -> None:
    async def story() -> None:
        release = await begun(home)
        release.both(count=50)
        release.vote("b", CANARY, 1.0, count=1)
        broken = broken_segment(release)
        release.both(count=50)
        for _ in range(3):
            await release.controller.step()
            assert requests_seen(release) == 0, "what was read half is no evidence"
        broken.rmdir()
        await release.controller.step()
        assert requests_seen(release) == 100

    asyncio.run(story())


def test_what_needs_no_statistics_is_decided_without_the_logs(home: Home) -> None:
    async def story() -> None:
        release = await begun(home)
        broken_segment(release)
        release.engines.crashed(make_bundle(home, "b").digest)
        await release.reach("rolled_back 0 v1")

    asyncio.run(story())
    assert "died 1 times" in home.ledger.entries()[-1].decision.reason


def test_no_log_at_all_ends_at_the_deadline(home: Home) -> None:
    async def story() -> None:
        broken_segment(await begun(home))
        spec = PATIENT.model_copy(update={"deadline_s": 0.01, "maximum_stage_s": 0.01})
        await Release(home, spec).reach("rolled_back 0 v1")

    asyncio.run(story())
    assert "No verdict within" in home.ledger.entries()[-1].decision.reason


def test_what_an_engine_did_before_its_rollout_is_not_held_against_it(home: Home) -> None:
    """Version 1 died once, while it was there to be rolled back to; it is promoted again."""

    async def story() -> None:
        release = await begun(home, QUICK.model_copy(update={"canary_steps": [5]}))
        release.both()
        await release.reach("released 0 v2")
        release.engines.crashed(make_bundle(home, "a").digest)
        release.engines.mismatched(make_bundle(home, "a").digest)
        await release.controller.step()
        promote(home, 1, "a")
        await release.reach("canary 5 v2")
        for _ in range(3):
            await release.controller.step()
        assert release.where == "canary 5 v2"

    asyncio.run(story())


@pytest.mark.parametrize(("trouble", "why"), [("mismatched", "not what"), ("crashed", "died")])
def test_a_candidate_that_breaks_before_its_first_step_takes_none(
    home: Home, trouble: str, why: str
) -> None:
    async def story() -> None:
        release = await begun(home)
        promote(home, 3, "c")
        digest = make_bundle(home, "c").digest
        release.engines.is_ready = lambda _: False  # type: ignore[method-assign]
        for _ in range(3):
            release.desired.refresh()
            await release.controller.step()
        assert release.where == "waiting 0 v1"
        getattr(release.engines, trouble)(digest)
        await release.reach("rolled_back 0 v1")

    asyncio.run(story())
    rows = [row.decision for row in home.ledger.entries()]
    assert why in rows[-1].reason
    assert not [each for each in rows if each.version == 3 and each.outcome == "canary"]


def test_a_candidate_whose_engine_fails_in_an_unknown_way_is_taken_back(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        release = Release(home)
        promote(home, 1, "a")
        await release.reach("released 0 v1")
        ensure = release.engines.ensure

        async def fail(entry: LedgerEntry) -> Upstream:
            if entry.decision.version == 2:
                raise OSError(28, "No space left on device")
            return await ensure(entry)

        release.engines.ensure = fail  # type: ignore[method-assign]
        promote(home, 2, "b")
        await release.reach("rolled_back 0 v1")

    asyncio.run(story())
    assert "No space left on device" in home.ledger.entries()[-1].decision.reason
    assert "Traceback" in caplog.text


@pytest.mark.parametrize(("begun_at", "first"), [(5, "1"), (15, "2"), (25, "3"), (35, "3")])
def test_segments_of_before_are_not_read(tmp_path: Path, begun_at: int, first: str) -> None:
    for number in (1, 2, 3):
        path = tmp_path / f"{number}.jsonl"
        path.touch()
        os.utime(path, (10 * number, 10 * number))
    assert first_segment(tmp_path, begun_at).segment == f"{first}.jsonl"
