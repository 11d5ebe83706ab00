"""What people say becomes rows and cases; the model's own words never do."""

import json
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.artifacts import Artifact, LineageError
from mlops_assets.home import Home
from mlops_assets.monitoring.feedback import echoes, feedback_rows
from mlops_assets.monitoring.feedback.feedback_spec import FeedbackSpec
from mlops_assets.monitoring.feedback.lessons import CORRECTION, LABEL, REGENERATION, THUMB_UP
from mlops_assets.monitoring.feedback.screening import REASONS
from mlops_assets_tests.said import (
    LABELS,
    answer,
    label,
    later,
    make_splits,
    request,
    vote,
    words,
    write_given,
    write_log,
    write_votes,
)

ALONE = {"max_person_share": 1.0, "max_tenant_share": 1.0, "regression_share": 0.0, "suites": ""}


def make(
    home: Home, requests: Any, votes: Any = (), labels: Any = (), splits: Any = None, **more: Any
) -> Artifact:
    """The rows of what was said, without putting them in force."""
    write_votes(home, votes)
    write_given(home, labels)
    spec = FeedbackSpec(**ALONE | more)
    said = feedback_rows.read_said(home, write_log(home, requests), (), spec)
    return feedback_rows.make_rows(home, said, splits or make_splits(home), spec)


def lines(home: Home, made: Artifact, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (home.store.path(made) / name).read_text().splitlines()]


def reasons(made: Artifact, kind: str = CORRECTION) -> dict[str, int]:
    return dict(made.summary["kinds"][kind]["quarantined"])


def test_a_correction_becomes_a_row_with_its_provenance(home: Home) -> None:
    asked = request(1, "My lamp is dark, write to maria@example.com")
    made = make(home, [asked], [vote(asked, answer("billing", "high"))])
    (row,) = lines(home, made, "training.jsonl")
    assert row["messages"] == [
        {"role": "user", "content": "My lamp is dark, write to [email]"},
        {"role": "assistant", "content": answer("billing", "high")},
    ]
    assert (row["channel"], row["timestamp"]) == ("chat", "2026-03-01T00:01:00Z")
    (origin,) = lines(home, made, "provenance.jsonl")
    assert origin["id"] == row["id"]
    assert origin["person"] == "shop/user1"
    wanted = {"kind": CORRECTION, "request": "r1", "release": "f" * 64, "tenant": "shop"}
    assert wanted.items() <= origin.items()
    assert origin["time"] == vote(asked).timestamp


ECHOES = [
    answer("shipping"),
    f"  {answer('shipping')}\n",
    answer("shipping").replace(" ", ""),
    '{"priority": "low", "queue": "shipping"}',
    f"```json\n{answer('shipping')}\n```",
    '{"queue": "shipp\\u0069ng", "priority": "low"}',
]


@pytest.mark.parametrize("said", ECHOES)
def test_what_the_model_answered_is_never_a_label(home: Home, said: str) -> None:
    asked = request(1)
    made = make(home, [asked], [vote(asked, said)])
    assert (made.summary["training"], reasons(made)) == (0, {"echo": 1})


def test_nor_is_another_answer_to_the_same_question(home: Home) -> None:
    """A user who has it answered again may copy the second answer into a correction."""
    first, again = request(1, "same words", "kim"), request(2, "same words", "kim")
    again = request(2, "same words", "kim", output=answer("login"))
    made = make(home, [first, again], [vote(first, answer("login"))])
    assert reasons(made) == {"echo": 1}
    (seen,) = lines(home, made, "signals.jsonl")
    assert (seen["kind"], seen["request"], seen["again"]) == (REGENERATION, "r1", "r2")
    assert made.summary["training"] == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Yes.", " yes ", True),
        ("“Yes”", "“Yes” ", True),
        ("3.5", "35", False),
        ('{"a": 1}', '{"a": true}', False),
        ('{"a": 1}', '{"a": 1, "b": 2}', False),
        ("...", "...", True),
        ("", "", True),
    ],
)
def test_what_counts_as_the_same_answer(one: str, other: str, same: bool) -> None:
    assert echoes.same_answer(one, other) is same


