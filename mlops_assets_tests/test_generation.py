"""Answers do not depend on what they are batched with, on any kind of cache.

The models are small Llamas and Mistrals with random weights: they ramble, and end where one of
many end tokens happens to come.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlops_assets.artifacts import ArtifactStore, LineageError, Recipe
from mlops_assets.evaluation import decoding, vllm_engine
from mlops_assets.evaluation.decoding import TIE, Decoded, decode
from mlops_assets.evaluation.generation import Subject, predict, read_predictions
from mlops_assets.evaluation.spec import EvaluationSpec
from mlops_assets.model_loading import LoadedModel, load_model
from mlops_assets.refs import write_jsonl
from mlops_assets_tests.small_evaluation import make_rows, make_tokenizer

VOCABULARY, BUDGET = 400, 12
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _save(tmp_path_factory.mktemp("llama"), "Llama")


@pytest.fixture
def loaded(folder: Path) -> LoadedModel:
    return _rambling(load_model(folder, None))


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    """Seventy prompts of 3 to 30 tokens."""
    import torch

    seeded = torch.Generator().manual_seed(5)
    lengths = torch.randint(3, 31, (70,), generator=seeded).tolist()
    return [torch.randint(9, VOCABULARY, (n,), generator=seeded).tolist() for n in lengths]


@pytest.fixture(scope="module")
def begun(prompts: list[list[int]]) -> list[list[int]]:
    """The same after a beginning of ten tokens."""
    return [[*range(20, 30), *ids] for ids in prompts]


@pytest.mark.parametrize("kind", ["prompts", "begun"])
def test_no_answer_depends_on_the_batch_size(
    loaded: LoadedModel, kind: str, request: pytest.FixtureRequest
) -> None:
    asked = request.getfixturevalue(kind)
    found = {size: _decode(loaded, asked, size) for size in (1, 3, 64)}
    assert found[1].tokens == found[3].tokens == found[64].tokens
    assert {answer.shared for answer in found.values()} == {0 if kind == "prompts" else 10}
    assert len({len(ids) for ids in found[1].tokens}) > 5  # they end here and there
    assert found[1].tokens[:20] == [_greedily(loaded, ids) for ids in asked[:20]]


def test_batches_side_by_side_answer_the_same(loaded: LoadedModel, begun: list[list[int]]) -> None:
    together = decode(loaded, begun, BUDGET, 7, _silently, workers=3)
    assert together == _decode(loaded, begun, 7)


def test_the_order_of_the_prompts_does_not_matter(
    loaded: LoadedModel, prompts: list[list[int]]
) -> None:
    assert _decode(loaded, prompts[::-1], 16).tokens == _decode(loaded, prompts, 16).tokens[::-1]


def test_nearly_equal_tokens_are_decided_alone(
    loaded: LoadedModel, prompts: list[list[int]]
) -> None:
    """Every token has a twin whose logit differs by less than batching may move it."""
    import torch

    head = loaded.model.lm_head.weight
    with torch.no_grad():
        head[1::2] = head[::2] * (1 + 1e-7)
    found = [_decode(loaded, prompts, size) for size in (1, 3, 64)]
    assert found[0].tokens == found[1].tokens == found[2].tokens
    assert {answer.alone for answer in found} == {len(prompts)}
    assert found[0].tokens == [_decode(loaded, [ids], 1).tokens[0] for ids in prompts]


def test_batching_moves_logits_by_far_less_than_what_counts_as_a_tie(
    loaded: LoadedModel, prompts: list[list[int]]
) -> None:
    import torch

    width = max(map(len, prompts))
    mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts])
    padded = torch.tensor([[0] * (width - len(ids)) + ids for ids in prompts])
    with torch.inference_mode():
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        together = loaded.model(input_ids=padded, attention_mask=mask, position_ids=positions)
        alone = [loaded.model(input_ids=torch.tensor([ids])).logits[0, -1] for ids in prompts]
    moved = (together.logits[:, -1] - torch.stack(alone)).abs().max()
    assert moved < TIE / 20


def test_a_row_that_ended_leaves_its_batch(
    loaded: LoadedModel, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    forward = loaded.model.forward

    def counted(**named: Any) -> Any:
        sizes.append(len(named["input_ids"]))
        return forward(**named)

    monkeypatch.setattr(loaded.model, "forward", counted)
    found = _decode(loaded, prompts, 100)
    going = [sum(len(ids) > step for ids in found.tokens) for step in range(BUDGET)]
    assert found.alone == 0
    assert sizes == [size for size in going if size]


def test_logits_that_are_not_finite_are_no_answer(
    loaded: LoadedModel, prompts: list[list[int]]
) -> None:
    import torch

    with torch.no_grad():
        loaded.model.lm_head.weight[7] = float("nan")
    with pytest.raises(LineageError, match="not finite"):
        _decode(loaded, prompts, 8)


@pytest.mark.parametrize(
    ("kind", "changes", "shared"),
    [
        ("Mistral", {"sliding_window": 8}, 0),
        ("Mistral", {"sliding_window": None}, 10),
        ("Lfm2", {"layer_types": ["conv", "full_attention"]}, 0),
    ],
)
def test_other_caches_answer_the_same(
    tmp_path: Path, begun: list[list[int]], kind: str, changes: dict[str, Any], shared: int
) -> None:
    """Sliding windows share no beginning; layers with a state are answered row by row."""
    other = _rambling(load_model(_save(tmp_path, kind, **changes), None))
    found = {size: _decode(other, begun[:12], size) for size in (1, 5)}
    assert found[1].tokens == found[5].tokens == [_greedily(other, ids) for ids in begun[:12]]
    assert found[5].shared == shared


def test_the_batch_size_is_recorded_and_changes_no_byte(folder: Path, tmp_path: Path) -> None:
    store, rows = ArtifactStore(tmp_path / "store"), make_rows(9, 3, "row")
    write_jsonl(tmp_path / "test.jsonl", rows)

    def copy(directory: Path) -> dict[str, Any]:
        for path in folder.iterdir():
            (directory / path.name).write_bytes(path.read_bytes())
        return {}

    base = store.build(Recipe("base_model", {}, {}, "1"), copy)

    def answers(batch_size: int, system: str = "") -> Any:
        spec = EvaluationSpec(batch_size=batch_size, latency_requests=1)
        subject = Subject("base", base, None, BUDGET, system)
        return predict(store, subject, tmp_path / "test.jsonl", rows, spec)

    found = {size: answers(size) for size in (1, 3, 64)}
    assert len({artifact.digest for artifact in found.values()}) == 1
    for size, artifact in found.items():
        assert artifact.summary["batch_size"] == size
        assert artifact.summary["engine"] == "batches"
    asked = answers(64, "Sort the customer's message by what it is about.")
    lengths = [
        [item.prompt_tokens for item in read_predictions(store, artifact)]
        for artifact in (found[64], asked)
    ]
    more = {longer - shorter for shorter, longer in zip(*lengths, strict=True)}
    assert len(more) == 1
    assert min(more) > 8
    assert asked.summary["shared_prefix_tokens"] > 8


@pytest.mark.parametrize(
    ("wanted", "installed", "cuda", "prefix", "engine"),
    [
        ("auto", True, True, False, "vllm"),
        ("auto", True, True, True, "batches"),
        ("auto", True, False, False, "batches"),
        ("auto", False, True, False, "batches"),
        ("batches", True, True, False, "batches"),
        ("vllm", True, True, False, "vllm"),
        ("vllm", True, True, True, "does not load prefix adapters"),
        ("vllm", True, False, False, "no CUDA device"),
        ("vllm", False, True, False, "not installed"),
    ],
)
def test_the_engine_is_what_the_machine_has(
    monkeypatch: pytest.MonkeyPatch,
    wanted: str,
    installed: bool,
    cuda: bool,
    prefix: bool,
    engine: str,
) -> None:
    import torch

    monkeypatch.setattr(vllm_engine, "find_spec", lambda _: object() if installed else None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    if engine in ("vllm", "batches"):
        assert vllm_engine.choose_engine(wanted, prefix=prefix) == engine
    else:
        with pytest.raises(LineageError, match=engine):
            vllm_engine.choose_engine(wanted, prefix=prefix)


class FakeLLM:
    """Takes what vLLM's ``LLM`` takes, as its documentation has it, and answers on the CPU."""

    def __init__(self, model: str, **settings: Any) -> None:
        assert settings.pop("enable_prefix_caching") is True
        assert settings.pop("trust_remote_code") is False
        assert settings == {"max_model_len": 128, "seed": 0}
        self.loaded = _rambling(load_model(Path(model), None))

    def generate(self, requests: Any, sampling: Any, use_tqdm: bool) -> list[Any]:
        assert sampling.temperature == 0
        assert sampling.stop_token_ids == list(self.loaded.end_tokens)
        prompts = [request["prompt_token_ids"] for request in requests]
        tokens = decode(self.loaded, prompts, sampling.max_tokens, 64, _silently).tokens
        return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=ids)]) for ids in tokens]


