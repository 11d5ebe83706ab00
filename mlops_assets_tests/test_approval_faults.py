"""Killed between any two writes, or without its registry: one reconcile brings all into agreement.

The writes are counted, not listed: a process is killed after the first, after the second, and so
on, until one lives to the end. MLflow is the real one, on SQLite.
"""

from functools import partial

import pytest
from mlflow import MlflowClient

from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home
from mlops_assets.ledger import Ledger
from mlops_assets.promotion import registry
from mlops_assets.promotion.approval import approve, reconcile
from mlops_assets.promotion.audit import audit
from mlops_assets_tests.races import DONE, REFUSED, race
from mlops_assets_tests.releases import MODEL, NOON, enlist, make_bundle, request
from mlops_assets_tests.sudden_death import killed_after
from mlops_assets_tests.test_approval_request import outcomes

WRITES = (
    (Ledger, "_insert"),
    (MlflowClient, "set_registered_model_alias"),
    (MlflowClient, "delete_registered_model_alias"),
)


def register(home: Home, seed: str) -> None:
    """A version in the registry, with the tag that names its bundle."""
    client = MlflowClient(home.mlflow_uri)
    if not client.search_registered_models(f"name = '{MODEL}'"):
        client.create_registered_model(MODEL)
    tags = {"bundle_digest": make_bundle(home, seed).digest}
    client.create_model_version(MODEL, f"file://{home.root}", tags=tags)


def promote(home: Home, version: int, seed: str) -> None:
    """From the request to the aliases, as run and approver do; what stands already is found."""
    champion = home.ledger.champion(MODEL)
    if champion is None or champion.decision.bundle != make_bundle(home, seed):
        request(home, version, seed, now=NOON)
        approve(home, version, "ada", "fine", enlist(home, "ada").key, now=NOON)


@pytest.fixture
def two_versions(tracked_home: Home) -> Home:
    """A champion and a candidate that is registered."""
    register(tracked_home, "a")
    promote(tracked_home, 1, "a")
    register(tracked_home, "b")
    return tracked_home


def aliases(home: Home) -> dict[str, int]:
    found = registry.glance(home, MODEL)
    assert found is not None
    return dict(found.aliases)


WHOLE = ["requested", "approved", "promoted"]


@pytest.mark.parametrize("writes", range(1, 8))
def test_killed_after_any_write_one_reconcile_agrees(two_versions: Home, writes: int) -> None:
    """1 request, 2 approval, 3 promotion, 4 to 6 the aliases, 7: there is no seventh."""
    home = two_versions
    assert killed_after(writes, lambda: promote(home, 2, "b"), WRITES) == (writes < 7)
    done = outcomes(home)[len(WHOLE) :]
    assert done == WHOLE[: min(writes, 3)]
    reconcile(home, NOON)
    assert audit(home).problems == ()
    promoted = 2 if writes > 1 else 1  # a request alone promotes nothing
    champion = home.ledger.champion(MODEL)
    assert champion is not None
    assert champion.decision.version == aliases(home)["champion"] == promoted
    promote(home, 2, "b")
    assert outcomes(home) == WHOLE * 2
    assert aliases(home) == {"candidate": 2, "champion": 2, "previous": 1}


def test_without_mlflow_nothing_is_lost_and_the_error_says_so(
    two_versions: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = two_versions
    with monkeypatch.context() as down:
        down.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        down.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        with pytest.raises(LineageError, match=r"promoted on the ledger, but .* `mlops reconcile`"):
            promote(home, 2, "b")
    assert outcomes(home) == WHOLE * 2
    assert aliases(home)["champion"] == 1
    assert "mlops reconcile" in audit(home).problems[0]
    assert reconcile(home)[MODEL] == {"candidate": 2, "champion": 2, "previous": 1}
    assert audit(home).problems == ()


def test_of_two_that_promote_at_once_one_wins(two_versions: Home) -> None:
    """The other is told that the champion changed, and asks again against the new one."""
    home = two_versions
    register(home, "c")
    asked = [request(home, version, seed, now=NOON) for version, seed in ((2, "b"), (3, "c"))]
    assert [found.request.terms.replaces for found in asked] == [3, 3]
    ada = enlist(home, "ada")
    approve(home, 3, "ada", "this one", ada.key, now=NOON)
    with pytest.raises(LineageError, match="champion changed meanwhile"):
        approve(home, 2, "ada", "and this one", ada.key, now=NOON)
    again = request(home, 2, "b", now=NOON)
    assert again.request.id != asked[0].request.id
    approve(home, 2, "ada", "better than that one too", ada.key, now=NOON)
    assert aliases(home) == {"candidate": 3, "champion": 2, "previous": 3}


def test_two_processes_promote_one_champion(two_versions: Home) -> None:
    home = two_versions
    register(home, "c")
    for version, seed in ((2, "b"), (3, "c")):
        request(home, version, seed, now=NOON)
    ada = enlist(home, "ada")
    complete = partial(approve, home, name="ada", reason="fine", key=ada.key, now=NOON)
    assert sorted(race(partial(complete, 2), partial(complete, 3))) == [DONE, REFUSED]
    assert [row.decision.replaces for row in home.ledger.promotions(MODEL)] == [0, 3]
    reconcile(home, NOON)
    assert audit(home).problems == ()
