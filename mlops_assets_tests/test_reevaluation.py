"""Two that promote at once: one wins, the other is evaluated against the new champion."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mlops_assets.artifacts import LineageError
from mlops_assets.evaluation.gate import record_verdict
from mlops_assets.home import Home
from mlops_assets.ledger import FAILED, PASSED, PROMOTED, Decision
from mlops_assets.promotion import registry
from mlops_assets.promotion.approval import approve, reject
from mlops_assets.promotion.request import open_request
from mlops_assets.promotion.spec import PromotionSpec
from mlops_assets.reevaluation import Outdated, find_outdated
from mlops_assets.ref_json import dump_ref
from mlops_assets.refs import GateRef, RegisteredModelRef
from mlops_assets.verdicts import FAIL, INCONCLUSIVE, PASS, read_gate
from mlops_assets_tests.conftest import LineageRun
from mlops_assets_tests.daemon import Daemon
from mlops_assets_tests.races import DONE, REFUSED, race
from mlops_assets_tests.releases import MODEL, NOON, enlist, make_bundle, make_gate, request
from mlops_assets_tests.warm_process import fork_job


@pytest.fixture(autouse=True)
def _no_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "reconcile", lambda *_: {})


def judge(home: Home, seed: str, verdict: str = PASS) -> GateRef:
    """As if a run had judged this candidate against the champion of now."""
    champion = home.ledger.champion(MODEL)
    against = champion.decision.bundle.digest if champion else None
    ref = make_gate(home, make_bundle(home, seed), against, verdict)
    record_verdict(home.ledger, MODEL, ref, read_gate(home.store, ref))
    home.write_ref("gate_verdict", "a-run", dump_ref(ref))
    return ref


def ask(home: Home, version: int, seed: str) -> None:
    """As if a run had ended: its candidate passed and waits for ada."""
    judge(home, seed)
    request(home, version, seed, now=NOON)


def promote(home: Home, version: int) -> None:
    approve(home, version, "ada", "fine", enlist(home, "ada").key, now=NOON)


@pytest.fixture
def two(home: Home) -> Home:
    """Two versions wait; both were compared with the same champion, which is none."""
    enlist(home, "ada")
    ask(home, 1, "a")
    ask(home, 2, "b")
    return home


def test_the_loser_is_evaluated_once_for_each_new_champion(daemon: Daemon, two: Home) -> None:
    promote(two, 1)
    for _ in range(2):
        daemon.tick_sensors()
        (asked,) = daemon.started("reevaluate", "champion")
    assert "version 1 of support-tickets was promoted since" in asked.tags["mlops/reason"]
    ask(two, 2, "b")  # what the job does, where it passes again
    daemon.tick_sensors()
    assert len(daemon.started("reevaluate", "champion")) == 1, "it met the champion of now"
    request(two, 3, "c", now=NOON)
    promote(two, 3)
    daemon.tick_sensors()
    daemon.tick_sensors()
    assert len(daemon.started("reevaluate", "champion")) == 2, "another champion"


def test_two_processes_at_once_one_champion_and_the_newest_meets_it(
    daemon: Daemon, two: Home
) -> None:
    ended = race(lambda: promote(two, 1), lambda: promote(two, 2))
    assert sorted(ended) == [DONE, REFUSED]
    (champion,) = two.ledger.promotions(MODEL)
    daemon.tick_sensors()
    lost = champion.decision.version != 2
    assert len(daemon.started("reevaluate", "champion")) == lost


def test_a_run_that_lost_is_told_what_happens_next(two: Home) -> None:
    judged = judge(two, "c")
    promote(two, 1)
    registered = RegisteredModelRef(MODEL, 3, make_bundle(two, "c"), judged.report)
    with pytest.raises(LineageError, match="`champion_changed` has the newest candidate evaluated"):
        open_request(two, registered, judged, PromotionSpec(), "", "run", NOON)
    with pytest.raises(LineageError, match="evaluated against it by itself"):
        promote(two, 2)
    assert isinstance(find_outdated(two), Outdated)


def failed(home: Home) -> None:
    judge(home, "b", FAIL)


def inconclusive(home: Home) -> None:
    judge(home, "b", INCONCLUSIVE)


def met_the_champion(home: Home) -> None:
    judge(home, "b")


def never_judged(home: Home) -> None:
    (home.root / "refs/gate_verdict/latest.json").unlink()


@pytest.mark.parametrize("happened", [failed, inconclusive, met_the_champion, never_judged])
def test_nothing_else_is_evaluated_again(two: Home, happened: Callable[[Home], None]) -> None:
    promote(two, 1)
    assert isinstance(find_outdated(two), Outdated)
    happened(two)
    assert isinstance(find_outdated(two), str)


@pytest.mark.parametrize("answer", [approve, reject])
def test_what_people_decided_on_is_not_asked_again(
    two: Home, answer: Callable[..., object]
) -> None:
    """The newest was rejected, or was the champion; another took over from there."""
    answer(two, 2, "ada", "as it is", enlist(two, "ada").key, now=NOON)
    request(two, 3, "c", now=NOON)
    promote(two, 3)
    assert "ledger entry" in str(find_outdated(two))


@pytest.mark.slow
def test_the_job_compares_with_the_new_champion(lineage: LineageRun, tmp_path: Path) -> None:
    """The candidate of a real run lost to a release that generates otherwise."""
    home = Home(lineage.copy(tmp_path).home)
    judged = home.latest("gate_verdict")
    assert isinstance(judged, GateRef)
    rival = replace(judged.bundle, generation={**judged.bundle.generation, "max_new_tokens": 40})
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    with pytest.MonkeyPatch.context() as shared:
        shared.setenv("MLOPS_LEDGER_URL", url)
        record_verdict(home.ledger, MODEL, judged, read_gate(home.store, judged))
        won = Decision("rival", PROMOTED, "it was faster", MODEL, 9, rival, {}, replaces=0)
        home.ledger.append(won)
        assert isinstance(find_outdated(home), Outdated)
        done = fork_job("reevaluate", home=home.root, MLOPS_LEDGER_URL=url)
        first, _, second = [row.decision for row in home.ledger.entries()]
        assert isinstance(find_outdated(home), str)
    assert done.code == 1, "the same weights are no better than themselves"
    assert "0.0 points" in done.output
    assert (first.outcome, first.evidence["champion"]) == (PASSED, None)
    assert (second.outcome, second.evidence["champion"]) == (FAILED, rival.digest)
    assert first.bundle.digest == second.bundle.digest == judged.bundle.digest
