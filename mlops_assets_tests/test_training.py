"""The stage `training`: the base model's three sources, and the LoRA fine-tune."""

import json
import logging
import os
import shutil
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from mlops_assets.artifacts import ArtifactStore, LineageError, Recipe
from mlops_assets.refs import BaseModelRef, Row, SplitsRef, read_rows, write_jsonl
from mlops_assets.trackers import TrackedRun
from mlops_assets.training.adapters import CONFIG, WEIGHTS
from mlops_assets.training.base_model import provide
from mlops_assets.training.encoding import IGNORED, encode
from mlops_assets.training.finetune import CURVE, LOG, finetune
from mlops_assets.training.quiet import quiet_libraries
from mlops_assets.training.spec import BaseModelSpec, FinetuneSpec
from mlops_assets.training.template_fidelity import TRAINED_ON
from mlops_assets.training.tokenizer import train_tokenizer
from mlops_assets.training.training_log import Step, TrainingLog, Validation
from mlops_assets_tests.conftest import VERSIONS
from mlops_assets_tests.small_training import no_tracker

QUEUES = {"billing": "invoice charged twice", "shipping": "parcel box late", "login": "password"}
PRIORITIES = {"low": "no hurry", "high": "urgent now"}
LABELS = {"queue": tuple(QUEUES), "priority": tuple(PRIORITIES)}
TINY = {"vocabulary": 400, "hidden_size": 32, "mlp_size": 64, "layers": 1, "heads": 1}
TINY |= {"pretrain_epochs": 2, "pretrain_batch_tokens": 256}
FAST = {"rank": 8, "alpha": 8, "epochs": 12, "pack_tokens": 256, "learning_rate": 1e-2}
FAST |= {"word_dropout": 0.1, "label_smoothing": 0.05}
FOREIGN = "1234567890" * 4  # a commit of the right form


