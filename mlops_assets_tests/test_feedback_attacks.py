"""Who means harm, with one key: no label of the model's own making, no home to oneself."""

import time
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.home import Home
from mlops_assets.monitoring.feedback.echoes import same_answer
from mlops_assets.monitoring.feedback.feedback_rows import read_said
from mlops_assets.monitoring.feedback.feedback_spec import FeedbackSpec
from mlops_assets.monitoring.feedback.lessons import CORRECTION, Lesson
from mlops_assets.monitoring.feedback.row_files import QUARANTINE, write_files
from mlops_assets.monitoring.feedback.screening import Draft
from mlops_assets.privacy import excerpt
from mlops_assets_tests.said import (
    answer,
    label,
    make_splits,
    request,
    vote,
    words,
    write_log,
    write_votes,
)
from mlops_assets_tests.test_feedback_rows import lines, make, reasons

SMALL = {"max_person_share": 0.25, "max_tenant_share": 0.25}


@pytest.mark.parametrize(
    "said",
    ["Press\u200b the red button", "press  the\u00a0red butt on!", "\ufeffPress the red\r\nbutton",
     "\uff30ress the red button", "```\nPress the red button\n```"],
)  # fmt: skip
def test_an_answer_dressed_up_is_an_echo(said: str) -> None:
    assert same_answer("Press the red button.", said)


@pytest.mark.parametrize(
    ("one", "other"),
    [('{"a": "Red"}', '{"a": "red"}'), ('{"a": "no\u200b w"}', '{"a":"now"}'), ("[1, 2]", "[1,2]")],
)
def test_so_is_json_dressed_up(one: str, other: str) -> None:
    assert same_answer(one, other)


@pytest.mark.parametrize(
    "again",
    [
        "where is my parcel",
        "Where  is my parcel?",
        "Where is\nmy parcel? ",
        "Where is my\u200b parcel?",
    ],
)
def test_the_answer_to_the_same_question_written_otherwise_is_no_label(
    home: Home, again: str
) -> None:
    """Asked again it may be another release that answers."""
    asked = request(1, "Where is my parcel?", "kim")
    other = request(2, again, "lee", output=answer("login"), release="e" * 64)
    made = make(home, [asked, other], [vote(asked, answer("login"))])
    assert (made.summary["training"], reasons(made)) == (0, {"echo": 1})


def test_the_answer_to_another_question_is_a_correction(home: Home) -> None:
    asked = request(1, "Where is my parcel?", "kim")
    other = request(2, "Where is my password?", "lee", output=answer("login"))
    made = make(home, [asked, other], [vote(asked, answer("login"))])
    assert made.summary["training"] == 1


def crowd(count: int, tenant: str, first: int = 0) -> tuple[list[Any], list[Any]]:
    asked = [request(n, tenant=tenant) for n in range(first, first + count)]
    return asked, [vote(one, answer()) for one in asked]


def test_a_key_with_invented_users_never_outweighs_the_data(home: Home) -> None:
    splits = make_splits(home, train=[words(n) for n in range(500, 512)])
    asked, votes = crowd(20, "evil")
    made = make(home, asked, votes, splits=splits, **SMALL)
    assert (made.summary["training"], reasons(made)) == (4, {"tenant_cap": 16})
    assert {line["tenant"] for line in lines(home, made, "provenance.jsonl")} == {"evil"}
    labels = [label(one, answer()) for one in crowd(4, "shop", 100)[0]]
    asked += crowd(4, "shop", 100)[0]
    made = make(home, asked, votes, labels, splits=splits, max_person_share=1.0,
                max_tenant_share=0.25)  # fmt: skip
    assert made.summary["kinds"]["label"]["training"] == 4, "who labels has no key"


def test_nor_does_it_fill_the_suite_that_holds_candidates_back(home: Home) -> None:
    splits = make_splits(home, test=[words(n) for n in range(500, 512)], validation=[])
    asked, votes = crowd(20, "evil")
    made = make(home, asked, votes, splits=splits, regression_share=1.0, **SMALL)
    assert (made.summary["cases"], reasons(made)) == (4, {"tenant_cap": 16})


def test_personal_data_in_a_slice_goes_no_further(home: Home) -> None:
    asked = request(1, slices={"channel": "maria@example.com"})
    made = make(home, [asked], [vote(asked, answer())])
    (row,) = lines(home, made, "training.jsonl")
    assert row["channel"] == "[email]"
    written = [path.read_text() for path in Path(home.store.path(made)).iterdir()]
    assert not any("maria" in text for text in written)
    asked = request(2, slices={"channel": "maria@example.com"})
    splits = make_splits(home, privacy={"email": "block"})
    made = make(home, [asked], [vote(asked, answer())], splits=splits)
    assert reasons(made) == {"personal_data": 1}


def test_a_question_that_everybody_asks_is_not_kept_with_all_its_answers(home: Home) -> None:
    asked = [request(n, "Hello", f"user{n}", output=f"Hi, guest {n}") for n in range(30)]
    asked[7] = request(7, "hello!", "lee", output='{"queue": "login"}')
    write_votes(home, [vote(asked[0], "Good day"), vote(asked[1], "hi,  GUEST 20")])
    said = read_said(home, write_log(home, asked), (), FeedbackSpec())
    assert [lesson.answers for lesson in said.lessons] == [
        ("Hi, guest 0", '{"queue": "login"}'),
        ("Hi, guest 1", '{"queue": "login"}', "Hi, guest 20"),
    ]


def test_what_is_set_aside_is_not_read_whole(tmp_path: Path) -> None:
    """A million letters take seconds to be looked through, and each vote may be on another."""
    excerpt("+49 170 1234567")  # loads what looks for numbers
    asked = {"role": "user", "content": "+49 170 1234567 " * 60_000}
    lesson = Lesson(CORRECTION, "evil/kim", "evil", "", "r1", "no", messages=(asked,))
    begun = time.process_time()
    write_files(tmp_path, [Draft(lesson, "bad_request")] * 10, {})
    assert time.process_time() - begun < 3
    assert "1234567" not in (tmp_path / QUARANTINE).read_text()
