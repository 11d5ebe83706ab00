"""What people read of answer quality: its page's words, and the tables of the asset."""

from typing import Any

from mlops_assets.monitoring.quality import quality_page
from mlops_assets.monitoring.quality.business_metrics import METRICS


def draw(**changes: Any) -> dict[str, Any]:
    found = {
        "draw": "9d05a076106a",
        "until": "2026-11-22T07:39:12.345678+00:00",
        "population": 4_000,
        "drawn": 300,
        "labelled": 240,
        "response": 0.8,
        "people": 5,
        "disputed": 2,
        "metrics": {"exact_match": {"mean": 0.98333333, "interval": [0.9615, 0.9929]}},
    }
    return found | changes


def test_every_metric_says_what_it_is() -> None:
    assert {metric.name for metric in METRICS} <= set(quality_page.MEANINGS)


def test_draws_are_a_table_with_the_newest_first() -> None:
    unlabelled = {"exact_match": {"mean": None, "interval": None}}
    older = draw(draw="ffcc8139fedc", labelled=0, response=0.0, metrics=unlabelled)
    rows, columns = quality_page.draw_table({"labelled": [older, draw()]})
    assert rows[0] == {
        "draw": "9d05a076106a",
        "requests until": "2026-11-22 07:39",
        "drawn": "300 of 4,000",
        "labelled": "240 (80.0%)",
        "people": "5",
        "disputed": "2",
        "exact_match": "98.3% (96.2% to 99.3%)",
    }
    assert (rows[1]["draw"], rows[1]["exact_match"]) == ("ffcc8139fedc", "-")
    assert list(columns) == list(rows[0])
    assert quality_page.draw_table({"labelled": []})[0] == []


def test_what_takes_no_part_stands_apart() -> None:
    finding = {"layer": "business", "effect": 0.2, "min_effect": 0.02, "p": 1e-9}
    finding |= {"reference_n": 4_000, "current_n": 1_000}
    findings = [
        finding | {"name": "failed", "left_out": ""},
        finding | {"name": "cached", "left_out": "no answer came from the cache"},
    ]
    values = {"failed": {"current": 0.21, "baseline": 0.01}, "cached": {"current": 0.0}}
    content = {"findings": findings, "values": values, "units": {}}
    (row,) = quality_page.metric_rows(content)
    assert [row[name] for name in ("name", "now", "before", "effect", "p", "n")] == [
        *("failed", "21.0%", "1.0%", "0.200", "≤ 0.0001", "1,000/4,000")
    ]
    (row,) = quality_page.left_out_rows(content)
    assert (row["name"], row["reason"]) == ("cached", "no answer came from the cache")


def test_what_the_window_is_compared_with() -> None:
    before = {"requests": 4_000, "against": "the requests before, of the same release"}
    said = quality_page.compared_with({"windows": {"baseline": before}})
    assert said == "4,000: the requests before, of the same release"
    nothing = quality_page.compared_with({"windows": {"baseline": before | {"requests": 0}}})
    assert nothing.startswith("nothing: ")
