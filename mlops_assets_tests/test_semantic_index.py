"""What questions that mean the same may share, with real Qdrant and planted vectors."""

import math
from collections.abc import Sequence

import pytest

from mlops_assets.serving.caching.semantic_index import SemanticIndex

SCOPE, OTHER = "a" * 64, "b" * 64
ANGLES = {"router": 0, "my router": 10, "a router": 25, "invoice": 90, "pay 5": 180, "pay 6": 180}


class PlantedEncoder:
    """Vectors of two numbers by an angle in degrees, which the text's words choose."""

    def __init__(self) -> None:
        self.encoded = 0

    def encode(self, texts: Sequence[str]) -> list[list[float]]:
        self.encoded += len(texts)
        turns = [math.radians(ANGLES.get(text, 3 * len(text))) for text in texts]
        return [[math.cos(turn), math.sin(turn)] for turn in turns]

    def knows(self, text: str) -> bool:
        return "?" not in text


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def make(
    threshold: float = 0.95, entries: int = 10, scopes: int = 3
) -> tuple[SemanticIndex, Clock]:
    clock = Clock()
    return SemanticIndex(PlantedEncoder(), threshold, entries, scopes, 60.0, clock), clock


@pytest.mark.parametrize(
    ("asked", "answer"),
    [("router", "red"), ("my router", "red"), ("a router", None), ("invoice", None)],
)
def test_the_threshold_decides(asked: str, answer: str | None) -> None:
    index, _ = make()
    index.put(SCOPE, "router", "red")
    found = index.find(SCOPE, asked)
    assert (found and found[0]) == answer
    if found:
        assert found[1] == pytest.approx(math.cos(math.radians(ANGLES[asked])))


def test_no_scope_reaches_into_another() -> None:
    index, _ = make()
    index.put(SCOPE, "router", "red")
    assert index.find(OTHER, "router") is None
    index.put(OTHER, "router", "blue")
    assert index.find(SCOPE, "router") == ("red", pytest.approx(1.0))
    assert index.find(OTHER, "router") == ("blue", pytest.approx(1.0))


def test_questions_with_other_numbers_share_nothing() -> None:
    index, _ = make()
    index.put(SCOPE, "pay 5", "five")
    assert index.find(SCOPE, "pay 6") is None
    index.put(SCOPE, "pay 6", "six")
    assert index.find(SCOPE, "pay 5") == ("five", pytest.approx(1.0))
    assert index.find(SCOPE, "pay 6") == ("six", pytest.approx(1.0))


def test_what_the_encoder_does_not_know_is_left_alone() -> None:
    index, _ = make()
    index.put(SCOPE, "router", "red")
    index.put(SCOPE, "router?", "wrong")
    assert index.find(SCOPE, "router?") is None
    assert index.find(SCOPE, "router") == ("red", pytest.approx(1.0))


def test_old_answers_are_not_given_and_do_not_hide_new_ones() -> None:
    index, clock = make(entries=100)
    for number in range(20):  # all alike
        index.put(SCOPE, "router" if number % 2 else "my router", f"old {number}")
    clock.now = 61.0
    assert index.find(SCOPE, "router") is None
    index.put(SCOPE, "my router", "new")
    assert index.find(SCOPE, "router") == ("new", pytest.approx(math.cos(math.radians(10))))


def test_a_new_answer_takes_the_place_of_the_same_questions_old_one() -> None:
    index, _ = make()
    index.put(SCOPE, "router", "old")
    index.put(SCOPE, "router", "new")
    assert index.find(SCOPE, "router") == ("new", pytest.approx(1.0))


def test_a_full_scope_forgets_the_oldest_question() -> None:
    index, _ = make(threshold=0.9999, entries=3)
    texts = ["x" * length for length in range(1, 8)]
    for text in texts:
        index.put(SCOPE, text, text)
    assert [index.find(SCOPE, text) is not None for text in texts] == [False] * 4 + [True] * 3
    index.put(SCOPE, texts[-1], "again")
    assert index.find(SCOPE, texts[-3]) is not None


def test_the_scope_that_was_not_used_for_longest_gives_way() -> None:
    index, _ = make(scopes=2)
    index.put("a", "router", 1)
    index.put("b", "router", 2)
    index.find("a", "router")
    index.put("c", "router", 3)
    assert [index.find(scope, "router") is not None for scope in "abc"] == [True, False, True]


def test_a_flush_forgets_everything() -> None:
    index, _ = make()
    index.put(SCOPE, "router", "red")
    index.flush()
    assert index.find(SCOPE, "router") is None
    index.put(SCOPE, "router", "blue")
    assert index.find(SCOPE, "router") == ("blue", pytest.approx(1.0))


def test_what_was_looked_for_is_not_encoded_again_to_be_kept() -> None:
    encoder = PlantedEncoder()
    index = SemanticIndex(encoder, 0.9, 10, 10, 60.0)
    index.put(SCOPE, "invoice", "paid")
    index.find(SCOPE, "router")
    index.put(SCOPE, "router", "red")
    assert encoder.encoded == 2
