"""Stage `evaluation`: metrics, generation, baselines, the report; its gate in Dagster.

The models are real and small: a Llama of two layers that has learnt the answers' form with
shuffled labels, and a LoRA that has learnt which label is right.
"""

import json
import math
import random
import re
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path

import dagster as dg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mlops_assets.artifacts import Artifact, ArtifactStore, LineageError, Recipe, digest_json
from mlops_assets.checks import (
    NO_LEAKAGE,
    TEMPLATE_FIDELITY,
    CheckResult,
    adapter_on_base,
    record_check,
)
from mlops_assets.evaluation import baselines, generation, metrics, page, scoring
from mlops_assets.evaluation.decoding import decode
from mlops_assets.evaluation.defs import EvaluationConfig, defs, eval_report, gate, gate_verdict
from mlops_assets.evaluation.examples import show_answer
from mlops_assets.evaluation.model_loading import load_model
from mlops_assets.evaluation.ragas_metrics import ragas_means
from mlops_assets.evaluation.report import evaluate, read_report
from mlops_assets.evaluation.spec import EvaluationSpec
from mlops_assets.home import Home
from mlops_assets.ledger import PROMOTED, Decision
from mlops_assets.refs import AdapterRef, BaseModelRef, Row, SplitsRef, write_jsonl
from mlops_assets.resources import RefIOManager, Tracking, Workspace
from mlops_assets_tests.conftest import VERSIONS

LABELS = {"queue": ("billing", "technical"), "priority": ("high", "low")}
WORDS = {
    ("queue", "billing"): ("invoice", "refund", "charge"),
    ("queue", "technical"): ("crash", "login", "router"),
    ("priority", "high"): ("urgent", "immediately"),
    ("priority", "low"): ("whenever", "someday"),
}
# Libraries speaking of each other: peft to transformers, torch to torch.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning"),
]

Parts = dict[str, SplitsRef | BaseModelRef | AdapterRef]
SPEC = EvaluationSpec(
    batch_size=16, max_new_tokens=16, latency_requests=3, ragas_rows=40, suites=""
)
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


# --- parts -----------------------------------------------------------------------------------


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


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
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


@pytest.fixture
def home(tmp_path, monkeypatch, prepared) -> Home:
    root = tmp_path / "home"
    shutil.copytree(prepared[0], root)
    monkeypatch.setenv("MLOPS_HOME", str(root))
    # MLflow sets it for its subprocesses; an earlier test's would lead us to another home.
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Home.from_environment()


@pytest.fixture
def parts(prepared) -> Parts:
    return dict(prepared[1])


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


# --- metrics ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "exact"),
    [
        ('{"a":"x","b":"y"}', True),
        (' { "b" : "y",\n "a":"x" } ', True),
        ('{"a":"\\u0078","b":"y"}', True),
        ('{"a":"x"}', False),
        ('{"a":"x","b":"y","c":"z"}', False),
        ('{"a":"x","a":"x","b":"y"}', False),
        ('{"a":"x","b":"y"} thanks', False),
        ("", False),
        ("null", False),
        ('{"a":"x","b":"\\ud800"}', False),
        ("[" * 100_000, False),
    ],
)
def test_exact_match_compares_json_objects_not_text(output: str, exact: bool) -> None:
    assert metrics.is_exact('{"a":"x","b":"y"}', output) is exact


@pytest.mark.parametrize(
    "text", ["", "nope", "[]", '"x"', "1", '{"a":NaN}', '{"a":1e999}', '{"a":1,"a":2}', '{"a":']
)
def test_what_is_no_json_object_is_none(text: str) -> None:
    assert metrics.parse_object(text) is None


def test_true_and_one_are_different_answers() -> None:
    assert not metrics.is_exact('{"a":1}', '{"a":true}')


def test_empty_input_has_no_score() -> None:
    assert metrics.share([]) is None
    assert metrics.accuracy([], []) is None
    assert metrics.macro_f1([], []) is None
    assert metrics.wilson(0, 0) is None
    assert metrics.paired_difference([], []) is None
    assert metrics.percentile([], 0.5) is None
    assert ragas_means([]).keys() >= {"exact_match", "chrf_score"}
    assert set(ragas_means([]).values()) == {None}


