"""Text columns: the test on embeddings, and where the embeddings come from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home
from mlops_assets.monitoring.drift import text_embeddings
from mlops_assets.monitoring.drift.embedding import embedding_finding, separate
from mlops_assets.monitoring.drift.findings import DATA
from mlops_assets.monitoring.drift.text_embeddings import TextEmbeddings, find_encoder
from mlops_assets_tests.small_encoder import make_encoder

DIMENSIONS = 24


def topics(seed: int, count: int, new: float = 0.0) -> Any:
    """Unit vectors around six topics, of which a share lies around a seventh."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(7, DIMENSIONS))
    topic = np.where(rng.random(count) < new, 6, rng.integers(0, 6, count))
    vectors = centres[topic] + 0.7 * rng.normal(size=(count, DIMENSIONS))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(("current", "windows"), [(100, 100), (400, 40)])
def test_p_values_are_uniform_where_nothing_changed(current: int, windows: int) -> None:
    found = [
        embedding_finding("request", topics(seed, 400), topics(seed + 10_000, current), seed).p
        for seed in range(windows)
    ]
    for level in (0.05, 0.2, 0.5):
        share = sum(p <= level for p in found) / windows
        # Three standard errors, on both sides: a test that never speaks would fail too.
        assert abs(share - level) < 3 * np.sqrt(level * (1 - level) / windows), level


@pytest.mark.parametrize(("new", "effect"), [(0.3, 0.3), (0.6, 0.6), (1.0, 1.0)])
def test_the_effect_reads_as_the_share_of_texts_that_differ(new: float, effect: float) -> None:
    finding = embedding_finding("request", topics(1, 400), topics(2, 400, new), seed=3)
    assert finding.effect == pytest.approx(effect, abs=0.09)
    assert finding.p == pytest.approx(1e-4)
    assert (finding.layer, finding.kind, finding.reference_n) == (DATA, "embedding", 400)


def test_the_same_texts_and_seed_give_the_same_finding() -> None:
    sides = topics(1, 200), topics(2, 120, 0.1)
    assert embedding_finding("a", *sides, seed=5) == embedding_finding("a", *sides, seed=5)


def test_new_texts_lie_farthest_along_the_direction() -> None:
    found = separate(topics(1, 300), np.concatenate([topics(2, 200), topics(3, 40, 1.0)]), 0)
    assert (np.argsort(found.current)[-40:] >= 200).mean() > 0.9


@pytest.mark.parametrize(
    ("reference", "current"),
    [
        (np.zeros((0, 4), np.float32), np.ones((9, 4), np.float32)),
        (np.ones((9, 4), np.float32), np.zeros(0, np.float32)),
        (np.ones((9, 4), np.float32), np.full((9, 4), np.nan, np.float32)),
    ],
)
def test_what_cannot_be_computed_is_missing(reference: Any, current: Any) -> None:
    assert embedding_finding("request", reference, current, 0).missing


@pytest.mark.parametrize(("before", "now"), [(60, 30), (400, 101), (137, 100)])
def test_texts_that_are_all_the_same_do_not_differ(before: int, now: int) -> None:
    text = np.random.default_rng(0).normal(size=(1, 384)).astype(np.float32)
    same = np.repeat(text / np.linalg.norm(text), before, axis=0)
    finding = embedding_finding("request", same, same[:now], 0)
    assert finding.effect < 0.1
    assert finding.p == 1


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return make_encoder(tmp_path / "encoder", ["printer", "parcel", "on", "fire", "email"])


def test_texts_are_encoded_once(home: Home, encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["printer on fire", "parcel", "printer on fire", "parcel on fire"]
    first = TextEmbeddings(home.store, encoder).of(texts)
    assert first.shape == (4, 16)
    assert np.allclose(np.linalg.norm(first, axis=1), 1, atol=1e-3)
    assert (first[0] == first[2]).all()
    assert not (first[0] == first[1]).all()
    monkeypatch.setattr(text_embeddings, "SentenceEncoder", None)  # nothing is encoded again
    assert (TextEmbeddings(home.store, encoder).of(texts) == first).all()


def test_another_encoder_makes_other_embeddings(home: Home, encoder: Path, tmp_path: Path) -> None:
    other = make_encoder(tmp_path / "other", ["printer", "parcel"])
    first, second = (TextEmbeddings(home.store, each).of(["parcel"]) for each in (encoder, other))
    assert not (first == second).all()


def test_an_address_and_its_placeholder_are_the_same_text(home: Home, encoder: Path) -> None:
    vectors = TextEmbeddings(home.store, encoder).of(
        ["write to jo@example.com", "write to [email]"]
    )
    assert (vectors[0] == vectors[1]).all()


def test_the_encoder_that_is_named_must_be_one(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LineageError, match="nowhere is no directory"):
        find_encoder(str(tmp_path / "nowhere"))
    with pytest.raises(LineageError, match=r"encoder .* holds no encoder"):
        TextEmbeddings(home.store, tmp_path).of(["a"])
    monkeypatch.setattr("mlops_assets.sentence_encoder.PACKAGE", "no_such_package")
    assert find_encoder("") is None
