"""Whether production's answers are as good as they were: business metrics and concept drift."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.home import Home
from mlops_assets.monitoring.drift.findings import (
    BUSINESS,
    CONCEPT,
    NO_DRIFT,
    decide,
)
from mlops_assets.monitoring.quality import answer_quality
from mlops_assets.monitoring.quality.release_in_force import InForce
from mlops_assets.monitoring.quality.user_verdicts import contradicts
from mlops_assets.ref_json import dump_ref, load_ref
from mlops_assets.request_record import SHADOW
from mlops_assets_tests.judged_traffic import (
    ALPHA,
    ANSWER,
    BEFORE,
    OTHER,
    RELEASE,
    SPEC,
    Traffic,
    findings,
    make_report,
)

Change = Callable[[Traffic], None]


def drifted(content: dict[str, Any]) -> tuple[str, ...]:
    return decide(list(findings(content).values()), ALPHA).drifted


# --- business metrics ---------------------------------------------------------------------------


def usual(traffic: Traffic, count: int) -> None:
    """Requests of which some are voted on and corrected."""
    asked = traffic.ask(count)
    traffic.vote(asked[::3])
    traffic.vote(asked[::3], metric="resolved")
    traffic.vote(asked[::20], score=0.0, correction=OTHER)


def failing(traffic: Traffic) -> None:
    traffic.ask(300, status=lambda i: 503 if i % 10 == 0 else 200, output="")


def given_up(traffic: Traffic) -> None:
    traffic.ask(300, status=lambda i: 499 if i % 10 == 0 else 200)


def slow_for_some(traffic: Traffic) -> None:
    traffic.ask(300, latency_ms=lambda i: 3_000.0 if i % 5 == 0 else 100.0 + i % 40)


def slow_for_all(traffic: Traffic) -> None:
    traffic.ask(300, latency_ms=lambda i: 160.0 + i % 40)


def a_little_slower(traffic: Traffic) -> None:
    traffic.ask(300, latency_ms=lambda i: 115.0 + i % 40)


def dear(traffic: Traffic) -> None:
    traffic.ask(300, cost=0.02)


def long(traffic: Traffic) -> None:
    traffic.ask(300, tokens_out=40)


def uncached(traffic: Traffic) -> None:
    traffic.ask(300, cached="")


def disliked(traffic: Traffic) -> None:
    traffic.vote(traffic.ask(300)[::2], score=0.0)


def unresolved(traffic: Traffic) -> None:
    traffic.vote(traffic.ask(300)[::3], metric="resolved", score=0.25)


def corrected(traffic: Traffic) -> None:
    traffic.vote(traffic.ask(300)[::4], score=0.0, correction=OTHER)


def confirmed(traffic: Traffic) -> None:
    traffic.vote(traffic.ask(300)[::4], correction=f" {ANSWER} ")


def asked_again(traffic: Traffic) -> None:
    twice = ({"role": "user", "content": "the same"},)
    traffic.ask(300, user=lambda i: f"u{i // 2 % 50}", messages=twice)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (failing, {"failed"}),
        (given_up, {"given_up"}),
        (slow_for_some, {"latency/p95"}),
        (slow_for_all, {"latency/p50", "latency/p95"}),
        (a_little_slower, set()),
        (dear, {"cost"}),
        (long, {"tokens_out"}),
        (uncached, {"cached"}),
        (disliked, {"rating"}),
        (unresolved, {"vote/resolved"}),
        (corrected, {"rating", "corrected", "contradicted"}),
        (confirmed, {"corrected"}),
        (asked_again, {"made_again"}),
    ],
)
def test_what_got_worse_is_named(
    home: Home, tmp_path: Path, change: Change, found: set[str]
) -> None:
    traffic = Traffic()
    usual(traffic, 600)
    change(traffic)
    assert set(drifted(traffic.measure(home.store, tmp_path))) == found


def test_where_nothing_changed_nothing_is_worse(home: Home, tmp_path: Path) -> None:
    traffic = Traffic()
    usual(traffic, 900)
    content = traffic.measure(home.store, tmp_path)
    verdict = decide(list(findings(content).values()), ALPHA)
    assert [verdict.layers[layer].verdict for layer in (BUSINESS, CONCEPT)] == [NO_DRIFT, NO_DRIFT]
    left_out = [one for one in findings(content).values() if one.left_out]
    assert all(one.name.startswith("labelled/") for one in left_out)
    assert content["values"]["rating"] == pytest.approx(
        {"current": 0.87, "baseline": 0.87}, abs=0.02
    )


def test_better_is_no_drift(home: Home, tmp_path: Path) -> None:
    traffic = Traffic()
    traffic.vote(traffic.ask(600, latency_ms=900.0)[::2], score=0.0, correction=OTHER)
    traffic.vote(traffic.ask(300, latency_ms=9.0)[::2])
    assert drifted(traffic.measure(home.store, tmp_path)) == ()


def test_a_few_users_alone_never_count_by_what_they_say(home: Home, tmp_path: Path) -> None:
    traffic = Traffic()
    traffic.vote(traffic.ask(600)[::3])
    traffic.vote(traffic.ask(300, user=lambda i: f"u{i % 3}"), score=0.0, correction=OTHER)
    found = findings(traffic.measure(home.store, tmp_path))
    for name in ("rating", "corrected", "contradicted"):
        assert found[name].left_out == "3 users, 10 are needed"


def test_of_several_votes_on_an_answer_the_last_counts(home: Home, tmp_path: Path) -> None:
    traffic = Traffic()
    asked = traffic.ask(900)
    traffic.vote(asked[::3], score=0.0, correction=OTHER)
    traffic.vote(asked[::3])
    content = traffic.measure(home.store, tmp_path)
    assert content["values"]["rating"]["current"] == 1
    assert content["values"]["corrected"]["current"] == 0


@pytest.mark.parametrize(
    ("correction", "answer", "other"),
    [
        (OTHER, ANSWER, True),
        (f" {ANSWER} ", ANSWER, False),
        ('{"queue" : "billing"}', ANSWER, False),
        ("billing", ANSWER, False),
        ("shipping", ANSWER, True),
        ("billing", '{"queue":"billing","priority":"low"}', True),
        ("It is here.", "It is here. ", False),
        ("It is there.", "It is here.", True),
    ],
)
def test_a_correction_that_repeats_the_answer_contradicts_nothing(
    correction: str, answer: str, other: bool
) -> None:
    assert contradicts(correction, answer) is other


def test_names_of_metrics_are_as_many_as_can_be_looked_at(home: Home, tmp_path: Path) -> None:
    traffic = Traffic()
    asked = traffic.ask(900)
    traffic.vote(asked[::2], metric="resolved")
    for number in range(30):
        traffic.vote(asked[:1], metric=f"noise{number}")
    named = [name for name in findings(traffic.measure(home.store, tmp_path)) if "vote/" in name]
    assert len(named) == 20
    assert "vote/resolved" in named


def test_one_service_that_asks_everything_is_counted_by_request(home: Home, tmp_path: Path) -> None:
    traffic = Traffic()
    traffic.ask(600, user="service")
    traffic.ask(300, user="service", status=lambda i: 500 if i % 8 == 0 else 200)
    assert drifted(traffic.measure(home.store, tmp_path)) == ("failed",)
    moved = Traffic()
    moved.ask(600, user="service")
    moved.ask(300, user="another", status=lambda i: 500 if i % 8 == 0 else 200)
    found = findings(moved.measure(home.store, tmp_path / "moved"))
    assert found["failed"].left_out == "1 users, 10 are needed"


def test_users_who_stayed_do_not_speak_for_those_who_came(home: Home, tmp_path: Path) -> None:
    traffic = Traffic()
    traffic.ask(700)
    traffic.ask(200, user=lambda i: f"new{i % 100}", status=lambda i: 500 if i % 2 else 200)
    assert "failed" in drifted(traffic.measure(home.store, tmp_path))


# --- the windows --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "ours", "sizes", "against"),
    [
        (0, 1_200, (300, 600), "the requests before, of the same release"),
        (500, 450, (300, 150), "the requests before, of the same release"),
        (500, 350, (300, 500), "the newest requests of the release before"),
        (50, 350, (300, 50), "the requests before, of the same release"),
        (0, 0, (0, 0), "the requests before, of the same release"),
    ],
)
def test_the_window_before_or_that_of_the_release_before(
    home: Home, tmp_path: Path, before: int, ours: int, sizes: tuple[int, int], against: str
) -> None:
    traffic = Traffic()
    traffic.ask(before, release=BEFORE)
    traffic.ask(10, release="c" * 64)
    traffic.ask(ours)
    windows = traffic.measure(home.store, tmp_path)["windows"]
    assert (windows["current"]["requests"], windows["baseline"]["requests"]) == sizes
    assert windows["baseline"]["against"] == against


def test_what_no_user_met_does_not_count(home: Home, tmp_path: Path) -> None:
    traffic = Traffic()
    traffic.ask(900)
    traffic.ask(100, arm=SHADOW, status=500)
    traffic.ask(100, status=429)
    content = traffic.measure(home.store, tmp_path)
    assert content["windows"]["current"]["to"] == traffic.requests[899].timestamp
    assert content["values"]["failed"] == {"current": 0, "baseline": 0}


def test_simulated_records_stand_for_the_release_in_force(home: Home, tmp_path: Path) -> None:
    traffic = Traffic()
    traffic.ask(900, release="simulated")
    assert traffic.measure(home.store, tmp_path)["windows"]["current"]["requests"] == 300
    nothing = traffic.measure(home.store, tmp_path, in_force=InForce())
    assert nothing["windows"]["current"]["requests"] == 300


def test_the_values_over_time_and_by_slice(home: Home, tmp_path: Path) -> None:
    traffic = Traffic()
    traffic.ask(600)
    traffic.ask(300, status=lambda i: 500 if i % 3 == 0 else 200)
    content = traffic.measure(home.store, tmp_path)
    assert [one["values"]["failed"] for one in content["history"]] == [0, 0, pytest.approx(1 / 3)]
    channels = content["by_slice"]["channel"]
    assert (channels["chat"]["failed"], channels["email"]["failed"]) == (1, 0)


# --- the artifact -------------------------------------------------------------------------------


def test_the_artifact_is_made_again_when_anybody_says_more(home: Home, tmp_path: Path) -> None:
    store, traffic = home.store, Traffic()
    usual(traffic, 700)
    log, in_force = traffic.log(store, tmp_path), InForce(RELEASE, BEFORE, make_report(store))
    made = answer_quality.measure_quality(store, log, traffic.said, in_force, SPEC)
    again = answer_quality.measure_quality(store, log, traffic.said, in_force, SPEC)
    assert again.artifact.reused
    assert (again.release, again.requests) == (RELEASE, 300)
    assert load_ref(dump_ref(made)) == made
    page = (store.path(made.artifact) / answer_quality.PAGE).read_text()
    assert "<script" not in page
    assert "vote/resolved<small>mean of what users voted" in page
    traffic.vote(traffic.requests[:1], score=0.0, metric="<b>bold</b>")
    voted = answer_quality.measure_quality(store, log, traffic.said, in_force, SPEC)
    assert voted.artifact.key != made.artifact.key
    assert "<b>bold" not in (store.path(voted.artifact) / answer_quality.PAGE).read_text()


def test_an_empty_log_has_a_page_too(home: Home, tmp_path: Path) -> None:
    log = Traffic().log(home.store, tmp_path)
    made = answer_quality.measure_quality(home.store, log, Traffic().said, InForce(), SPEC)
    found = answer_quality.read_findings(home.store, made)
    assert found
    assert not any(one.counts for one in found)