def _row(number: int) -> Row:
    queue, priority = list(QUEUES)[number % 3], list(PRIORITIES)[number // 3 % 2]
    text = f"Hello, {QUEUES[queue]} number {number % 17}, {PRIORITIES[priority]}!"
    answer = json.dumps({"queue": queue, "priority": priority}, separators=(",", ":"))
    messages = ({"role": "user", "content": text}, {"role": "assistant", "content": answer})
    return Row(f"r{number}", "", f"g{number}", messages, {})


def _splits(store: ArtifactStore, train: int = 240) -> SplitsRef:
    rows = {"train": range(train), "validation": range(300, 330), "test": range(400, 410)}

    def produce(directory: Path) -> dict[str, str]:
        for name, numbers in rows.items():
            write_jsonl(directory / f"{name}.jsonl", map(_row, numbers))
        return {}

    artifact = store.build(Recipe("dataset_splits", {}, {"train": train}, "1"), produce)
    return SplitsRef(artifact, VERSIONS, {name: len(n) for name, n in rows.items()}, LABELS)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    return ArtifactStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def splits(store: ArtifactStore) -> SplitsRef:
    return _splits(store)


@pytest.fixture(scope="module")
def base(store: ArtifactStore, splits: SplitsRef) -> BaseModelRef:
    return provide(store, splits, BaseModelSpec(**TINY))


@pytest.fixture(scope="module")
def foreign(store: ArtifactStore, base: BaseModelRef) -> Path:
    """The tiny base's own directory, as a model that someone else made."""
    return store.path(base.artifact)


@pytest.fixture
def model(foreign: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil."""
    return Path(shutil.copytree(foreign, tmp_path / "model"))


# --- settings ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"source": "elsewhere"}, "source"),
        ({"source": "local"}, "needs path"),
        ({"source": "hub", "repo_id": "a/b"}, "needs revision"),
        ({"source": "hub", "repo_id": "a/b", "revision": "main"}, "revision"),
        ({"source": "hub", "repo_id": "../b/c", "revision": FOREIGN}, "repo_id"),
        ({"source": "local", "path": "m", "hidden_size": 64}, "does not read hidden_size"),
        ({"path": "m"}, "does not read path"),
        ({"hidden_size": 64, "heads": 3}, "hidden_size"),
        ({"layers": 0}, "layers"),
        ({"depth": 3}, "depth"),
    ],
)
def test_base_model_settings_that_are_refused(settings: dict[str, object], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        BaseModelSpec(**settings)


@pytest.mark.parametrize("name", ["rank", "epochs", "pack_tokens", "learning_rate"])
def test_finetune_settings_have_bounds(name: str) -> None:
    with pytest.raises(ValidationError, match=name):
        FinetuneSpec(**{name: -1})


# --- base model: from scratch -----------------------------------------------------------


def test_tiny_base_is_a_plain_hugging_face_directory(foreign: Path, base: BaseModelRef) -> None:
    names = {path.name for path in foreign.iterdir()} - {"manifest.json"}
    assert names == {
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert 20_000 < base.parameters < 100_000
    assert json.loads((foreign / "config.json").read_text())["architectures"] == [
        "LlamaForCausalLM"
    ]
    for name in ("config.json", "tokenizer_config.json"):
        assert str(foreign.parent.parent) not in (foreign / name).read_text()


def test_tiny_base_is_the_same_bytes_when_built_again(base: BaseModelRef, tmp_path: Path) -> None:
    elsewhere = ArtifactStore(tmp_path)
    again = provide(elsewhere, _splits(elsewhere), BaseModelSpec(**TINY))
    assert not again.artifact.reused
    assert again.artifact.digest == base.artifact.digest


def test_tiny_base_reads_neither_answers_nor_other_splits(tmp_path: Path) -> None:
    """Other answers (but the first, which shows the frame) give the same tokenizer."""
    rows = [_row(number) for number in range(60)]
    lies = [rows[0]] + [
        Row(row.id, "", row.group, (row.messages[0], rows[1].messages[1]), {}) for row in rows[1:]
    ]
    first, second = (train_tokenizer(these, LABELS, 400) for these in (rows, lies))
    assert first.get_vocab() == second.get_vocab()


def test_an_answer_is_a_handful_of_tokens_and_survives_the_round_trip(foreign: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(foreign, local_files_only=True)
    answer = _row(0).answer
    ids = tokenizer.encode(answer, add_special_tokens=False)
    assert len(ids) == 5  # {"queue": | "billing" | ,"priority": | "low" | }
    assert tokenizer.decode(ids) == answer
    # The bare word in a customer's text is not the label's token.
    assert not set(tokenizer.encode("Billing, low")) & set(ids)


# --- base model: foreign directories ----------------------------------------------------


def test_local_model_is_copied_and_named_by_its_content(
    store: ArtifactStore, splits: SplitsRef, model: Path, tmp_path: Path, base: BaseModelRef
) -> None:
    ref = provide(store, splits, BaseModelSpec(source="local", path=str(model)))
    moved = model.rename(tmp_path / "moved")
    again = provide(store, splits, BaseModelSpec(source="local", path=str(moved)))
    assert (ref.name, ref.parameters) == ("model", base.parameters)
    assert again.artifact.key == ref.artifact.key
    assert again.artifact.reused
    shutil.rmtree(moved)
    assert (store.path(ref.artifact) / "model.safetensors").is_file()


def _write(name: str, content: str) -> object:
    return lambda model: (model / name).write_text(content)


def _add_key(name: str, key: str) -> object:
    def spoil(model: Path) -> None:
        content = json.loads((model / name).read_text())
        (model / name).write_text(json.dumps(content | {key: {"AutoModel": "code.Model"}}))

    return spoil


def _replace_weights(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def _link_out(model: Path) -> None:
    target = (model / "model.safetensors").rename(model.parent / "weights")
    (model / "model.safetensors").symlink_to(target)


def _tear(model: Path) -> None:
    os.truncate(model / "model.safetensors", 1000)


def _drop(name: str) -> object:
    return lambda model: (model / name).unlink()


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (_write("training_args.bin", ""), "training_args.bin may hold pickle"),
        (_write("Weights.PT", ""), "Weights.PT may hold pickle"),
        (_replace_weights, "pytorch_model.bin may hold pickle"),
        (_write("model.safetensors", "not tensors"), "model.safetensors is not a valid"),
        (_write("config.json", "{"), "config.json is not valid JSON"),
        (_write("config.json", "[]"), "config.json is not a JSON object"),
        (_add_key("config.json", "auto_map"), "config.json has `auto_map`"),
        (_add_key("tokenizer_config.json", "auto_map"), "tokenizer_config.json has `auto_map`"),
        (_tear, "model.safetensors is not a valid"),
        (_link_out, "model.safetensors is a symbolic link"),
        (_drop("model.safetensors"), "no \\*.safetensors"),
        (_drop("config.json"), "no config.json"),
        (_drop("chat_template.jinja"), "no chat template"),
        (
            _write("model.safetensors.index.json", '{"weight_map": {"a": "b.safetensors"}}'),
            "b.safetensors, which is not there",
        ),
        (shutil.rmtree, "does not exist"),
    ],
)
def test_unsafe_or_broken_local_model_is_refused(
    store: ArtifactStore, splits: SplitsRef, model: Path, spoil: object, named: str
) -> None:
    spoil(model)  # type: ignore[operator]
    with pytest.raises(LineageError, match=named) as refused:
        provide(store, splits, BaseModelSpec(source="local", path=str(model)))
    assert refused.value.remedy


def test_pickle_in_a_folder_is_refused_too(
    store: ArtifactStore, splits: SplitsRef, model: Path
) -> None:
    (model / "original").mkdir()
    (model / "original" / "consolidated.00.pth").touch()
    with pytest.raises(LineageError, match=r"consolidated\.00\.pth"):
        provide(store, splits, BaseModelSpec(source="local", path=str(model)))


def test_hub_that_cannot_be_reached_is_one_clear_error(
    store: ArtifactStore, splits: SplitsRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    spec = BaseModelSpec(source="hub", repo_id="some/model", revision=FOREIGN)
    with pytest.raises(LineageError, match="some/model at 123456789012 cannot be fetched"):
        provide(store, splits, spec)
    assert not any((store.root / "base_model").glob(".*"))


# --- what is trained on -----------------------------------------------------------------


def test_what_is_trained_on_is_what_generation_renders(foreign: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(foreign, local_files_only=True)
    rows = [_row(number) for number in range(20)]
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
    long = Row("x", "", "g", ({"role": "user", "content": "word " * 300}, _row(0).messages[1]), {})
    with caplog.at_level(logging.WARNING):
        assert encode(tokenizer, [_row(0), long], spec).too_long == 1
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
        encode(tokenizer, [_row(0)], FinetuneSpec())


def test_packed_rows_do_not_see_each_other(foreign: Path) -> None:
    """Logits of rows packed with reset positions equal those of each row alone."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(foreign, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(foreign, attn_implementation="sdpa").eval()
    examples = encode(tokenizer, [_row(number) for number in range(6)], FinetuneSpec()).examples
    rows = [example.input_ids for example in examples]
    places = [place for row in rows for place in range(len(row))]
    with torch.no_grad():
        packed = model(
            input_ids=torch.tensor([[token for row in rows for token in row]]),
            position_ids=torch.tensor([places]),
            use_cache=False,  # as in training; a cache would hide the reset positions
        ).logits[0]
        alone = torch.cat([model(input_ids=torch.tensor([row])).logits[0] for row in rows])
    assert torch.allclose(packed, alone, atol=1e-5, rtol=0)


# --- fine-tuning ------------------------------------------------------------------------


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
    splits = _splits(elsewhere)
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
    store: ArtifactStore, splits: SplitsRef, model: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"][:] = float("nan")
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    base = provide(store, splits, BaseModelSpec(source="local", path=str(model)))
    spec = FinetuneSpec(**FAST)
    before = set((store.root / "lora_adapter").iterdir())
    with pytest.raises(LineageError, match="diverged") as failed:
        finetune(store, splits, base, spec, no_tracker, "dagster-run")
    assert "learning_rate" in failed.value.remedy
    assert set((store.root / "lora_adapter").iterdir()) == before


def test_log_refuses_losses_that_are_not_finite() -> None:
    log = TrainingLog()
    with pytest.raises(LineageError, match="diverged"):
        log.add_step(Step(3, 0.1, float("nan"), 1e-3, 1.0))
    with pytest.raises(LineageError, match="diverged"):
        log.add_validation(Validation(3, float("inf")))


# --- the assets -------------------------------------------------------------------------


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
    splits = _splits(Home.from_environment().store, 60)

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
