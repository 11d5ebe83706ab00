"""What is trained on is what servers render, and the end of a turn is learnt."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.artifacts import ArtifactStore, LineageError
from mlops_assets.model_loading import load_model
from mlops_assets.prompts import seal_prompt
from mlops_assets.refs import BaseModelRef, Row, SplitsRef, read_rows
from mlops_assets.training.base_model import provide
from mlops_assets.training.encoding import encode
from mlops_assets.training.finetune import finetune
from mlops_assets.training.spec import BaseModelSpec, FinetuneSpec
from mlops_assets.training.template_fidelity import (
    TRAINED_ON,
    Fidelity,
    Trained,
    check_fidelity,
    compare,
    record_trained,
    stop_tokens,
)
from mlops_assets_tests.small_training import no_tracker
from mlops_assets_tests.two_field_tickets import FAST, TINY, make_splits

CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "find_order", "arguments": '{"number": 17}'},
}
TOOL = {"type": "function", "function": {"name": "find_order", "parameters": {"type": "object"}}}
SYSTEM = {"role": "system", "content": "Answer politely."}
USER = {"role": "user", "content": "Where is my parcel 17?"}
ANSWER = {"role": "assistant", "content": "On its way."}
CALLING = {"role": "assistant", "content": "", "tool_calls": [CALL]}
RESULT = {"role": "tool", "content": '{"state": "sent"}', "tool_call_id": "c1"}
CONVERSATIONS = {
    "one turn": ((USER, ANSWER), ()),
    "system turn": ((SYSTEM, USER, ANSWER), ()),
    "several turns": ((USER, ANSWER, USER, ANSWER), ()),
    "functions": ((USER, ANSWER), (TOOL,)),
    "answer is a call": ((USER, CALLING), (TOOL,)),
    "after a call": ((SYSTEM, USER, CALLING, RESULT, ANSWER), (TOOL,)),
}


def _rows(*names: str) -> list[Row]:
    return [Row(name, "", name, *_parts(name)) for name in names or CONVERSATIONS]


def _parts(name: str) -> Any:
    messages, tools = CONVERSATIONS[name]
    return messages, {}, None, None, tools


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    return ArtifactStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def splits(store: ArtifactStore) -> SplitsRef:
    return make_splits(store, 120)


@pytest.fixture(scope="module")
def base(store: ArtifactStore, splits: SplitsRef) -> BaseModelRef:
    return provide(store, splits, BaseModelSpec(**TINY))


@pytest.fixture
def tokenizer(store: ArtifactStore, base: BaseModelRef) -> Any:
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(store.path(base.artifact), local_files_only=True)
    loaded.add_special_tokens({"bos_token": "<|begin|>"})
    return loaded


def _trained(tokenizer: Any, rows: list[Row]) -> dict[str, Trained]:
    examples = encode(tokenizer, rows, FinetuneSpec()).examples
    return {example.row: Trained.of(example) for example in examples}


def _compared(tokenizer: Any, rows: list[Row]) -> Fidelity:
    """Trained with this tokenizer and served with it, too."""
    return compare(tokenizer, {tokenizer.eos_token_id}, rows, _trained(tokenizer, rows))


def test_every_shape_of_conversation_is_trained_on_as_it_is_served(tokenizer: Any) -> None:
    found = _compared(tokenizer, _rows())
    assert found.passed, found
    assert found.rows == len(CONVERSATIONS)


END = "{{ '<|end|>' }}"
CALLS = "{% if message['tool_calls'] %}{{ message['tool_calls'] | tojson }}{% endif %}"


@pytest.mark.parametrize(
    ("spoil", "row", "problem"),
    [
        ((END, ""), "one turn", "no end-of-turn token with loss"),
        (("{% for", "{{ bos_token + bos_token }}{% for"), "one turn", "two BOS tokens"),
        ((CALLS, ""), "answer is a call", "an answer that the chat template leaves out"),
        (("{% if tools %}", "{% if false %}"), "functions", "functions that the chat template"),
        ((END, "{{ '<|end|> see you' }}"), "one turn", "goes on after the token"),
    ],
)
def test_a_template_that_teaches_something_else_fails(
    tokenizer: Any, spoil: tuple[str, str], row: str, problem: str
) -> None:
    assert spoil[0] in tokenizer.chat_template
    tokenizer.chat_template = tokenizer.chat_template.replace(*spoil)
    found = _compared(tokenizer, _rows(row))
    assert not found.passed
    assert problem in found.mismatches[0].problem


def test_a_template_changed_after_training_fails(tokenizer: Any) -> None:
    rows = _rows()
    trained = _trained(tokenizer, rows)
    tokenizer.chat_template = tokenizer.chat_template.replace("'<|' +", "'\\n<|' +")
    found = compare(tokenizer, {tokenizer.eos_token_id}, rows, trained)
    assert len(found.mismatches) == len(rows)
    assert "another prompt than vLLM renders" in str(found)


def test_an_end_at_which_no_server_stops_fails(tokenizer: Any) -> None:
    rows = _rows("one turn")
    found = compare(tokenizer, {tokenizer.pad_token_id}, rows, _trained(tokenizer, rows))
    assert "at which servers stop" in str(found)


def test_no_rows_is_no_proof(tokenizer: Any) -> None:
    assert not compare(tokenizer, {1}, [], {}).passed


def test_some_rows_of_every_shape_are_recorded(tokenizer: Any, tmp_path: Path) -> None:
    plain = [Row(f"plain {n}", "", "g", *_parts("one turn")) for n in range(80)]
    rows = [*plain, *_rows("after a call")]
    record_trained(rows, encode(tokenizer, rows, FinetuneSpec()), tmp_path / TRAINED_ON)
    recorded = json.loads((tmp_path / TRAINED_ON).read_bytes())
    assert len(recorded) == 51
    assert "after a call" in recorded


@pytest.mark.slow
def test_the_end_of_a_turn_is_learnt(
    store: ArtifactStore, splits: SplitsRef, base: BaseModelRef
) -> None:
    import torch

    tuned = finetune(store, splits, base, FinetuneSpec(**FAST | {"epochs": 8}), no_tracker, "run")
    assert check_fidelity(store, splits, tuned).passed
    path = store.path(base.artifact)
    rows = list(read_rows(store.path(splits.artifact) / "validation.jsonl"))
    probabilities = []
    for adapter in (None, store.path(tuned.artifact)):
        loaded = load_model(path, adapter)
        assert set(loaded.end_tokens) == stop_tokens(path, loaded.tokenizer)
        of_row = []
        for example in encode(loaded.tokenizer, rows, FinetuneSpec()).examples:
            assert example.chosen[-1] in loaded.end_tokens
            with torch.no_grad():
                logits = loaded.model(torch.tensor([example.input_ids[:-1]])).logits[0, -1]
            of_row.append(float(logits.softmax(-1)[example.chosen[-1]]))
        probabilities.append(min(of_row))
    assert probabilities[0] < 0.5
    assert probabilities[1] > 0.9
    with pytest.raises(LineageError, match="trained on other splits"):
        check_fidelity(store, make_splits(store, 12), tuned)


@pytest.mark.slow
def test_the_check_ends_the_run_before_anything_is_measured(
    store: ArtifactStore, base: BaseModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dagster as dg

    from mlops_assets.checks import TEMPLATE_FIDELITY, CheckResult, adapter_on_base, find_check
    from mlops_assets.home import Home
    from mlops_assets.resources import RESOURCES
    from mlops_assets.training.defs import base_model, lora_adapter, template_fidelity

    monkeypatch.setenv("MLOPS_HOME", str(tmp_path / "home"))
    endless = Path(shutil.copytree(store.path(base.artifact), tmp_path / "endless"))
    (endless / "manifest.json").unlink()
    template = (endless / "chat_template.jinja").read_text()
    (endless / "chat_template.jinja").write_text(template.replace(END, ""))

    @dg.asset
    def dataset_splits() -> SplitsRef:
        return make_splits(Home.from_environment().store, 24)

    @dg.asset(deps=[lora_adapter])
    def eval_report() -> None:
        raise AssertionError("measured")

    run = dg.materialize(
        [dataset_splits, base_model, lora_adapter, template_fidelity, eval_report],
        resources=RESOURCES,
        run_config={
            "ops": {
                "base_model": {"config": {"source": "local", "path": str(endless)}},
                "lora_adapter": {"config": FAST | {"epochs": 1}},
            }
        },
        raise_on_error=False,
    )
    assert not run.success
    (check,) = run.get_asset_check_evaluations()
    assert (check.check_name, check.passed, check.blocking) == ("template_fidelity", False, True)
    assert "no end-of-turn token with loss" in (check.description or "")
    adapter = run.output_for_node("lora_adapter")
    kept = find_check(
        Home.from_environment().checks,
        TEMPLATE_FIDELITY,
        adapter_on_base(adapter.base, adapter.artifact),
    )
    assert kept == CheckResult(False, str(check.description))
    assert not run.asset_materializations_for_node("eval_report")


@pytest.mark.slow
def test_a_release_is_served_with_the_prompt_that_it_was_trained_with(
    store: ArtifactStore, splits: SplitsRef, base: BaseModelRef
) -> None:
    spec = FinetuneSpec(**FAST | {"prompt": "label-list"})
    tuned = finetune(store, splits, base, spec, no_tracker, "run")
    assert tuned.prompt is not None
    assert tuned.prompt.summary["name"] == "label-list"
    assert check_fidelity(store, splits, tuned).passed
    other = replace(tuned, prompt=seal_prompt(store, "none", splits.labels))
    found = check_fidelity(store, splits, other)
    assert len(found.mismatches) == found.rows > 0
    assert "another prompt than vLLM renders" in str(found)