@settings(deadline=None)  # the first example imports scikit-learn
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["a", "b", "c", None]))))
def test_macro_f1_is_that_of_scikit_learn(pairs) -> None:
    from sklearn.metrics import f1_score

    expected, predicted = [a for a, _ in pairs], [b for _, b in pairs]
    ours = metrics.macro_f1(expected, predicted)
    if not pairs:
        assert ours is None
        return
    named = [label or "none" for label in predicted]
    theirs = f1_score(
        expected, named, labels=sorted(set(expected)), average="macro", zero_division=0
    )
    assert ours == pytest.approx(theirs)


@settings(deadline=None)
@given(st.integers(1, 5000), st.floats(0, 1))
def test_wilson_is_that_of_scipy(rows: int, rate: float) -> None:
    from scipy.stats import binomtest

    hits = round(rate * rows)
    theirs = binomtest(hits, rows).proportion_ci(method="wilson")
    assert metrics.wilson(hits, rows) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_paired_difference_counts_only_what_changed() -> None:
    same = [True] * 50 + [False] * 50
    difference, (low, high) = metrics.paired_difference(same, same)
    assert difference == 0
    assert low < 0 < high
    difference, (low, high) = metrics.paired_difference([True] * 100, [False] * 100)
    assert difference == 1
    assert low > 0.9
    assert high <= 1


@pytest.mark.parametrize(("share", "value"), [(0.5, 2), (0.95, 4), (0.0, 1), (1.0, 4)])
def test_percentile_is_the_nearest_rank(share: float, value: int) -> None:
    assert metrics.percentile([4, 1, 3, 2], share) == value


def test_ragas_gives_credit_for_nearly_right_answers() -> None:
    reference = answer(queue="billing", priority="high")
    near = answer(queue="billing", priority="low")
    perfect, close, none = (ragas_means([(reference, text)]) for text in (reference, near, ""))
    assert set(perfect) == {
        "exact_match",
        "non_llm_string_similarity",
        "rouge_score",
        "bleu_score",
        "chrf_score",
    }
    assert set(perfect.values()) == {1.0}
    assert close["exact_match"] == 0
    assert all(0 < value < 1 for name, value in close.items() if name != "exact_match")
    assert set(none.values()) == {0.0}


# --- scoring and baselines -------------------------------------------------------------------


def test_scores_by_field_and_slice() -> None:
    rows = make_rows(40, 5, "row")
    expected = scoring.references(rows, tuple(LABELS))
    outputs = [row.answer if i % 2 else "{" for i, row in enumerate(rows)]
    systems = {
        name: scoring.compare(rows, tuple(LABELS), outputs)
        for name in ("base", "tuned", "majority", "tfidf")
    }
    scored = scoring.score(rows, expected, systems)
    assert scored["exact_match"]["tuned"] == scored["valid_json"]["tuned"] == 0.5
    assert scored["exact_match"]["champion"] is None
    assert scored["fields"]["queue"]["accuracy"]["tuned"] == 0.5
    assert sum(part["count"] for part in scored["slices"]["channel"].values()) == 40
    assert scored["slices"]["style"]["plain"]["exact_match"]["base"] == 0.5
    low, high = scored["intervals"]["slices"]["style"]["plain"]["tuned"]
    assert low < 0.5 < high
    assert scored["differences"]["base"]["difference"] == 0
    assert scored["differences"]["champion"] is None


def test_rows_without_slices_have_no_slice_scores() -> None:
    rows = [replace(row, slices={}) for row in make_rows(3, 1, "row")]
    expected = scoring.references(rows, tuple(LABELS))
    assert scoring.score(rows, expected, {"tuned": expected})["slices"] == {}


def test_a_reference_that_is_no_json_cannot_be_scored() -> None:
    row = make_rows(1, 1, "row")[0]
    broken = replace(row, messages=(row.messages[0], {"role": "assistant", "content": "{"}))
    with pytest.raises(LineageError, match="row-0 is no JSON object"):
        scoring.references([broken], ("queue",))
    with pytest.raises(LineageError, match="empty"):
        scoring.references([], ("queue",))


def test_baselines_learn_from_train_alone() -> None:
    train, test = make_rows(300, 1, "train"), make_rows(60, 2, "test")
    constant = baselines.majority_answer(train)
    assert sum(row.answer == constant for row in train) == max(
        sum(row.answer == other.answer for row in train) for other in train
    )
    answers = baselines.tfidf_answers(train, test, tuple(LABELS))
    right = [metrics.is_exact(row.answer, text) for row, text in zip(test, answers, strict=True)]
    assert metrics.share(right) > 0.95
    assert list(json.loads(answers[0])) == list(LABELS)


