"""Requests and free answers in the drift report: compared by meaning, shown to nobody as such."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home
from mlops_assets.monitoring.drift import verdict
from mlops_assets.monitoring.drift.findings import DRIFT, NO_DRIFT, NO_VERDICT
from mlops_assets.monitoring.drift.sketches import rank_of
from mlops_assets.monitoring.drift.spec import DriftSpec
from mlops_assets.monitoring.drift.text_columns import NO_ENCODER
from mlops_assets.refs import Row
from mlops_assets.request_record import RequestRecord
from mlops_assets_tests.production_records import make_log, reference_of
from mlops_assets_tests.small_encoder import make_encoder

WORDS = ["where", "is", "my", "parcel", "printer", "paper", "jam", "refund", "please", "thanks"]
OLD = ("where is my parcel", "refund please", "my parcel is where", "thanks refund parcel")
NEW = ("paper jam printer", "printer jam please", "my printer is paper jam")
USERS = [f"{number:02}" * 32 for number in range(60)]
SECRETS = ("jo.doe@example.com", "4111 1111 1111 1111", "DE89 3704 0044 0532 0130 00")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("encoder"), WORDS)


def texts(kinds: Sequence[str], count: int) -> list[str]:
    """Texts of equal length whatever the kind, so that meaning alone differs."""
    return [f"{kinds[number % len(kinds)]:<30}." for number in range(count)]


def report_on(
    home: Home,
    asked: Sequence[str],
    answered: Sequence[str],
    known_answers: Sequence[str] = OLD,
    **spec: Any,
) -> tuple[dict[str, Any], Path]:
    """The report on these exchanges, against 240 old ones with free answers."""
    rows = [
        Row(
            f"r{number}",
            "",
            f"g{number}",
            ({"role": "user", "content": text}, {"role": "assistant", "content": answer}),
            {},
        )
        for number, (text, answer) in enumerate(
            zip(texts(OLD, 240), texts(known_answers, 240), strict=True)
        )
    ]
    records = [
        RequestRecord(
            f"p{n}",
            "2026-07-01",
            "simulated",
            ({"role": "user", "content": a},),
            b,
            user=USERS[n % len(USERS)],
            status=200,
        )
        for n, (a, b) in enumerate(zip(asked, answered, strict=True))
    ]
    log = make_log(home.store, home.root, records)
    settings = DriftSpec(**{"embedding_rows": 200, **spec})
    ref = verdict.report_drift(home.store, reference_of(home.store, rows, {}), log, settings)
    directory = home.store.path(ref.artifact)
    return json.loads((directory / verdict.REPORT).read_bytes()), directory


@pytest.mark.parametrize(
    ("asked", "answered", "expected"),
    [
        (OLD, OLD, (NO_DRIFT, set())),
        (NEW, OLD, (DRIFT, {"request_embedding"})),
        (OLD, NEW, (DRIFT, {"answer_embedding"})),
    ],
)
def test_a_change_of_meaning_is_found_and_named(
    home: Home,
    encoder: Path,
    asked: Sequence[str],
    answered: Sequence[str],
    expected: tuple[str, set[str]],
) -> None:
    report, _ = report_on(home, texts(asked, 220), texts(answered, 220), encoder=str(encoder))
    found = {name for name in report["drifted"] if name.endswith("_embedding")}
    assert (report["verdict"], found) == expected
    assert set(report["changes"]["texts"]) == found


def test_without_an_encoder_the_columns_are_left_out_and_the_report_says_so(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlops_assets.sentence_encoder.PACKAGE", "no_such_package")
    report, directory = report_on(home, texts(OLD, 220), texts(OLD, 220))
    assert report["verdict"] == NO_DRIFT
    for name in ("request_embedding", "answer_embedding"):
        assert report["columns"][name]["left_out"] == NO_ENCODER
        assert report["columns"][name]["effect"] is None
    shown = NO_ENCODER.replace("`encoder`", "<code>encoder</code>")
    assert f"Left out: {shown}" in (directory / verdict.PAGE).read_text()


def test_too_few_records_are_not_encoded(home: Home, encoder: Path) -> None:
    report, _ = report_on(home, texts(NEW, 99), texts(NEW, 99), encoder=str(encoder))
    assert report["verdict"] == NO_VERDICT
    assert report["reason"] == "99 records, 100 are needed"
    assert not (home.store.root / "text_embeddings").exists()


def test_requests_without_a_word_have_no_meaning(home: Home, encoder: Path) -> None:
    asked = [*texts(OLD, 60), *["  "] * 160]
    report, _ = report_on(home, asked, texts(OLD, 220), encoder=str(encoder))
    assert report["columns"]["request_embedding"]["left_out"] == "60 texts, 100 are needed"


def test_nothing_personal_stands_in_what_people_see(home: Home, encoder: Path) -> None:
    asked = [f"{text} {SECRETS[number % 3]}" for number, text in enumerate(texts(NEW, 220))]
    report, directory = report_on(home, asked, asked, encoder=str(encoder))
    assert report["changes"]["texts"]["request_embedding"]["production"]
    assert report["users"] == {"named": len(USERS), "unnamed_requests": 0}
    for name in (verdict.REPORT, verdict.PAGE, verdict.DISTRIBUTIONS):
        content = (directory / name).read_text()
        personal = [*SECRETS, *USERS, *(str(int.from_bytes(rank_of(each, 7))) for each in USERS)]
        assert [each for each in personal if each in content] == []


def test_a_report_says_the_same_wherever_its_encoder_lies(
    home: Home, encoder: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.symlink_to(encoder)
    exchanges = texts(OLD, 220), texts(OLD, 220)
    _, first = report_on(home, *exchanges, encoder=str(encoder))
    _, second = report_on(home, *exchanges, encoder=str(elsewhere))
    assert first == second
    assert str(encoder) not in (first / verdict.REPORT).read_text()


def test_an_encoder_that_is_none_fails_clearly(home: Home, tmp_path: Path) -> None:
    with pytest.raises(LineageError, match="is no directory"):
        report_on(home, texts(OLD, 220), texts(OLD, 220), encoder=str(tmp_path / "nowhere"))
    assert not list((home.store.root / "drift_report").glob("*"))
