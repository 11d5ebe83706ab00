"""What ends a shadow or a canary beside the requests: the report, and what users say."""

import asyncio
import json
from datetime import timedelta

import pytest

from mlops_assets.home import Home
from mlops_assets.release_view import SHADOW_PAGE, SHADOW_REPORT
from mlops_assets.request_record import CANARY, CHAMPION
from mlops_assets.serving.traffic.shadow_report import REPORT
from mlops_assets.state import read_state
from mlops_assets_tests.releasing import QUICK, Release
from mlops_assets_tests.served_homes import promote
from mlops_assets_tests.test_release_assets import seen

SHADOWED = QUICK.model_copy(update={"shadow_share": 0.5, "shadow_minimum_pairs": 30})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("candidate", "after"), [({}, "canary 5 v1"), ({"error": "engine_error"}, "rolled_back 0 v1")]
)
def test_the_row_that_ends_a_shadow_names_its_report(
    home: Home, candidate: dict[str, str], after: str
) -> None:
    async def story() -> None:
        release = Release(home, SHADOWED)
        promote(home, 1, "a")
        await release.reach("released 0 v1")
        promote(home, 2, "b")
        await release.reach("shadow 0 v1")
        release.clock += timedelta(seconds=10)  # after the row, which has whole seconds
        release.pairs(200, **candidate)
        await release.until(lambda: release.where == after, seconds=60)

    asyncio.run(story())
    evidence = home.ledger.entries()[-1].decision.evidence
    artifact = home.store.find(SHADOW_REPORT, evidence[SHADOW_REPORT]["key"])
    assert artifact is not None
    assert artifact.digest == evidence[SHADOW_REPORT]["digest"]
    report = json.loads((home.store.path(artifact) / REPORT).read_bytes())
    assert report["pairs"] == 200
    assert report["verdict"] == evidence["verdict"]
    page = home.store.path(artifact) / SHADOW_PAGE
    assert str(page) == seen(home)["release"]["shadow_report"]
    assert read_state(home).shadow_page == page


def test_a_canary_that_users_dislike_is_taken_back(home: Home) -> None:
    async def story() -> None:
        release = Release(home, QUICK.model_copy(update={"minimum_requests": 10_000}))
        promote(home, 1, "a")
        await release.reach("released 0 v1")
        promote(home, 2, "b")
        await release.reach("canary 5 v1")
        release.clock += timedelta(seconds=10)  # after the row, which has whole seconds
        for _ in range(60):
            release.vote("a", CHAMPION, 1.0, 3)
            release.vote("b", CANARY, 0.0, 3)
        await release.reach("rolled_back 0 v1")

    asyncio.run(story())
    assert "quality" in home.ledger.entries()[-1].decision.reason