def test_vllm_gets_the_merged_weights_and_our_tokens(
    loaded: LoadedModel, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = SimpleNamespace(LLM=FakeLLM, SamplingParams=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "vllm", fake)
    with vllm_engine.vllm_engine(loaded, BUDGET) as answer:
        assert answer(prompts) == _decode(loaded, prompts, 64).tokens


def _save(folder: Path, kind: str, **changes: Any) -> Path:
    """A model of this kind with random weights, and a tokenizer."""
    import torch
    import transformers

    config = getattr(transformers, f"{kind}Config")(**SHAPE | changes)
    torch.manual_seed(3)
    getattr(transformers, f"{kind}ForCausalLM")(config).save_pretrained(folder)
    texts = [str(row.messages[0]["content"]) for row in make_rows(40, 1, "row")]
    make_tokenizer(texts).save_pretrained(folder)
    return folder


def _rambling(loaded: LoadedModel) -> LoadedModel:
    return replace(loaded, end_tokens=tuple(range(0, VOCABULARY, 9)))


def _decode(loaded: LoadedModel, prompts: Sequence[list[int]], batch_size: int) -> Decoded:
    return decoding.decode(loaded, prompts, BUDGET, batch_size, _silently)


def _greedily(loaded: LoadedModel, prompt: list[int]) -> list[int]:
    """The likeliest token again and again, with neither cache nor batch."""
    import torch

    ids = list(prompt)
    while len(ids) < len(prompt) + BUDGET:
        with torch.inference_mode():
            logits = loaded.model(input_ids=torch.tensor([ids]), use_cache=False).logits
        ids.append(int(logits[0, -1].argmax()))
        if ids[-1] in loaded.end_tokens:
            break
    return ids[len(prompt) :]


def _silently(*_: object) -> None:
    """No progress."""
