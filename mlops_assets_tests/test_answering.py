"""Answers of real models: batches, adapters, and what is refused when one is loaded."""

import json
import re
import shutil
from dataclasses import replace

import pytest

from mlops_assets.artifacts import LineageError
from mlops_assets.evaluation import generation
from mlops_assets.evaluation.decoding import decode
from mlops_assets.evaluation.records import RECORDS, read_records
from mlops_assets.evaluation.report import read_report
from mlops_assets.home import Home
from mlops_assets.model_loading import load_model
from mlops_assets_tests.small_evaluation import (
    LIBRARY_NOTES,
    SPEC,
    Parts,
    copy_files,
    encode,
    make_rows,
    make_splits,
    measure,
)

# Libraries speaking of each other: peft to transformers, torch to torch.
pytestmark = LIBRARY_NOTES


@pytest.fixture
def home(measured_home: Home) -> Home:
    return measured_home


@pytest.fixture
def parts(measured_parts: Parts) -> Parts:
    return measured_parts


def test_batched_answers_are_those_of_single_requests(home, parts, model_folders) -> None:
    from transformers import AutoTokenizer

    loaded = load_model(model_folders["base"], model_folders["adapter"])
    tokenizer = AutoTokenizer.from_pretrained(model_folders["base"])
    prompts = [
        encode(tokenizer, row)[0][: encode(tokenizer, row)[1]] for row in make_rows(12, 9, "x")
    ]
    together = decode(loaded, prompts, 16, 64, lambda *_: None).tokens
    assert len({len(ids) for ids in prompts}) > 1  # so that some are padded
    alone = [decode(loaded, [ids], 16, 1, lambda *_: None).tokens[0] for ids in prompts]
    assert together == alone
    assert all(ids[-1] == tokenizer.eos_token_id for ids in together)


def test_the_merged_adapter_answers_as_the_unmerged_one(model_folders) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model_folders["base"])
    apart = PeftModel.from_pretrained(base, str(model_folders["adapter"])).eval()
    ids = torch.arange(5, 25)[None]
    with torch.inference_mode():
        wanted = apart(input_ids=ids).logits
        merged = load_model(model_folders["base"], model_folders["adapter"])
        got = merged.model(input_ids=ids.to(merged.device)).logits.cpu()
    assert torch.allclose(wanted, got, atol=1e-3)


def test_answers_are_kept_and_counted(home, parts) -> None:
    splits = parts["dataset_splits"]
    split = home.store.path(splits.artifact) / "test.jsonl"
    rows = make_rows(60, 3, "test")
    shutil.rmtree(home.root / "artifacts" / "predictions")
    subject = generation.Subject(
        "tuned", parts["base_model"].artifact, parts["lora_adapter"].artifact, 16
    )
    first = generation.predict(home.store, subject, split, rows, SPEC)
    again = generation.predict(home.store, replace(subject, name="champion"), split, rows, SPEC)
    assert not first.reused
    assert again.reused
    predictions = generation.read_predictions(home.store, first)
    assert [item.id for item in predictions] == [row.id for row in rows]
    assert all(item.finished and item.text.endswith("}") for item in predictions)
    assert first.summary["output_tokens"] == sum(item.tokens for item in predictions)
    assert first.summary["batch_size"] == 16
    assert 0 < first.summary["latency_p50_ms"] <= first.summary["latency_p95_ms"]


def test_a_prompt_longer_than_the_context_is_wrong_and_counted(home, parts) -> None:
    rows = make_rows(4, 3, "test")
    long = {"role": "user", "content": "invoice " * 200}
    rows[2] = replace(rows[2], messages=(long, rows[2].messages[1]))
    splits = make_splits(home.store, rows, make_rows(20, 1, "train"))
    ref = measure(home, parts | {"dataset_splits": splits})
    report = read_report(home.store, ref.artifact)
    assert report["tokens"]["tuned"]["refused"] == 1
    records = read_records(home.store.path(ref.artifact) / RECORDS)
    found = {one.system: one for one in records if one.item == "test-2"}
    assert found["tuned"].scores["exact_match"] == found["base"].scores["exact_match"] == 0
    assert (found["tuned"].output, found["tuned"].finished) == ("", False)
    assert "champion" not in found


@pytest.mark.parametrize("name", ["pytorch_model.bin", "optimizer.pt"])
def test_pickled_weights_are_refused(tmp_path, model_folders, name: str) -> None:
    copy_files(model_folders["base"])(tmp_path)
    (tmp_path / name).write_bytes(b"\x80\x04.")
    with pytest.raises(LineageError, match=name):
        load_model(tmp_path, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "neither a plain LoRA nor"),
        ({"megatron_config": {"a": 1}, "megatron_core": "antigravity"}, "neither a plain LoRA nor"),
    ],
)
def test_an_adapter_that_could_import_code_is_refused(
    tmp_path, model_folders, changes, message
) -> None:
    copy_files(model_folders["adapter"])(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | changes))
    with pytest.raises(LineageError, match=message):
        load_model(model_folders["base"], tmp_path)


def test_a_model_that_cannot_be_loaded_names_its_directory(tmp_path) -> None:
    with pytest.raises(LineageError, match=re.escape(str(tmp_path))):
        load_model(tmp_path, None)
