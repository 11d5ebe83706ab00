"""Whether the model was trained on the tokens that servers will give it.

Training writes down, by digest, which tokens it was given for some rows of every shape of
conversation. The check takes these rows as a client's request, renders them with a tokenizer
loaded from the released files, once through the code of `transformers serve` and once as text
that is tokenised afterwards, as vLLM does, and compares. It also wants the end of the turn to
be learnt: without it an answer never ends.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_assets.artifacts import ArtifactStore, LineageError, canonical_json, digest_json
from mlops_assets.prompts import EMPTY, system_text
from mlops_assets.refs import AdapterRef, Message, Row, SplitsRef, read_rows
from mlops_assets.template_messages import template_messages, with_system
from mlops_assets.training.encoding import Encoded, Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TRAINED_ON = "trained_on.json"
ROWS_PER_SHAPE = 50


@dataclass(frozen=True)
class Trained:
    """What one row was trained on; the tokens themselves would be the data once more."""

    prompt: str
    """Digest of the prompt's token ids, 64 hex digits."""
    conversation: str
    """Digest of the token ids of prompt and answer."""
    scored: int
    """Tokens with loss: the last ones."""

    @classmethod
    def of(cls, example: Example) -> "Trained":
        """What ``example`` comes to."""
        labels = example.labels
        scored = sum(label == token for label, token in zip(labels, example.input_ids, strict=True))
        return cls(digest_json(example.prompt), digest_json(example.input_ids), scored)


@dataclass(frozen=True)
class Mismatch:
    """A row whose tokens a server would render otherwise, or whose end is not learnt."""

    row: str
    problem: str


@dataclass(frozen=True)
class Fidelity:
    """What the check found."""

    rows: int
    mismatches: tuple[Mismatch, ...]

    @property
    def passed(self) -> bool:
        """Whether there were rows, and each was trained on as it will be served."""
        return bool(self.rows) and not self.mismatches

    def __str__(self) -> str:
        if self.mismatches:
            first = self.mismatches[0]
            return f"{len(self.mismatches)} of {self.rows} rows differ: {first.row} {first.problem}"
        return f"{self.rows} rows are trained on as they are served, and end their turn"


def record_trained(rows: Sequence[Row], encoded: Encoded, path: Path) -> None:
    """Write what up to 50 rows of every shape of conversation were trained on."""
    shapes: dict[object, int] = {}
    by_id = {row.id: row for row in rows}
    record = {}
    for example in encoded.examples:
        shape = _shape(by_id[example.row])
        shapes[shape] = shapes.get(shape, 0) + 1
        if shapes[shape] <= ROWS_PER_SHAPE:
            record[example.row] = asdict(Trained.of(example))
    path.write_bytes(canonical_json(record))


def check_fidelity(store: ArtifactStore, splits: SplitsRef, adapter: AdapterRef) -> Fidelity:
    """Compare what was trained on with what servers render of the released files.

    Raises LineageError when ``splits`` are not those that the adapter was trained on.
    """
    from transformers import AutoTokenizer

    base = store.path(adapter.base)
    recorded = json.loads((store.path(adapter.artifact) / TRAINED_ON).read_bytes())
    system = system_text(store, adapter.prompt or EMPTY)
    every = read_rows(store.path(splits.artifact) / "train.jsonl")
    rows = {row.id: with_system(system, row) for row in every if row.id in recorded}
    if len(rows) < len(recorded):
        raise LineageError(
            "The adapter was trained on other splits than these.",
            "Materialise `lora_adapter` again.",
        )
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    trained = {row: Trained(**fields) for row, fields in recorded.items()}
    return compare(tokenizer, stop_tokens(base, tokenizer), rows.values(), trained)


