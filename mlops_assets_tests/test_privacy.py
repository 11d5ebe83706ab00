"""What is found as personal data, what is not, and what the policy then does."""

import json
import re
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets import identifiers, privacy, recognizers
from mlops_assets.artifacts import LineageError
from mlops_assets.dataset.dice import Dice
from mlops_assets.dataset.expectations import ValidationSpec
from mlops_assets.dataset.faults import card, email
from mlops_assets.identifiers import passes_luhn
from mlops_assets.privacy import DEFAULT_POLICY, ENTITIES, Detector
from mlops_assets.profiles import check_settings
from mlops_assets_tests.bench_privacy import quality
from mlops_assets_tests.planted import LOOKALIKES, MAKERS, SENTENCES, samples

EVERYTHING = Detector(DEFAULT_POLICY)
LOWEST_RECALL = {"national_id": 0.75, "phone": 0.85}  # bare digits that no word explains


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_planted_values_are_found_offline_and_lookalikes_are_not(no_network: None) -> None:
    privacy._recognizers.cache_clear()
    found = quality(samples(20, 40), EVERYTHING.find)
    assert set(found) == set(DEFAULT_POLICY)
    for entity, (recall, precision) in found.items():
        assert recall >= LOWEST_RECALL.get(entity, 1.0), entity
        assert precision >= (0.9 if entity == "card" else 1.0), entity


@given(st.integers(0, 2**32))
def test_generated_personal_data_is_found(seed: int) -> None:
    dice = Dice(seed)
    number, address = card(dice), email(dice)
    text, found = privacy.redact(f"card {number}, mail {address}, order 12345")
    assert text == "card [card], mail [email], order 12345"
    assert found == {"card": 1, "email": 1}
    # Other numbers right beside it may go too, but no part of the card's may stay.
    text, _ = privacy.redact(f"order 12345 {number} 0199")
    assert "[card]" in text
    assert not set(re.findall(r"\d+", text)) & (set(re.findall(r"\d+", number)) - {"12345", "0199"})


@pytest.mark.parametrize("text", ["order 4539148803436468", "a @ b", "2026-01-01 12:00:00", "E12"])
def test_harmless_text_is_left_alone(text: str) -> None:
    assert privacy.redact(text) == (text, Counter())


def test_every_entity_is_planted() -> None:
    assert set(MAKERS) == set(SENTENCES) == set(DEFAULT_POLICY)
    assert set(ENTITIES) - set(DEFAULT_POLICY) == set(privacy.NAMED_BY_MODEL)
    assert len({sample.entity for sample in samples(1, 1)}) == len(MAKERS) + len(LOOKALIKES)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Refund DE89 3704 0044 0532 0130 00 in 2 days", "Refund [iban] in 2 days"),
        ("AB12 CDEF GHIJ DE89 3704 0044 0532 0130 00 x", "AB12 CDEF GHIJ [iban] x"),
        ("gb82 west 1234 5698 7654 32, please", "[iban], please"),
        ("DE88 3704 0044 0532 0130 00", "DE88 3704 0044 0532 0130 00"),
        ("cards 4539148803436467 5275-0000-0000-0004", "cards [card] 5275-0000-0000-0004"),
        ("phone 4155552671", "phone [phone]"),
        ("order 4155552671", "order 4155552671"),
        ("call about order 4155552671", "call about order 4155552671"),
        ("firmware 1.2.3.4 at 192.168.1.20", "firmware 1.2.3.4 at [ip]"),
        ("I run it on 127.0.0.1 and ::1", "I run it on 127.0.0.1 and ::1"),
        ("nhs 943 476 5919, not 9434765918", "nhs [national_id], not 9434765918"),
        ("postgres://bob:s3cr@t@db.example.com/x", "postgres://[credentials]@db.example.com/x"),
        ("https://x.io/a?token=abcdef123456&z=1", "https://x.io/a?[credentials]&z=1"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIabc", "[secret]"),
        ("ann%40example.com, o'brien@example.com", "[email], [email]"),
        ("npm i left-pad@1.3.0", "npm i left-pad@1.3.0"),
    ],
)
def test_values_and_what_stands_beside_them(text: str, clean: str) -> None:
    assert EVERYTHING.scan(text)[0] == clean


