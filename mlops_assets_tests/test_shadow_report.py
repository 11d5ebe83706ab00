"""The report at the end of a shadow: what both releases answered, in numbers and as a page."""

import json
import random
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home
from mlops_assets.release_view import SHADOW_PAGE
from mlops_assets.request_record import SHADOW
from mlops_assets.serving.rollout.release_spec import ReleaseSpec
from mlops_assets.serving.rollout.release_steps import numbers
from mlops_assets.serving.rollout.rollout import judge
from mlops_assets.serving.rollout.rollout_evidence import Evidence
from mlops_assets.serving.traffic import shadow_report
from mlops_assets.serving.traffic.shadow_comparison import compare
from mlops_assets.serving.traffic.shadow_pairs import ShadowPair, Side

STABLE, CANDIDATE = "ab" * 32, "cd" * 32
LABELS = ("billing", "hardware", "network")


def pair(number: int, live: str, shadow: str, **more: object) -> ShadowPair:
    """A pair with these answers; an error where an answer begins with `!`."""
    times = {"live": 20.0 + number % 7, "shadow": 24.0 + number % 11}
    sides = {
        name: Side("", times[name], text[1:]) if text.startswith("!") else Side(text, times[name])
        for name, text in (("live", live), ("shadow", shadow))
    }
    values = {"question": f"Question {number}", **sides, **more}
    return ShadowPair(
        id=f"chatcmpl-{number:032x}",
        timestamp=f"2026-11-22T10:{number // 60 % 60:02}:{number % 60:02}.000+00:00",
        stable=STABLE,
        candidate=CANDIDATE,
        tokens=30,
        **values,  # type: ignore[arg-type]
    )


def many(count: int = 400) -> list[ShadowPair]:
    """Tickets, of which the candidate sends one in ten elsewhere and fails one in fifty."""
    draw, found = random.Random(7), []
    for number in range(count):
        queue = draw.choice(LABELS)
        other = draw.choice(LABELS) if number % 10 == 3 else queue
        live = json.dumps({"queue": queue, "urgent": number % 2 == 0})
        shadow = json.dumps({"urgent": number % 2 == 0, "queue": other}, indent=1)
        question = f"I am kim{number}@example.org and the {queue} broke <b>again</b>."
        answer = "!engine_error" if number % 50 == 7 else shadow
        found.append(pair(number, live, answer, question=question))
    return found


def keep(home: Home, pairs: list[ShadowPair]) -> None:
    directory = home.root / "serving" / "shadow"
    directory.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(asdict(one)) for one in pairs]
    (directory / "00000001.jsonl").write_text("\n".join(lines) + '\n{"torn')


VERDICT = numbers(
    judge(ReleaseSpec(), SHADOW, 0, 700.0, Evidence(ReleaseSpec(), SHADOW), total_s=700.0)
)


@pytest.mark.parametrize(
    ("live", "shadow", "same"),
    [
        ('{"a": 1, "b": 2}', '{"b":2,"a":1}', True),
        ('{"a": 1}', '{"a": true}', False),
        (" text", "text\n", True),
        ("text", "other", False),
        ("text", '{"a": 1}', False),
    ],
)
def test_agreement(live: str, shadow: str, same: bool) -> None:
    found = compare([pair(1, live, shadow)])
    assert found["agreement"]["same"] == float(same)
    assert 0 <= found["agreement"]["interval"][0] < found["agreement"]["interval"][1] <= 1


def test_json_answers_are_compared_field_by_field() -> None:
    found = compare(
        [
            pair(1, '{"a": 1, "b": 1}', '{"a": 1, "b": 2}'),
            pair(2, '{"a": 1, "b": 1}', '{"a": 1}'),
            pair(3, '{"a": 1, "b": 1}', "no JSON"),
        ]
    )["json"]
    assert {name: field["same"] for name, field in found["fields"].items()} == {"a": 1.0, "b": 0.0}
    assert found["pairs"] == 2
    assert found["valid"] == {"live": 1.0, "shadow": pytest.approx(2 / 3)}


def test_rates_of_both_sides() -> None:
    found = compare(
        [
            pair(1, "fine", "!timeout_error"),
            pair(2, "fine", " "),
            pair(3, "fine", "I'm sorry, but I cannot help with that."),
            pair(4, "!engine_error", "fine"),
        ]
    )
    for name in ("errors", "empty", "refusals"):
        assert found["rates"][name]["shadow"]["count"] == 1
        low, high = found["rates"][name]["interval"]
        assert low < found["rates"][name]["difference"] < high
    assert found["errors"] == {"live": {"engine_error": 1}, "shadow": {"timeout_error": 1}}
    assert found["agreement"]["pairs"] == 2


def test_no_pair_gives_no_number(home: Home) -> None:
    found = compare([])
    assert found["agreement"]["same"] is None
    assert found["latency"]["live"]["p50"] is None
    made = shadow_report.build(home, STABLE, CANDIDATE, "", VERDICT)
    assert made.summary == {"pairs": 0, "agreement": None, "action": "HOLD"}


def test_the_report_is_an_artifact_without_personal_data(home: Home) -> None:
    keep(home, many())
    made = shadow_report.build(home, STABLE, CANDIDATE, "", VERDICT)
    again = shadow_report.build(home, STABLE, CANDIDATE, "", VERDICT)
    assert (again.reused, again.digest) == (True, made.digest)
    directory = home.store.path(made)
    report = json.loads((directory / shadow_report.REPORT).read_bytes())
    assert report["pairs"] == 400
    assert report["rates"]["errors"]["shadow"]["count"] == 8
    assert 0.9 < report["agreement"]["same"] < 0.97
    assert report["json"]["fields"]["urgent"]["same"] == 1.0
    assert sum(report["histogram"]["live"]) == 392
    page = (directory / SHADOW_PAGE).read_text()
    for text in (page, json.dumps(report["examples"])):
        assert "@example.org" not in text
        assert "[email]" in text
    assert "<b>again" not in page
    assert "http" not in page.replace("http-", "")  # nothing is fetched
    later = shadow_report.build(home, STABLE, CANDIDATE, "2026-11-22T10:05", VERDICT)
    assert later.summary["pairs"] == 100


@pytest.mark.slow
def test_the_gateway_has_it_made_apart(home: Home) -> None:
    keep(home, many(20))
    told = shadow_report.build_apart(home, STABLE, CANDIDATE, "", VERDICT)
    assert told["digest"] == shadow_report.build(home, STABLE, CANDIDATE, "", VERDICT).digest
    with pytest.raises(LineageError, match="could not be made"):
        shadow_report.build_apart(Home(Path("/dev/null")), STABLE, CANDIDATE, "", VERDICT)
    light = (
        "import sys, mlops_assets.serving.traffic.shadow_report as r; print('torch' in sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", light], capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == "False"