def test_a_vote_is_no_row_however_good(home: Home) -> None:
    asked = [request(number) for number in range(3)]
    votes = [
        vote(asked[0], score=1.0),
        vote(asked[1], score=0.0),
        vote(asked[2], score=1.0, metric="resolved"),
    ]
    made = make(home, asked, votes)
    assert (made.summary["training"], made.summary["cases"]) == (0, 0)
    origin = {"kind": THUMB_UP, "person": "shop/user0", "request": "r0", "score": 1.0}
    signals = lines(home, made, "signals.jsonl")
    assert origin.items() <= signals[0].items()
    assert [signal["kind"] for signal in signals] == [THUMB_UP, "thumb_down", "score"]
    assert made.summary["kinds"][THUMB_UP] == {
        "received": 1, "training": 0, "cases": 0, "signals": 1, "quarantined": {}
    }  # fmt: skip


def test_a_label_has_no_place_for_an_output(home: Home) -> None:
    """Who labels sees no answer; one that a file brings along goes nowhere."""
    asked = request(1)
    write_given(home, [label(asked, answer("login"))])
    (file,) = (home.root / "labels").glob("*.jsonl")
    said = json.loads(file.read_text()) | {"output": "OUTPUT", "answered": "OUTPUT"}
    file.write_text(json.dumps(said))
    made = make(home, [asked])
    (row,) = lines(home, made, "training.jsonl")
    assert row["messages"][-1]["content"] == answer("login")
    assert "OUTPUT" not in json.dumps(lines(home, made, "provenance.jsonl"))


def test_a_label_may_agree_with_the_answer(home: Home) -> None:
    asked = request(1)
    made = make(home, [asked], labels=[label(asked, answer("shipping"))])
    assert made.summary["kinds"][LABEL]["training"] == 1
    made = make(home, [asked], regression_share=1.0)
    assert (made.summary["cases"], reasons(made, LABEL)) == (0, {"confirmed": 1})


@pytest.mark.parametrize(
    ("asked", "said", "reason"),
    [
        ({}, "login", "bad_answer"),
        ({}, '{"queue": "login"}', "bad_answer"),
        ({}, answer("nowhere"), "wrong_label"),
        ({}, '{"queue": null, "priority": "low"}', "wrong_label"),
        ({"text": "x" * 501}, answer(), "bad_request"),
        ({"messages": ({"role": "user", "content": " "}, {"role": "user", "content": "b"})},
         answer(), "bad_request"),
        ({"messages": [{"role": role, "content": "hm"} for role in ("user", "assistant", "user")]},
         answer(), "earlier_answer"),
        ({"status": 500}, answer(), "unknown_request"),
        ({"text": "call maria@example.com"}, answer(), "personal_data"),
        ({"text": "WHAT to  test"}, answer(), "in_eval_set"),
        ({"text": "What to choose"}, answer(), "in_eval_set"),
        ({"text": "what to train"}, answer(), "in_training"),
    ],
)  # fmt: skip
def test_what_is_no_row_is_quarantined_with_its_reason(
    home: Home, asked: dict[str, Any], said: str, reason: str
) -> None:
    one = request(1, **asked)
    splits = make_splits(home, privacy={"email": "block"})
    made = make(home, [one], [vote(one, said)], splits=splits)
    assert reasons(made) == {reason: 1}
    (line,) = lines(home, made, "quarantine.jsonl")
    assert (line["reason"], line["request"]) == (reason, "r1")
    assert "maria@" not in json.dumps(line)
    assert reason in REASONS


def test_a_bare_label_will_do_where_there_is_one_field(home: Home) -> None:
    asked = request(1, output='{"queue": "shipping"}')
    splits = make_splits(home, labels={"queue": LABELS["queue"]})
    made = make(home, [asked], [vote(asked, "login")], splits=splits)
    assert lines(home, made, "training.jsonl")[0]["messages"][-1]["content"] == '{"queue": "login"}'
    asked = request(2, output='{"queue": "shipping"}')
    assert reasons(make(home, [asked], [vote(asked, "shipping")], splits=splits)) == {"echo": 1}


def test_copies_count_once_and_contradictions_not_at_all(home: Home) -> None:
    long = " ".join(words(number) for number in range(6))
    texts = ["one text", "ONE  text", "two", "two", "three", "three", long, f"{long} indeed"]
    asked = [request(number, text) for number, text in enumerate(texts)]
    said = [answer(), answer(), answer(), answer("login"), answer(), answer("login"), answer()]
    votes = [vote(one, text) for one, text in zip(asked, [*said, answer()], strict=True)]
    asked[5] = request(5, "three", "user4")
    votes[5] = vote(asked[5], answer("login"))  # of one person the last word counts
    made = make(home, asked, votes)
    assert reasons(made) == {
        "contradicted": 2, "duplicate_text": 1, "near_duplicate": 1, "taken_back": 1
    }  # fmt: skip
    texts = [row["messages"][0]["content"] for row in lines(home, made, "training.jsonl")]
    assert texts == ["one text", "three", long]