@pytest.mark.parametrize(
    ("action", "text", "blocks"),
    [
        ("redact", "write to [email]", False),
        ("flag", "write to ann@example.com", False),
        ("block", "write to [email]", True),
    ],
)
def test_policy(action: str, text: str, blocks: bool) -> None:
    detector = Detector({"email": action})
    clean, found = detector.scan("write to ann@example.com")
    assert (clean, found, detector.blocks(found)) == (text, {"email": 1}, blocks)
    # What is not named is not looked for.
    assert detector.scan("card 4539148803436467") == ("card 4539148803436467", Counter())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"passport": "redact"}, "'passport' is no entity; known are secret, credentials, email"),
        ({"email": "hide"}, "'hide' for email is none of redact, flag, block"),
    ],
)
def test_a_policy_that_nobody_understands_is_refused(settings: dict[str, str], says: str) -> None:
    config = {"ops": {"validated_dataset": {"config": {"privacy": settings}}}}
    with pytest.raises(LineageError, match=says):
        check_settings(config, {"validated_dataset": ValidationSpec})


def test_json_stays_json() -> None:
    call = {"name": "pay", "arguments": '{"card": 4539148803436467, "to": "ann\\u0040example.com"}'}
    found: Counter[str] = Counter()
    clean = EVERYTHING.scan_json([{"tool_calls": [{"function": call}], "times": 2}], found)
    arguments = json.loads(clean[0]["tool_calls"][0]["function"]["arguments"])
    assert arguments == {"card": "[card]", "to": "[email]"}
    assert clean[0]["times"] == 2
    assert found == {"card": 1, "email": 1}
    same = '{"b":  1, "a": "nothing here"}'
    assert EVERYTHING.scan_json(same, Counter()) == same
    # Half a character can be written in no file: it stays the escape that it was.
    half = EVERYTHING.scan_json(r'["\ud800 ann@example.com"]', Counter())
    assert half == r'["\ud800 [email]"]'
    # The first of two equal keys is lost to a JSON reader, but not to us.
    assert "ann@" not in EVERYTHING.scan_json('{"a": "ann@example.com", "a": 1}', Counter())


def test_excerpts_read_escapes_and_obey_no_policy() -> None:
    shown = privacy.excerpt(r'{"a": "ann\u0040example.com", "u": "https:\/\/bob:pass1@h\/x"')
    assert shown == '{"a": "[email]", "u": "https://[credentials]@h/x"'
    nested = privacy.excerpt(r'{"a": "{\"b\": \"ann\\u0040example.com https:\\/\\/bob:pass1@h\\/x')
    assert nested == r'{"a": "{\"b\": \"[email] https://[credentials]@h/x'
    for value in ("DE89370400440532013000", "sk-abc1234567890abcdefghij", "84.23.11.7"):
        for newline in (r"\n", r"\\n", r"\t", r"\u000a"):
            assert value not in privacy.excerpt(f'{{"a": "here{newline}{value} x"')
    assert privacy.excerpt("write to ann.lee@exam") == "write to [torn]"
    assert privacy.excerpt("my card is 4539 1488 03") == "my card is [torn]"
    assert len(privacy.excerpt("x" * 10_000)) == privacy.EXCERPT + 1
    assert privacy.pseudonym("T-1") == "T-1"
    assert privacy.pseudonym("+1 415-555-2671").startswith("anon-")


