"""Small real models and a measured home for the tests of the stage `evaluation`.

A Llama of two layers that has learnt the answers' form with shuffled labels, and a LoRA that
has learnt which label is right.
"""

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mlops_assets.artifacts import Artifact, ArtifactStore, Recipe, digest_json
from mlops_assets.evaluation.report import evaluate
from mlops_assets.evaluation.spec import EvaluationSpec
from mlops_assets.home import Home
from mlops_assets.refs import AdapterRef, BaseModelRef, Row, SplitsRef, write_jsonl
from mlops_assets_tests.conftest import VERSIONS

LABELS = {"queue": ("billing", "technical"), "priority": ("high", "low")}
WORDS = {
    ("queue", "billing"): ("invoice", "refund", "charge"),
    ("queue", "technical"): ("crash", "login", "router"),
    ("priority", "high"): ("urgent", "immediately"),
    ("priority", "low"): ("whenever", "someday"),
}
LIBRARY_NOTES = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning"),
]
"""What peft and torch say of themselves: the `pytestmark` of tests that load these models."""
Parts = dict[str, SplitsRef | BaseModelRef | AdapterRef]
SPEC = EvaluationSpec(
    batch_size=16, max_new_tokens=16, latency_requests=3, ragas_rows=40, suites=""
)
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def answer(**values: str) -> str:
    return json.dumps(values, separators=(",", ":"))


def make_rows(count: int, seed: int, prefix: str) -> list[Row]:
    dice = random.Random(seed)
    rows = []
    for number in range(count):
        labels = {field: dice.choice(values) for field, values in LABELS.items()}
        words = [dice.choice(WORDS[item]) for item in labels.items()]
        text = " ".join([*dice.sample(["please", "my", "the", "help"], dice.randint(1, 4)), *words])
        messages = (
            {"role": "user", "content": text},
            {"role": "assistant", "content": answer(**labels)},
        )
        slices = {"channel": dice.choice(("email", "chat")), "style": "plain"}
        rows.append(Row(f"{prefix}-{number}", "", f"c{number}", messages, slices))
    return rows


def put(store: ArtifactStore, kind: str, name: str, write) -> Artifact:
    def produce(folder: Path) -> dict[str, str]:
        write(folder)
        return {}

    return store.build(Recipe(kind, {}, {"name": name}, "1"), produce)


def make_splits(store: ArtifactStore, test: list[Row], train: list[Row]) -> SplitsRef:
    def write(folder: Path) -> None:
        for name, rows in (("train", train), ("validation", []), ("test", test)):
            write_jsonl(folder / f"{name}.jsonl", rows)

    name = digest_json([[row.id, row.answer] for row in (*train, *test)])
    artifact = put(store, "splits", name, write)
    return SplitsRef(artifact, VERSIONS, {"train": len(train), "test": len(test)}, LABELS)


def make_tokenizer(texts: list[str]):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|end|>",  # noqa: S106 (a token of the vocabulary)
        pad_token="<|pad|>",  # noqa: S106
    )
    fast.chat_template = TEMPLATE
    return fast


def fit(model, tokenizer, rows: list[Row], steps: int, rate: float) -> None:
    """A plain loop, on the answers only."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # these matrices are too small to share
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate)
    dice = random.Random(0)
    for _ in range(steps):
        examples = [encode(tokenizer, row) for row in dice.sample(rows, 32)]
        width = max(len(ids) for ids, _ in examples)
        ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in examples])
        labels = [[-100] * n + ids[n:] + [-100] * (width - len(ids)) for ids, n in examples]
        loss = model(input_ids=ids, labels=torch.tensor(labels)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.set_num_threads(threads)


def encode(tokenizer, row: Row) -> tuple[list[int], int]:
    messages = [dict(message) for message in row.messages]
    asked = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
    prompt = tokenizer(asked, add_special_tokens=False)["input_ids"]
    text = row.answer + "<|end|>"
    return prompt + tokenizer(text, add_special_tokens=False)["input_ids"], len(prompt)


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory) -> dict[str, Path]:
    """Directories of a base model and an adapter, in Hugging Face's and PEFT's format."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    root = tmp_path_factory.mktemp("models")
    rows = make_rows(400, 1, "train")
    tokenizer = make_tokenizer([row.messages[0]["content"] + row.answer for row in rows])
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    answers = [row.messages[1] for row in rows]
    random.Random(2).shuffle(answers)
    shuffled = [
        replace(row, messages=(row.messages[0], other))
        for row, other in zip(rows, answers, strict=True)
    ]
    fit(model, tokenizer, shuffled, 40, 5e-3)
    model.save_pretrained(root / "base")
    tokenizer.save_pretrained(root / "base")
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    tuned = get_peft_model(model, lora)
    fit(tuned, tokenizer, rows, 100, 5e-3)
    tuned.save_pretrained(root / "adapter")
    return {"base": root / "base", "adapter": root / "adapter"}


def copy_files(source: Path):
    def write(folder: Path) -> None:
        for path in source.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())

    return write


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, model_folders) -> tuple[Path, Parts]:
    """A home in which the candidate was measured once; tests work on copies of it."""
    import mlflow

    home = Home(tmp_path_factory.mktemp("prepared") / "home")
    home.prepare()
    base = put(home.store, "base_model", "b", copy_files(model_folders["base"]))
    adapter = put(home.store, "adapter", "a", copy_files(model_folders["adapter"]))
    splits = make_splits(home.store, make_rows(60, 3, "test"), make_rows(200, 1, "train"))
    parts = {
        "dataset_splits": splits,
        "base_model": BaseModelRef(base, "tiny", 100_000),
        "lora_adapter": AdapterRef(adapter, base, VERSIONS, "mlflow-run", "dagster-run"),
    }
    measure(home, parts)
    mlflow.MlflowClient(home.mlflow_uri).search_experiments()  # makes its tables
    return home.root, parts


def measure(home: Home, parts, champion=None, spec=SPEC, publish=lambda folder, report: None):
    return evaluate(home.store, *parts.values(), champion, spec, publish)


def numbers(value):
    if isinstance(value, dict):
        for item in value.values():
            yield from numbers(item)
    elif isinstance(value, list):
        for item in value:
            yield from numbers(item)
    elif isinstance(value, float):
        yield value


def weaken(model_folders: dict[str, Path], folder: Path) -> None:
    from safetensors.numpy import load_file, save_file

    copy_files(model_folders["adapter"])(folder)
    weights = load_file(folder / "adapter_model.safetensors")
    save_file(
        {name: 0 * array for name, array in weights.items()}, folder / "adapter_model.safetensors"
    )


@pytest.fixture
def measured_home(tmp_path, monkeypatch, prepared) -> Home:
    root = tmp_path / "home"
    shutil.copytree(prepared[0], root)
    monkeypatch.setenv("MLOPS_HOME", str(root))
    # MLflow sets it for its subprocesses; an earlier test's would lead us to another home.
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Home.from_environment()


@pytest.fixture
def measured_parts(prepared) -> Parts:
    return dict(prepared[1])