def test_baselines_without_train_rows_or_with_one_class() -> None:
    rows = make_rows(5, 1, "row")
    assert baselines.majority_answer([]) == ""
    assert baselines.tfidf_answers([], rows, ("queue",)) == [""] * 5
    same = [replace(row, messages=(row.messages[0], rows[0].messages[1])) for row in rows]
    assert set(baselines.tfidf_answers(same, rows, tuple(LABELS))) == {rows[0].answer}


# --- generation ------------------------------------------------------------------------------


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
    outcomes = (home.store.path(ref.artifact) / report["correct"]).read_text().splitlines()
    assert json.loads(outcomes[2]) == {
        "id": "test-2",
        "base": False,
        "tuned": False,
        "champion": None,
    }


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


# --- the report ------------------------------------------------------------------------------


def test_the_report_says_everything_others_read(home, parts) -> None:
    ref = measure(home, parts)
    report = read_report(home.store, ref.artifact)
    assert report["items"] == 60
    assert report["exact_match"]["tuned"] > 0.9 > 0.5 > report["exact_match"]["base"]
    assert report["exact_match"]["champion"] is None
    assert report["valid_json"]["base"] > 0.9
    assert report["exact_match"]["tfidf"] > 0.9 > report["exact_match"]["majority"]
    assert report["candidate"] == ref.bundle.digest
    assert (report["champion"], ref.champion) == (None, None)
    assert report["versions"] == asdict(VERSIONS) == asdict(ref.bundle.versions)
    assert report["ragas"]["rows"] == 40
    assert set(report["ragas"]["metrics"]) >= {"exact_match", "rouge_score"}
    assert report["latency"]["tuned"]["requests"] == 3
    assert all(math.isfinite(number) for number in numbers(report))
    folder = home.store.path(ref.artifact)
    outcomes = [json.loads(line) for line in (folder / report["correct"]).read_text().splitlines()]
    assert [row["id"] for row in outcomes] == [f"test-{i}" for i in range(60)]
    assert sum(row["tuned"] for row in outcomes) == 60 * report["exact_match"]["tuned"]


def test_the_page_needs_nothing_beside_itself(home, parts) -> None:
    ref = measure(home, parts)
    html = (home.store.path(ref.artifact) / "report.html").read_text("utf-8")
    assert not re.search(r"(src|href)\s*=|url\(|@import|<script", html)
    for part in ("Exact match", "channel", "TF-IDF", ref.bundle.digest, "Latency", "<svg"):
        assert part in html


def test_what_customers_write_is_shown_as_text(home, parts) -> None:
    rows = make_rows(20, 3, "test")
    evil = "<script>alert(1)</script> {{ 7 * 7 }}"
    rows = [
        replace(
            row,
            messages=({"role": "user", "content": evil}, row.messages[1]),
            slices={"<b>": "<i>x"},
        )
        for row in rows
    ]
    splits = make_splits(home.store, rows, make_rows(20, 1, "train"))
    ref = measure(home, parts | {"dataset_splits": splits})
    html = (home.store.path(ref.artifact) / "report.html").read_text("utf-8")
    assert "<script" not in html
    assert "<i>x" not in html
    assert "&lt;script&gt;" in html
    assert "{{ 7 * 7 }}" in html


