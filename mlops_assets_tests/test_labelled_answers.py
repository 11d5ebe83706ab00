"""Whether the recorded answers are right, by labels of a random slice of the requests."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from mlops_assets.home import Home
from mlops_assets.monitoring.drift.findings import CONCEPT, DRIFT, NO_DRIFT, NO_VERDICT, decide
from mlops_assets.monitoring.quality.release_in_force import InForce, find_in_force
from mlops_assets_tests.judged_traffic import (
    ALPHA,
    ANSWER,
    BEFORE,
    OTHER,
    RELEASE,
    SPEC,
    START,
    Traffic,
    findings,
)
from mlops_assets_tests.release_stories import Story
from mlops_assets_tests.releases import MODEL, make_bundle, request


@pytest.mark.parametrize(
    ("right", "wrong", "verdict"),
    [(90, 10, NO_DRIFT), (70, 30, DRIFT), (100, 0, NO_DRIFT), (84, 16, NO_DRIFT)],
)
def test_labelled_answers_against_the_evaluation_report(
    home: Home, tmp_path: Path, right: int, wrong: int, verdict: str
) -> None:
    traffic = Traffic()
    traffic.ask(900)
    draw = traffic.draw(right + wrong)
    traffic.label(draw, [ANSWER] * right + [OTHER] * wrong)
    content = traffic.measure(home.store, tmp_path)
    found = decide(list(findings(content).values()), ALPHA).layers[CONCEPT]
    assert found.verdict == verdict
    (measured,) = content["labelled"]
    assert content["values"]["labelled/exact_match"] == {"current": right / 100, "baseline": 0.9}
    low, high = measured["metrics"]["exact_match"]["interval"]
    assert low < measured["metrics"]["exact_match"]["mean"] == right / 100 <= high


@pytest.mark.parametrize(
    ("labelled", "changes", "why"),
    [
        (79, {}, "79 of 100 drawn requests are labelled (79%), 80% are needed"),
        (90, {"min_labels": 95}, "90 labels, 95 are needed"),
        (0, {}, "0 of 100 drawn requests are labelled (0%), 80% are needed"),
    ],
)
def test_a_draw_that_did_not_come_back_decides_nothing(
    home: Home, tmp_path: Path, labelled: int, changes: dict[str, int], why: str
) -> None:
    traffic = Traffic()
    traffic.ask(900)
    traffic.label(traffic.draw(100), [OTHER] * labelled)
    spec = SPEC.model_copy(update=changes)
    content = traffic.measure(home.store, tmp_path, spec)
    assert findings(content)["labelled/exact_match"].left_out == why
    assert decide(list(findings(content).values()), ALPHA).layers[CONCEPT].verdict == NO_VERDICT


def test_an_old_draw_says_nothing_of_now(home: Home, tmp_path: Path) -> None:
    traffic = Traffic()
    traffic.ask(100)
    traffic.label(traffic.draw(50), [OTHER] * 50)
    late = (START + timedelta(days=31)).isoformat()
    traffic.ask(300, timestamp=late)
    found = findings(traffic.measure(home.store, tmp_path))["labelled/exact_match"]
    assert found.left_out == "the last labelled slice is older than 30 days"


def test_without_draws_or_report_there_is_no_verdict(home: Home, tmp_path: Path) -> None:
    traffic = Traffic()
    traffic.ask(900)
    found = findings(traffic.measure(home.store, tmp_path))
    assert "mlops label draw" in found["labelled/exact_match"].left_out
    traffic.label(traffic.draw(100), [OTHER] * 100)
    found = findings(traffic.measure(home.store, tmp_path, in_force=InForce(RELEASE)))
    assert "report is not in the store" in found["labelled/exact_match"].left_out


def test_only_the_release_in_force_answers_for_its_draw(home: Home, tmp_path: Path) -> None:
    traffic = Traffic()
    traffic.ask(450, release=BEFORE, output=OTHER)
    traffic.ask(450)
    draw = traffic.draw(200)
    ours = [one.request for one in draw.requests if one.release == RELEASE]
    traffic.label(draw, [ANSWER] * 200)
    (measured,) = traffic.measure(home.store, tmp_path)["labelled"]
    assert (measured["drawn"], measured["labelled"]) == (len(ours), len(ours))
    assert measured["metrics"]["exact_match"]["mean"] == 1


def test_where_people_disagree_an_answer_is_right_in_part(home: Home, tmp_path: Path) -> None:
    traffic = Traffic()
    traffic.ask(900)
    draw = traffic.draw(50)
    traffic.label(draw, [ANSWER] * 50)
    traffic.label(draw, [ANSWER] * 20 + [OTHER] * 10, person="bob")
    (measured,) = traffic.measure(home.store, tmp_path)["labelled"]
    assert (measured["disputed"], measured["people"], measured["labelled"]) == (10, 2, 50)
    assert measured["metrics"]["exact_match"]["mean"] == pytest.approx(0.9)


def test_an_answer_is_never_right_where_no_label_fits(home: Home, tmp_path: Path) -> None:
    traffic = Traffic()
    traffic.ask(900, output="{}")
    traffic.label(traffic.draw(50), ['{"queue": null}'] * 50)
    (measured,) = traffic.measure(home.store, tmp_path)["labelled"]
    assert {each["mean"] for each in measured["metrics"].values()} == {0}


def test_labelled_answers_that_left_the_log_are_missing(home: Home, tmp_path: Path) -> None:
    traffic = Traffic()
    traffic.ask(900)
    traffic.label(traffic.draw(100), [ANSWER] * 100)
    traffic.requests = traffic.requests[450:]
    (measured,) = traffic.measure(home.store, tmp_path)["labelled"]
    assert measured["gone"] + round(measured["response"] * 100) == 100
    assert 30 < measured["gone"] < 70


def test_the_release_in_force_is_judged_by_the_report_it_was_approved_by(home: Home) -> None:
    assert find_in_force(home.store, home.ledger.entries(), MODEL) == InForce()
    story = Story(home)
    for version, name in enumerate("ab", 1):
        request(home, version, name)
        story.tell(f"promote {name}")
        story.tell(f"released {name}")
    before, release = (make_bundle(home, name).digest for name in "ab")
    found = find_in_force(home.store, home.ledger.entries(), MODEL)
    assert (found.release, found.before) == (release, before)
    assert found.report is not None
    assert home.store.recipe(found.report).inputs == {"seed": release}
    shutil.rmtree(home.store.path(found.report))
    assert find_in_force(home.store, home.ledger.entries(), MODEL).report is None
    story.tell("back a")
    found = find_in_force(home.store, home.ledger.entries(), MODEL)
    assert (found.release, found.before) == (before, "")
