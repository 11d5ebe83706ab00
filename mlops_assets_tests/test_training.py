"""The stage `training`: what is trained on, the fine-tuning, and the assets."""

import json
import logging
import shutil
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from mlops_assets.artifacts import ArtifactStore, LineageError
from mlops_assets.refs import BaseModelRef, Row, SplitsRef, read_rows
from mlops_assets.trackers import TrackedRun
from mlops_assets.training.adapters import CONFIG, WEIGHTS
from mlops_assets.training.base_model import provide
from mlops_assets.training.encoding import IGNORED, encode
from mlops_assets.training.finetune import CURVE, LOG, finetune
from mlops_assets.training.quiet import quiet_libraries
from mlops_assets.training.spec import BaseModelSpec, FinetuneSpec
from mlops_assets.training.template_fidelity import TRAINED_ON
from mlops_assets.training.training_log import Step, TrainingLog, Validation
from mlops_assets_tests.conftest import VERSIONS
from mlops_assets_tests.small_training import no_tracker
from mlops_assets_tests.two_field_tickets import (
    FAST,
    TINY,
    make_row,
    make_splits,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    return ArtifactStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def splits(store: ArtifactStore) -> SplitsRef:
    return make_splits(store)


@pytest.fixture(scope="module")
def base(store: ArtifactStore, splits: SplitsRef) -> BaseModelRef:
    return provide(store, splits, BaseModelSpec(**TINY))


@pytest.fixture(scope="module")
def foreign(store: ArtifactStore, base: BaseModelRef) -> Path:
    """The tiny base's own directory, as a model that someone else made."""
    return store.path(base.artifact)


@pytest.mark.parametrize("name", ["rank", "epochs", "pack_tokens", "learning_rate"])
def test_finetune_settings_have_bounds(name: str) -> None:
    with pytest.raises(ValidationError, match=name):
        FinetuneSpec(**{name: -1})


def test_what_is_trained_on_is_what_generation_renders(foreign: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(foreign, local_files_only=True)
    rows = [make_row(number) for number in range(20)]
    examples = encode(tokenizer, rows, FinetuneSpec(pack_tokens=256)).examples
    for row, example in zip(rows, examples, strict=True):
        ids, labels = example.input_ids, example.labels
        prompt = tokenizer.apply_chat_template(
            list(row.prompt), add_generation_prompt=True, return_dict=True
        )["input_ids"]
        assert ids[: len(prompt)] == prompt
        assert labels[: len(prompt)] == [IGNORED] * len(prompt)
        assert labels[len(prompt) :] == ids[len(prompt) :]
        assert tokenizer.decode(ids[len(prompt) :]) == row.answer + tokenizer.eos_token


def test_rows_that_do_not_fit_are_left_out_and_counted(
    foreign: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(foreign, local_files_only=True)
    spec = FinetuneSpec(pack_tokens=256)
    long = Row(
        "x", "", "g", ({"role": "user", "content": "word " * 300}, make_row(0).messages[1]), {}
    )
    with caplog.at_level(logging.WARNING):
        assert encode(tokenizer, [make_row(0), long], spec).too_long == 1
    assert "left out" in caplog.text
    with pytest.raises(LineageError, match="longer than 256 tokens"):
        encode(tokenizer, [long], spec)


def test_template_that_renders_the_prompt_otherwise_is_refused(foreign: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(foreign, local_files_only=True)
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "{{ '<|assistant|>' }}", "{{ '<|assistant|>think' }}"
    )
    with pytest.raises(LineageError, match="renders a prompt otherwise"):
        encode(tokenizer, [make_row(0)], FinetuneSpec())


@pytest.fixture(scope="module")
def trained(store: ArtifactStore, splits: SplitsRef, base: BaseModelRef) -> object:
    return finetune(store, splits, base, FinetuneSpec(**FAST), no_tracker, "dagster-run")


def test_adapter_holds_its_five_files_and_no_machine_path(
    store: ArtifactStore, base: BaseModelRef, trained: object
) -> None:
    directory = store.path(trained.artifact)  # type: ignore[attr-defined]
    assert {path.name for path in directory.iterdir()} == {
        WEIGHTS,
        CONFIG,
        LOG,
        CURVE,
        TRAINED_ON,
        "manifest.json",
    }
    config = json.loads((directory / CONFIG).read_text())
    assert config["base_model_name_or_path"] == base.name
    assert config["target_modules"] == sorted(config["target_modules"])
    assert (directory / CURVE).read_bytes().startswith(b"\x89PNG")
    log = json.loads((directory / LOG).read_text())
    assert log["steps"][-1]["loss"] < log["steps"][0]["loss"]
    assert log["validation"][-1]["step"] == trained.artifact.summary["steps"]  # type: ignore[attr-defined]


def test_finetuning_again_gives_the_same_bytes(
    store: ArtifactStore, trained: object, tmp_path: Path
) -> None:
    elsewhere = ArtifactStore(tmp_path)
    splits = make_splits(elsewhere)
    base = provide(elsewhere, splits, BaseModelSpec(**TINY))
    again = finetune(elsewhere, splits, base, FinetuneSpec(**FAST), no_tracker, "another-run")
    assert not again.artifact.reused
    assert again.artifact.digest == trained.artifact.digest  # type: ignore[attr-defined]


def test_known_settings_are_not_trained_again(
    store: ArtifactStore, splits: SplitsRef, base: BaseModelRef, trained: object
) -> None:
    def never() -> AbstractContextManager[TrackedRun]:
        raise AssertionError("trained again")

    newer = replace(splits, versions=replace(VERSIONS, data="newer data, the same rows"))
    again = finetune(store, newer, base, FinetuneSpec(**FAST), never, "another-run")
    assert again.artifact.reused
    # The runs and the data named are those that trained it.
    assert (again.mlflow_run, again.dagster_run) == ("mlflow-run", "dagster-run")
    assert again.versions == VERSIONS


def _answers(base: Path, adapter: Path | None, rows: list[Row]) -> list[str]:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(base, local_files_only=True)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter)
    answers = []
    for row in rows:
        prompt = tokenizer.apply_chat_template(
            list(row.prompt), add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        ids = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0]
        answer = ids[prompt["input_ids"].shape[1] :]
        answers.append(tokenizer.decode(answer, skip_special_tokens=True))
    return answers


def test_tuning_teaches_what_the_base_does_not_know(
    store: ArtifactStore, splits: SplitsRef, base: BaseModelRef, trained: object
) -> None:
    rows = list(read_rows(store.path(splits.artifact) / "validation.jsonl"))
    expected = [row.answer for row in rows]
    base_path = store.path(base.artifact)
    adapter = store.path(trained.artifact)  # type: ignore[attr-defined]
    with quiet_libraries():
        untuned, tuned = _answers(base_path, None, rows), _answers(base_path, adapter, rows)
    assert sum(map(str.__eq__, untuned, expected)) < 0.5 * len(rows)
    assert sum(map(str.__eq__, tuned, expected)) > 0.9 * len(rows)


def test_qlora_trains_on_the_cpu(store: ArtifactStore, splits: SplitsRef) -> None:
    # NF4 takes weights in blocks of 64.
    base = provide(store, splits, BaseModelSpec(**TINY | {"hidden_size": 64}))
    settings = FAST | {"quantization": "nf4", "adapt_embeddings": False, "epochs": 2}
    spec = FinetuneSpec(**settings, train_head=False)
    ref = finetune(store, splits, base, spec, no_tracker, "dagster-run")
    log = json.loads((store.path(ref.artifact) / LOG).read_text())
    assert log["steps"][-1]["loss"] < log["steps"][0]["loss"]
    # In the middle of training a validation would stop the gradients.
    assert [point["step"] for point in log["validation"]] == [ref.artifact.summary["steps"]]


def test_training_that_diverges_is_one_clear_error(
    store: ArtifactStore, splits: SplitsRef, foreign: Path, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    model = Path(shutil.copytree(foreign, tmp_path / "model"))
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"][:] = float("nan")
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    base = provide(store, splits, BaseModelSpec(source="local", path=str(model)))
    spec = FinetuneSpec(**FAST)
    before = set(store.root.glob("lora_adapter/*"))
    with pytest.raises(LineageError, match="diverged") as failed:
        finetune(store, splits, base, spec, no_tracker, "dagster-run")
    assert "learning_rate" in failed.value.remedy
    assert set(store.root.glob("lora_adapter/*")) == before


def test_log_refuses_losses_that_are_not_finite() -> None:
    log = TrainingLog()
    with pytest.raises(LineageError, match="diverged"):
        log.add_step(Step(3, 0.1, float("nan"), 1e-3, 1.0))
    with pytest.raises(LineageError, match="diverged"):
        log.add_validation(Validation(3, float("inf")))


def test_assets_log_to_mlflow_and_show_the_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dagster as dg
    import mlflow

    from mlops_assets.home import Home
    from mlops_assets.resources import RESOURCES, Cost
    from mlops_assets.training.defs import base_model, lora_adapter

    monkeypatch.setenv("MLOPS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    splits = make_splits(Home.from_environment().store, 60)

    @dg.asset
    def dataset_splits() -> SplitsRef:
        return splits

    config = {"base_model": {"config": TINY}, "lora_adapter": {"config": FAST | {"epochs": 2}}}
    runs = [
        dg.materialize(
            [dataset_splits, base_model, lora_adapter],
            resources=RESOURCES | {"cost": Cost(price_per_hour=3600.0, currency="EUR")},
            run_config={"ops": config},
        )
        for _ in range(2)
    ]
    fresh, reused = (_metadata(run, "lora_adapter") for run in runs)
    assert (fresh["from_store"].value, reused["from_store"].value) == (False, True)
    assert fresh["loss_curve"].value.startswith("![loss](data:image/png;base64,")
    assert reused["trained_by_run"].value == runs[0].run_id
    assert reused["mlflow_run"].value == fresh["mlflow_run"].value
    client = mlflow.MlflowClient(Home.from_environment().mlflow_uri)
    run = client.get_run(fresh["mlflow_run"].value)
    assert run.data.params["rank"] == "8"
    assert run.data.metrics["final_tokens_per_second"] > 0
    assert 0 < run.data.metrics["final_model_flops_utilisation"] < 1
    assert run.data.metrics["final_cost"] == pytest.approx(
        run.data.metrics["final_wall_seconds"], abs=0.1
    )
    assert run.data.metrics["final_memory_plan.activations"] > 0
    assert run.data.tags["currency"] == "EUR"
    for asset in (fresh, reused):
        assert "EUR at 3600 EUR an hour" in asset["cost"].value
        assert "**predicted peak**" in asset["memory"].value
    assert len(client.get_metric_history(run.info.run_id, "loss")) > 3
    assert [item.path for item in client.list_artifacts(run.info.run_id, "training")] == [
        f"training/{CURVE}"
    ]
    assert _metadata(runs[1], "base_model")["from_store"].value


def _metadata(run: object, asset: str) -> dict[str, object]:
    return run.asset_materializations_for_node(asset)[0].metadata  # type: ignore[attr-defined]
