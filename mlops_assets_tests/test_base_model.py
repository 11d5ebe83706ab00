"""The base model: built from scratch, from a directory, or from the hub."""

import json
import os
import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError

from mlops_assets.artifacts import ArtifactStore, LineageError
from mlops_assets.refs import BaseModelRef, Row, SplitsRef
from mlops_assets.training.base_model import provide
from mlops_assets.training.spec import BaseModelSpec
from mlops_assets.training.tokenizer import train_tokenizer
from mlops_assets_tests.two_field_tickets import (
    LABELS,
    TINY,
    make_row,
    make_splits,
)

FOREIGN = "1234567890" * 4  # a commit of the right form


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


@pytest.fixture
def model(foreign: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil."""
    return Path(shutil.copytree(foreign, tmp_path / "model"))


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
    again = provide(elsewhere, make_splits(elsewhere), BaseModelSpec(**TINY))
    assert not again.artifact.reused
    assert again.artifact.digest == base.artifact.digest


def test_tiny_base_reads_neither_answers_nor_other_splits(tmp_path: Path) -> None:
    """Other answers (but the first, which shows the frame) give the same tokenizer."""
    rows = [make_row(number) for number in range(60)]
    lies = [rows[0]] + [
        Row(row.id, "", row.group, (row.messages[0], rows[1].messages[1]), {}) for row in rows[1:]
    ]
    first, second = (train_tokenizer(these, LABELS, 400) for these in (rows, lies))
    assert first.get_vocab() == second.get_vocab()


def test_an_answer_is_a_handful_of_tokens_and_survives_the_round_trip(foreign: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(foreign, local_files_only=True)
    answer = make_row(0).answer
    ids = tokenizer.encode(answer, add_special_tokens=False)
    assert len(ids) == 5  # {"queue": | "billing" | ,"priority": | "low" | }
    assert tokenizer.decode(ids) == answer
    # The bare word in a customer's text is not the label's token.
    assert not set(tokenizer.encode("Billing, low")) & set(ids)


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