@given(st.text(alphabet='aB1@.:-/+ 4\0é%{"', max_size=80))
def test_what_is_clean_stays_clean(text: str) -> None:
    clean, _ = EVERYTHING.scan(text)
    assert EVERYTHING.scan(clean) == (clean, Counter())


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "1",
        "4 ",
        "a@",
        "a.",
        "1.",
        "a:",
        "://a:",
        "eyJ-",
        "-----BEGIN PRIVATE KEY-----",
        "+1 (",
        "219-09-9999 ",
        "AB123456C,",
    ],
)
def test_no_hostile_text_is_slow(unit: str) -> None:
    # With 30,000 characters anything worse than linear in bounded steps would take hours.
    EVERYTHING.scan(unit * (30_000 // len(unit)))
    EVERYTHING.scan(unit * (30_000 // len(unit)) + "@")


def test_more_numbers_than_a_person_writes_are_hidden_unseen() -> None:
    many = recognizers.MOST_JUDGED + 50
    clean, found = EVERYTHING.scan(", ".join(["call 12345678"] * many))
    # Of these digits no phone number can be made: only those past the bound go.
    assert (clean.count("12345678"), found) == (recognizers.MOST_JUDGED, Counter(phone=50))


def test_national_ids_in_a_long_text() -> None:
    for shift in range(0, 240, 7):
        text = f"{'word ' * 380}{'x' * shift} my ssn is 219099999 and so on {'word ' * 400}"
        clean, found = EVERYTHING.scan(text)
        assert found == {"national_id": 1}
        assert "my ssn is [national_id] and so on" in clean


@pytest.mark.parametrize(("regions", "says"), [(["UK"], "names 'UK'"), ([], "names 'no country'")])
def test_countries_without_phones_are_refused(regions: list[str], says: str) -> None:
    with pytest.raises(LineageError, match=says):
        privacy.Detector({"phone": "redact"}, phone_regions=regions)


def test_what_is_remembered_is_short() -> None:
    privacy.pseudonym("long" * 10_000)
    remembered = privacy._redact_short.cache_info().currsize
    privacy.pseudonym("longer" * 10_000)
    assert privacy._redact_short.cache_info().currsize == remembered


def test_screens_lose_nothing() -> None:
    signs = identifiers.SECRET_SIGNS
    assert all(any(part in sign for part in identifiers.SIGNS_OF_SIGNS) for sign in signs)
    found = privacy._FINDERS | privacy._recognizers(privacy.DEFAULT_REGIONS, "")
    for sample in samples(3, 20):
        for entity, find in found.items():
            if list(find(sample.text)):
                assert privacy._SCREENS[entity](sample.text), (entity, sample.text)


def test_luhn() -> None:
    assert passes_luhn("4539148803436467")
    assert not passes_luhn("4539148803436468")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A spaCy model on disk that knows one person and one place."""
    import spacy

    pipeline = spacy.blank("en")
    ruler: Any = pipeline.add_pipe("entity_ruler")
    ruler.add_patterns(
        [{"label": "PERSON", "pattern": "Ann Lee"}, {"label": "GPE", "pattern": "Lisbon"}]
    )
    path = tmp_path_factory.mktemp("spacy") / "en_two_names"
    pipeline.to_disk(path)
    return str(path)


def test_names_and_places_by_an_installed_model(model: str, no_network: None) -> None:
    detector = Detector({"person": "redact", "location": "flag"}, ner_model=model)
    clean, found = detector.scan("Ann Lee moved to Lisbon.")
    assert clean == "[person] moved to Lisbon."
    assert found == {"person": 1, "location": 1}
    assert detector.version != Detector({}).version
    before = detector.version
    (Path(model) / "meta.json").write_text("{}")
    assert detector.version != before


@pytest.mark.parametrize(
    ("policy", "name", "says"),
    [
        ({"person": "redact"}, "en_core_web_none", "en_core_web_none is not installed"),
        ({"person": "redact"}, "", "names person, and `ner_model` is empty"),
        ({"email": "redact"}, "en_x", "neither person nor location, and `ner_model` is en_x"),
    ],
)
def test_a_model_that_is_not_there(
    policy: dict[str, str], name: str, says: str, no_network: None
) -> None:
    with pytest.raises(LineageError, match=says):
        Detector(policy, ner_model=name)


def test_national_ids_are_presidios() -> None:
    from presidio_analyzer import predefined_recognizers

    assert all(hasattr(predefined_recognizers, name) for name in recognizers.NATIONAL_IDS)