def test_a_vote_that_is_taken_back_takes_its_row_back(home: Home) -> None:
    asked = [request(number) for number in range(4)]
    votes = [vote(one, answer()) for one in asked]
    assert make(home, asked, votes).summary["training"] == 4
    made = make(home, asked, [*votes, later(votes[0], correction="", score=1.0)])
    assert (made.summary["training"], reasons(made)) == (3, {"taken_back": 1})
    assert made.summary["kinds"][THUMB_UP]["signals"] == 1


def test_nothing_stands_in_a_suite_not_even_nearly(home: Home, tmp_path: Path) -> None:
    long = " ".join(words(number) for number in range(6))
    items = [{"id": str(at), "messages": [{"role": "user", "content": text}]}
             for at, text in enumerate(("golden words", long))]  # fmt: skip
    (tmp_path / "golden.yaml").write_text("items: golden.jsonl")
    (tmp_path / "golden.jsonl").write_text("\n".join(map(json.dumps, items)))
    system = {"role": "system", "content": "Be brief."}
    asked = [
        request(1, "Golden Words"),
        request(2, f"{long} please"),
        request(3, messages=(system, {"role": "user", "content": "golden words"})),
    ]
    votes = [vote(one, answer()) for one in asked]
    made = make(home, asked, votes, suites=str(tmp_path))
    assert reasons(made) == {"in_eval_set": 2, "near_eval_set": 1}
    (tmp_path / "golden.jsonl").unlink()
    with pytest.raises(LineageError, match=r"golden\.yaml cannot be read"):
        make(home, asked, votes, suites=str(tmp_path))


def test_a_case_is_never_learnt_and_what_is_learnt_is_no_case(home: Home) -> None:
    """By hash of who asked; and whatever hashes say, no text stands on both sides."""
    long = [" ".join(words(7 * n + k) for k in range(6)) for n in range(30)]
    asked = [request(n, long[n // 2] + (" now" if n % 4 == 1 else "")) for n in range(60)]
    splits = make_splits(home, train=[long[0], f"{long[1]} now"])  # so two pairs are known
    made = make(home, asked, [vote(one, answer()) for one in asked], splits=splits,
                regression_share=0.5)  # fmt: skip
    rows, cases = (lines(home, made, f"{name}.jsonl") for name in ("training", "regressions"))
    assert rows
    assert cases
    learnt = {" ".join(row["messages"][0]["content"].split()[:30]) for row in rows}
    asked_too = {" ".join(case["messages"][0]["content"].split()[:30]) for case in cases}
    assert len(learnt) == len(rows)
    assert len(asked_too) == len(cases)
    assert not learnt & asked_too
    assert not asked_too & set(long[:2])
    files = {line["id"]: line["file"] for line in lines(home, made, "provenance.jsonl")}
    people = {name: {line["user"] for line in lines(home, made, "provenance.jsonl")
                     if line["file"] == name} for name in set(files.values())}  # fmt: skip
    assert not people["training.jsonl"] & people["regressions.jsonl"]


def test_nobody_teaches_alone(home: Home) -> None:
    asked = [request(n, user="mallory") for n in range(12)] + [request(n) for n in range(12, 15)]
    votes = [vote(one, answer()) for one in asked]
    made = make(home, asked, votes, max_person_share=0.25)
    assert (made.summary["training"], reasons(made)) == (4, {"person_cap": 11})
    made = make(home, asked, votes, max_person_share=0.2)
    assert (made.summary["training"], reasons(made)) == (0, {"person_cap": 15})
    made = make(home, asked, votes, max_rows_per_person=5)
    assert (made.summary["training"], reasons(made)) == (8, {"person_cap": 7})
    made = make(home, asked, votes, excluded=["shop/mallory", "r12"])
    assert (made.summary["training"], reasons(made)) == (2, {"excluded": 13})


def test_the_same_said_again_is_the_same_artifact(home: Home) -> None:
    asked = [request(number) for number in range(5)]
    votes = [vote(one, answer()) for one in asked]
    first = make(home, asked, votes)
    again = make(home, asked, votes)
    assert again.reused
    assert again == first
    assert not make(home, asked, votes[:4]).reused
