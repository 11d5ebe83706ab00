"""The benchmarks that need other machines run here too, on a model of a few thousand weights."""

from pathlib import Path

import numpy as np
import pytest

from mlops_assets.monitoring.drift.findings import decide
from mlops_assets_tests import (
    bench_cache,
    bench_embeddings,
    bench_gate,
    bench_gpu,
    bench_quality,
)
from mlops_assets_tests.drift_windows import Meanings
from mlops_assets_tests.quality_windows import Crowd, Worse

SHAPE = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 300}
SHAPE |= {"num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("contender", "base"), [("ours", "none"), ("ours", "nf4"), ("trl", "none")]
)
def test_the_gpu_benchmark_measures_each_contender(
    tmp_path: Path, contender: str, base: str
) -> None:
    bench_gpu.make_model(tmp_path, SHAPE)
    figures = bench_gpu.measure(contender, base, tmp_path, 10)
    assert figures["tokens_per_second"] > 0
    assert 0 < figures["mfu"] < 1
    assert figures["planned"] > 100_000


def test_a_machine_without_a_gpu_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    bench_gpu.gpu()
    assert "Skipped: no GPU" in capsys.readouterr().out


def test_the_gates_benchmark_simulates_the_real_gate() -> None:
    dice = np.random.default_rng(0)
    same, better = (bench_gate.simulate(dice, 500, gain, 40) for gain in (0.0, 0.08))
    assert (same.gates, better.gates) == (40, 40)
    assert same.promoted <= 6 < same.larger < 34
    assert better.promoted > 30


def test_the_caches_benchmark_counts_as_the_index_does() -> None:
    dice = np.random.default_rng(0)
    topics = dice.normal(size=(6, 8))
    texts = ["x" * index for index in range(120)]  # without numbers, which the index compares
    questions = [
        bench_cache.Question(text, str(index % 6), _unit(topics[index % 6], dice), index % 9 > 0)
        for index, text in enumerate(texts)
    ]
    vectors = np.stack([question.vector for question in questions])
    for threshold in (0.7, 0.9):
        counted = bench_cache.ask(questions, vectors @ vectors.T, threshold)
        assert bench_cache.with_the_index(questions, threshold) == counted
        assert 0 < counted.false < counted.hits < 120


def test_the_embeddings_benchmark_deals_texts_out_to_both_sides() -> None:
    dice = np.random.default_rng(0)
    pool = Meanings(dice.normal(size=(900, 4)), dice.normal(5, size=(400, 4)))
    reference, current = pool.sides(100, 0.5, 400, dice)
    assert (len(reference), len(current)) == (400, 100)
    assert len(np.unique(np.concatenate([reference, current]), axis=0)) == 500
    assert (current.mean(axis=1) > 2.5).sum() == 50
    far, p = bench_embeddings.split_in_halves(reference, current, dice)
    assert (far > 0.3, p < 0.001) == (True, True)
    near, chance = bench_embeddings.split_in_halves(*pool.sides(100, 0.0, 400, dice), dice)
    assert (near < far, chance > 0.01) == (True, True)


@pytest.mark.parametrize(("worse", "found"), [(Worse(), ()), (Worse(failing=0.2), ("failed",))])
def test_the_quality_benchmark_judges_with_the_real_metrics(
    worse: Worse, found: tuple[str, ...]
) -> None:
    findings = bench_quality.draw_findings(Crowd(50, stay=0.5), 300, 1, bench_quality.SPEC, worse)
    assert all(finding.counts for finding in findings)
    assert decide(findings, bench_quality.ALPHA).drifted == found


def _unit(topic: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    vector = topic + 0.9 * dice.normal(size=topic.shape)
    return (vector / np.linalg.norm(vector)).astype(np.float32)
