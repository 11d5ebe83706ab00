"""Every method trains every adapter on a tiny base, and what comes out can be loaded."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.artifacts import ArtifactStore, LineageError
from mlops_assets.evaluation.decoding import decode
from mlops_assets.model_loading import load_model
from mlops_assets.refs import BaseModelRef, Row, SplitsRef, read_rows
from mlops_assets.training.adapters import save_weights
from mlops_assets.training.base_model import provide
from mlops_assets.training.encoding import encode
from mlops_assets.training.finetune import finetune
from mlops_assets.training.quiet import quiet_libraries
from mlops_assets.training.spec import BaseModelSpec, FinetuneSpec
from mlops_assets.training.trainer import make_trainer
from mlops_assets_tests.small_training import no_tracker, put_splits

QUEUES = {"billing": "invoice charged twice", "shipping": "parcel box late", "login": "password"}
LABELS = {"queue": tuple(QUEUES)}
TINY = {"vocabulary": 400, "hidden_size": 64, "mlp_size": 64, "layers": 1, "heads": 1}
TINY |= {"pretrain_batch_tokens": 256}  # NF4 takes weights in blocks of 64
LOW_RANK = {"rank": 8, "alpha": 8.0}
ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": LOW_RANK,
    "qlora": {"adapter": "lora", "quantization": "nf4"} | LOW_RANK,
    "rslora": {"adapter": "rslora"} | LOW_RANK,
    "dora": {"adapter": "dora"} | LOW_RANK,
    "qdora": {"adapter": "dora", "quantization": "nf4"} | LOW_RANK,
    "prefix": {"adapter": "prefix", "learning_rate": 0.1},
    "qprefix": {"adapter": "prefix", "learning_rate": 0.1, "quantization": "nf4"},
    "full": {"adapter": "full"},
}


def _row(number: int) -> Row:
    queue, worse = list(QUEUES)[number % 3], list(QUEUES)[(number + 1) % 3]
    asked = {"role": "user", "content": f"Hello, {QUEUES[queue]} number {number % 17}"}
    good, bad = (
        {"role": "assistant", "content": f'{{"queue":"{name}"}}'} for name in (queue, worse)
    )
    return Row(f"r{number}", "", f"g{number}", (asked, good), {}, rejected=bad)


STEPS: dict[str, dict[str, Any]] = {
    "sft": {"epochs": 3},
    "dpo": {"epochs": 2},
    "orpo": {"epochs": 2},
    "kto": {"epochs": 1, "rows_per_step": 16},
}


def _spec(method: str, adapter: str) -> FinetuneSpec:
    packing = {"pack_tokens": 128} if method == "sft" and "prefix" not in adapter else {}
    settings = {"learning_rate": 1e-2} | packing | STEPS[method] | ADAPTERS[adapter]
    return FinetuneSpec(method=method, **settings)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    return ArtifactStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def splits(store: ArtifactStore) -> SplitsRef:
    return _splits(store, [_row(number) for number in range(60)])


def _splits(store: ArtifactStore, rows: list[Row]) -> SplitsRef:
    return put_splits(store, {"train": rows[:-12], "validation": rows[-12:]}, LABELS)


@pytest.fixture(scope="module")
def base(store: ArtifactStore, splits: SplitsRef) -> BaseModelRef:
    return provide(store, splits, BaseModelSpec(**TINY))


def _trainer(store: ArtifactStore, splits: SplitsRef, base: BaseModelRef, spec: Any) -> Any:
    from transformers import AutoTokenizer

    path = store.path(base.artifact)
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    rows = {
        name: list(read_rows(store.path(splits.artifact) / f"{name}.jsonl"))
        for name in ("train", "validation")
    }
    data = {name: encode(tokenizer, these, spec) for name, these in rows.items()}
    return make_trainer(path, tokenizer, data, spec, store.root / "scratch")


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("method", STEPS)
def test_training_lowers_the_validation_loss(
    store: ArtifactStore, splits: SplitsRef, base: BaseModelRef, method: str, adapter: str
) -> None:
    spec = _spec(method, adapter)
    with quiet_libraries():
        before = _trainer(store, splits, base, spec).evaluate()
    tuned = finetune(store, splits, base, spec, no_tracker, "dagster-run").artifact.summary
    assert tuned["validation_loss"] < before["eval_loss"]
    assert tuned["tokens"] > 0
    if method in ("dpo", "kto"):
        # On pairs that were not trained on, the better answers are now preferred by more.
        assert tuned["reward_margin"] > before["eval_rewards/margins"]


@pytest.mark.slow
def test_dpo_can_keep_the_better_answer_likely(
    store: ArtifactStore, splits: SplitsRef, base: BaseModelRef
) -> None:
    likelihood = []
    for weight in (0.0, 1.0):
        spec = _spec("dpo", "lora").model_copy(update={"likelihood_weight": weight})
        with quiet_libraries():
            trainer = _trainer(store, splits, base, spec)
            trainer.train()
            likelihood.append(trainer.evaluate()["eval_logps/chosen"])
    assert likelihood[1] > likelihood[0] + 1


def _logits(model: Any, ids: list[int]) -> Any:
    import torch

    one_row = torch.tensor([0, len(ids)], dtype=torch.int32)  # a model in training asks for it
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), cu_seq_lens_q=one_row).logits[0]


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_what_was_trained_is_loaded_and_answers(
    store: ArtifactStore, splits: SplitsRef, base: BaseModelRef, adapter: str, tmp_path: Path
) -> None:
    import torch
    from peft import PeftModel

    spec = _spec("sft", adapter)
    with quiet_libraries():
        trainer = _trainer(store, splits, base, spec)
        trainer.train()
        save_weights(trainer.model, spec, base.name, tmp_path)
    loaded = load_model(store.path(base.artifact), tmp_path)
    trained = trainer.model.eval()
    if spec.quantization == "nf4":  # trained over 4 bits, served over the weights before rounding
        untuned = load_model(store.path(base.artifact), None).model
        with quiet_libraries():
            trained = PeftModel.from_pretrained(untuned, tmp_path)
    rows = list(read_rows(store.path(splits.artifact) / "validation.jsonl"))
    examples = encode(loaded.tokenizer, rows, spec).examples
    for example in examples:
        expected, found = (_logits(model, example.input_ids) for model in (trained, loaded.model))
        assert torch.allclose(found, expected, atol=1e-4, rtol=0)
    # Prompts of several lengths in one batch, padded on the left, answer as each does alone.
    prompts = [example.prompt for example in examples]
    assert len({len(prompt) for prompt in prompts}) > 1
    together = decode(loaded, prompts, 6, 64, lambda *_: None)
    assert together.tokens == [_greedily(loaded, prompt, 6) for prompt in prompts]


def _greedily(loaded: Any, prompt: list[int], budget: int) -> list[int]:
    """The likeliest token again and again, with neither cache nor batch."""
    ids = list(prompt)
    for _ in range(budget):
        ids.append(int(_logits(loaded.model, ids)[-1].argmax()))
        if ids[-1] in loaded.end_tokens:
            break
    return ids[len(prompt) :]


@pytest.mark.parametrize(
    ("method", "without", "counted"),
    [("dpo", {3}, "1 of 60"), ("orpo", {3, 4}, "2 of 60"), ("kto", set(range(60)), "60 of 60")],
)
def test_preferences_want_rejected_answers(
    store: ArtifactStore, base: BaseModelRef, method: str, without: set[int], counted: str
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(store.path(base.artifact), local_files_only=True)
    rows = [replace(_row(n), rejected=None) if n in without else _row(n) for n in range(60)]
    with pytest.raises(LineageError, match=f"{counted} rows have no rejected answer") as refused:
        encode(tokenizer, rows, FinetuneSpec(method=method))
    assert "method to sft" in refused.value.remedy


def test_kto_takes_answers_that_have_no_counterpart(
    store: ArtifactStore, base: BaseModelRef
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(store.path(base.artifact), local_files_only=True)
    rows = [_row(0), replace(_row(1), rejected=None)]
    encoded = encode(tokenizer, rows, FinetuneSpec(method="kto"))
    assert [example.rejected is None for example in encoded.examples] == [False, True]


def test_every_method_trains_on_the_ids_of_sft(store: ArtifactStore, base: BaseModelRef) -> None:
    """What TRL's own collators feed the model is, token for token, what SFT trains on."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(store.path(base.artifact), local_files_only=True)
    rows = [_row(number) for number in range(8)]
    expected = [example.input_ids for example in encode(tokenizer, rows, FinetuneSpec()).examples]
    assert all(ids[-1] == tokenizer.eos_token_id for ids in expected)
    for method in ("dpo", "orpo", "kto"):
        spec = FinetuneSpec(method=method, adapter="full", rows_per_step=8)
        data = dict.fromkeys(("train", "validation"), encode(tokenizer, rows, spec))
        with quiet_libraries():
            trainer = make_trainer(
                store.path(base.artifact), tokenizer, data, spec, store.root / "scratch"
            )
            batches = list(trainer.get_eval_dataloader())
        assert sorted(_better(batches, method)) == sorted(expected)


def _better(batches: list[dict[str, Any]], method: str) -> list[list[int]]:
    """The token ids of the better answers with their prompts, without padding."""
    found = []
    for batch in batches:
        side = "chosen_" if method == "orpo" else ""
        ids, mask = batch[f"{side}input_ids"], batch[f"{side}attention_mask"]
        good = (
            batch["label"] if method == "kto" else range(len(ids) // (2 if method == "dpo" else 1))
        )
        places = good.nonzero().flatten().tolist() if method == "kto" else good
        found += [ids[i][mask[i].bool()].tolist() for i in places]
    return found