@pytest.mark.parametrize("labels", [3, 40])
def test_the_page_of_a_task_with_few_and_with_many_labels(labels: int) -> None:
    names = [f"intent {number}" for number in range(labels)]
    rows = [
        Row(
            str(i),
            "",
            "g",
            (
                {"role": "user", "content": "?"},
                {"role": "assistant", "content": answer(intent=names[i % labels])},
            ),
            {},
        )
        for i in range(4 * labels)
    ]
    expected = scoring.references(rows, ("intent",))
    wrong = [answer(intent=names[(i // 2) % labels]) for i in range(len(rows) - 1)] + ["junk"]
    tuned = scoring.compare(rows, ("intent",), wrong)
    report = {"fields": {"intent": {"accuracy": {"tuned": 0.1}}}}
    confusion = page._confusion(report, expected, tuned)
    assert (confusion["matrix"] is not None) is (labels == 3)
    if labels == 3:
        assert sum(sum(counts) for _, counts in confusion["matrix"]) == len(rows)
        assert confusion["columns"][-1] is None
    else:
        assert len(confusion["top"]) == page.MOST_CONFUSIONS


@pytest.mark.parametrize(
    ("output", "fields"),
    [
        ('{"queue":"billing","priority":"low"}', [True, False]),
        ('{"queue":"billing"}', [True, False]),
        ('{"queue":"billing","priority":"high","mood":"bad"}', [True, True, False]),
        ("{", []),
        ("", []),
    ],
)
def test_an_example_marks_what_is_wrong(output: str, fields: list[bool]) -> None:
    shown = show_answer(answer(queue="billing", priority="high"), output)
    assert [right for _, _, right in shown.fields] == fields


def test_the_same_work_is_never_done_twice(home, parts) -> None:
    published = []

    def publish(folder: Path, report) -> None:
        published.append(report["exact_match"]["tuned"])

    shutil.rmtree(home.root / "artifacts" / "eval_report")
    first = measure(home, parts, publish=publish)
    started = time.perf_counter()
    again = measure(home, parts, publish=publish)
    assert time.perf_counter() - started < 1
    assert again == first
    assert again.artifact.reused
    assert len(published) == 1


def test_a_champion_that_is_the_candidate_costs_no_answers(home, parts) -> None:
    first = measure(home, parts)
    before = sorted((home.root / "artifacts" / "predictions").iterdir())
    second = measure(home, parts, champion=first.bundle)
    report = read_report(home.store, second.artifact)
    assert sorted((home.root / "artifacts" / "predictions").iterdir()) == before
    assert second.champion == report["champion"] == first.bundle.digest
    assert report["exact_match"]["champion"] == report["exact_match"]["tuned"]
    assert report["differences"]["champion"]["difference"] == 0
    assert "the same release" in (home.store.path(second.artifact) / "report.html").read_text()


def test_another_champion_is_measured_on_the_same_rows(home, parts, model_folders) -> None:
    weaker = put(home.store, "adapter", "weaker", lambda folder: weaken(model_folders, folder))
    adapter = replace(parts["lora_adapter"], artifact=weaker)
    champion = measure(home, parts | {"lora_adapter": adapter}).bundle
    report = read_report(home.store, measure(home, parts, champion=champion).artifact)
    assert report["exact_match"]["champion"] < report["exact_match"]["tuned"]
    assert report["differences"]["champion"]["interval"][0] > 0


def weaken(model_folders: dict[str, Path], folder: Path) -> None:
    from safetensors.numpy import load_file, save_file

    copy_files(model_folders["adapter"])(folder)
    weights = load_file(folder / "adapter_model.safetensors")
    save_file(
        {name: 0 * array for name, array in weights.items()}, folder / "adapter_model.safetensors"
    )


def test_a_champion_whose_bytes_changed_is_refused_by_name(home, parts, model_folders) -> None:
    other = put(home.store, "adapter", "old", lambda folder: weaken(model_folders, folder))
    champion = replace(measure(home, parts).bundle, adapter=other)
    (home.store.path(other) / "adapter_model.safetensors").write_bytes(b"changed")
    with pytest.raises(LineageError, match=r"adapter .* was changed"):
        measure(home, parts, champion=champion)


def test_an_adapter_of_another_base_is_refused(home, parts) -> None:
    stranger = put(home.store, "base_model", "x", lambda folder: (folder / "x").write_text("x"))
    adapter = replace(parts["lora_adapter"], base=stranger)
    with pytest.raises(LineageError, match="another base"):
        measure(home, parts | {"lora_adapter": adapter})


def test_a_model_that_fails_is_no_score(home, parts, model_folders) -> None:
    def spoil(folder: Path) -> None:
        from safetensors.numpy import load_file, save_file

        copy_files(model_folders["adapter"])(folder)
        weights = load_file(folder / "adapter_model.safetensors")
        spoilt = {name: array + float("nan") for name, array in weights.items()}
        save_file(spoilt, folder / "adapter_model.safetensors")

    adapter = replace(parts["lora_adapter"], artifact=put(home.store, "adapter", "nan", spoil))
    with pytest.raises(LineageError, match="cannot be loaded"):
        measure(home, parts | {"lora_adapter": adapter})
    assert len(list((home.root / "artifacts" / "eval_report").iterdir())) == 1


def test_what_changes_the_bundle(home, parts) -> None:
    one = measure(home, parts).bundle
    shorter = measure(home, parts, spec=SPEC.model_copy(update={"max_new_tokens": 12})).bundle
    quicker = measure(home, parts, spec=SPEC.model_copy(update={"ragas_rows": 20}))
    assert one.digest != shorter.digest
    assert one == quicker.bundle


@pytest.mark.parametrize(
    "setting",
    [
        {"batch_size": 0},
        {"minimum_exact_match": 0.5},  # a setting of the gate
        {"max_new_tokens": 0},
        {"unknown": 1},
        {"seed": -1},
    ],
)
def test_settings_out_of_range_are_refused(setting) -> None:
    with pytest.raises(ValidationError):
        EvaluationConfig(**setting)


# --- the asset -------------------------------------------------------------------------------


def run(home, parts, **gate_config):
    """Materialise the stage and what hangs on it, with its inputs as stored refs."""

    @dg.asset(deps=["gate_verdict"])
    def downstream() -> None:
        """Stands for the promotion stage."""

    def source(name: str):
        @dg.asset(name=name)
        def stored():
            return dg.MaterializeResult(value=parts[name])

        return stored

    adapter = adapter_on_base(parts["base_model"].artifact, parts["lora_adapter"].artifact)
    record_check(home.checks, TEMPLATE_FIDELITY, adapter, CheckResult(True, "clean"))
    splits = parts["dataset_splits"].artifact.digest
    record_check(home.checks, NO_LEAKAGE, splits, CheckResult(True, "clean"))
    config = {
        "eval_report": {"config": SPEC.model_dump()},
        "gate_verdict": {"config": {"minimum_items": 20, **gate_config}},
    }
    return dg.materialize(
        [*(source(name) for name in parts), eval_report, gate_verdict, gate, downstream],
        resources={
            "workspace": Workspace(),
            "tracking": Tracking(),
            "io_manager": RefIOManager(),
        },
        run_config={"ops": config},
        raise_on_error=False,
        instance=dg.DagsterInstance.ephemeral(),
    )


@pytest.mark.slow
def test_the_asset_its_check_and_mlflow(home, parts) -> None:
    import mlflow

    shutil.rmtree(home.root / "artifacts" / "eval_report")
    result = run(home, parts, minimum_exact_match=0.6, minimum_valid_json=0.9)
    assert result.success
    (check,) = result.get_asset_check_evaluations()
    assert check.passed
    assert check.blocking
    (made,) = result.asset_materializations_for_node("eval_report")
    metadata = made.metadata
    assert metadata["exact_match_tuned"].value > 0.9
    assert metadata["report"].value.startswith("file://")
    assert Path(metadata["report_json"].value).is_file()
    assert "data:image/png;base64," in metadata["plot"].value
    assert metadata["from_store"].value is False
    assert "Tuned candidate" in metadata["scores"].value
    client = mlflow.MlflowClient(home.mlflow_uri)
    (logged,) = client.search_runs([item.experiment_id for item in client.search_experiments()])
    assert logged.info.status == "FINISHED"
    assert logged.data.metrics["eval/exact_match/tuned"] == metadata["exact_match_tuned"].value
    assert "eval/exact_match/champion" not in logged.data.metrics
    names = {item.path for item in client.list_artifacts(logged.info.run_id, "evaluation")}
    assert "evaluation/report.html" in names


@pytest.mark.slow
def test_after_a_gate_that_failed_nothing_follows(home, parts) -> None:
    result = run(home, parts, maximum_latency_p95_ms=0.001)
    assert not result.success
    (check,) = result.get_asset_check_evaluations()
    assert not check.passed
    assert check.description.startswith("FAIL: latency/p95: ")
    assert result.asset_materializations_for_node("eval_report")
    assert not result.asset_materializations_for_node("downstream")


@pytest.mark.slow
def test_the_champion_is_the_ledgers(home, parts) -> None:
    bundle = measure(home, parts).bundle
    home.ledger.append(Decision("k", PROMOTED, "first", Workspace().model, 1, bundle, {}))
    result = run(home, parts)
    assert result.success
    (made,) = result.asset_materializations_for_node("eval_report")
    assert made.metadata["champion"].value == bundle.digest
    assert made.metadata["exact_match_champion"].value > 0.9


def test_the_asset_is_described() -> None:
    spec, judged = (spec for asset in defs.assets for spec in asset.specs)
    assert {dep.asset_key.path[-1] for dep in judged.deps} == {"eval_report"}
    assert spec.group_name == "evaluation"
    assert spec.owners
    assert spec.kinds
    assert spec.code_version
    assert len(spec.description) > 80
    assert {dep.asset_key.path[-1] for dep in spec.deps} == {
        "dataset_splits",
        "base_model",
        "lora_adapter",
    }