def compare(
    tokenizer: "PreTrainedTokenizerBase",
    stops: set[int],
    rows: Iterable[Row],
    trained: Mapping[str, Trained],
) -> Fidelity:
    """Compare what ``rows`` were trained on with what a server makes of them."""
    found = [(row.id, _problem(tokenizer, stops, row, trained[row.id])) for row in rows]
    return Fidelity(len(found), tuple(Mismatch(row, text) for row, text in found if text))


def stop_tokens(base: Path, tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    """The tokens at which servers stop: the generation configuration's and the tokenizer's."""
    from transformers import GenerationConfig

    stops: list[int | None] = [tokenizer.eos_token_id]
    if (base / "generation_config.json").is_file():
        configured = GenerationConfig.from_pretrained(base, local_files_only=True).eos_token_id
        stops += configured if isinstance(configured, list) else [configured]
    return {token for token in stops if token is not None}


def _shape(row: Row) -> object:
    calls = any(message.get("tool_calls") for message in row.messages)
    roles = frozenset(message["role"] for message in row.messages)
    return roles, len(row.messages) > 3, calls, bool(row.tools)


def _problem(
    tokenizer: "PreTrainedTokenizerBase", stops: set[int], row: Row, trained: Trained
) -> str:
    """What is wrong with the row, or nothing."""
    asked = _request(row.prompt, row.tools)
    prompt = _as_vllm(tokenizer, asked, generation=True)
    conversation = _as_vllm(tokenizer, _request(row.messages, row.tools), generation=False)
    if digest_json(prompt) != trained.prompt:
        return "was trained on another prompt than vLLM renders"
    if not _both_text_and_calls(row.prompt) and _as_transformers(tokenizer, asked) != prompt:
        return "was trained on another prompt than `transformers serve` renders"
    if digest_json(conversation) != trained.conversation:
        return "was trained on another answer than the chat template renders"
    if prompt[:2] == [tokenizer.bos_token_id] * 2:
        return "begins with two BOS tokens"
    if row.tools and _as_vllm(tokenizer, asked | {"tools": None}, generation=True) == prompt:
        return "has functions that the chat template does not show to the model"
    return _unlearnt(tokenizer, stops, conversation[len(conversation) - trained.scored :])


def _unlearnt(tokenizer: "PreTrainedTokenizerBase", stops: set[int], scored: list[int]) -> str:
    ends = [place for place, token in enumerate(scored) if token in stops]
    if not ends:
        return "has no end-of-turn token with loss at which servers stop"
    if ends[0] == 0:
        return "has an answer that the chat template leaves out"
    if str(tokenizer.decode(scored[ends[0] + 1 :])).strip():
        return "goes on after the token at which servers stop"
    return ""


def _request(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The body that an OpenAI client sends, as it arrives."""
    sent = {"messages": [dict(item) for item in messages], "tools": list(tools) or None}
    body: dict[str, Any] = json.loads(json.dumps(sent))
    return body


def _as_vllm(
    tokenizer: "PreTrainedTokenizerBase", request: Mapping[str, Any], *, generation: bool
) -> list[int]:
    """Token ids of a request, rendered to text and tokenised without special tokens."""
    text = tokenizer.apply_chat_template(
        template_messages(request["messages"]),
        tools=request["tools"],
        add_generation_prompt=generation,
        tokenize=False,
    )
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _as_transformers(tokenizer: "PreTrainedTokenizerBase", request: Mapping[str, Any]) -> list[int]:
    """Token ids of a request, by the very code of `transformers serve`."""
    from transformers.cli.serving.utils import BaseHandler, Modality

    messages = BaseHandler.get_processor_inputs_from_messages(request["messages"], Modality.LLM)
    rendered = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tools=request["tools"], return_dict=True
    )
    ids: list[int] = rendered["input_ids"]
    return ids


def _both_text_and_calls(messages: Sequence[Message]) -> bool:
    """Of such turns `transformers serve` drops the text; vLLM keeps it, and so do we."""
    return any(message.get("tool_calls") and message["content"] for message in messages)
