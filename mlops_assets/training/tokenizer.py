"""The tokenizer of the tiny base model: byte-level BPE learnt on the train split's texts.

Notable choices where answers have labels, all for a small model's sake: text is lowercased, the
answer's fixed parts (``{"queue":``) and every label in its quotes (``"billing"``) are single
tokens, so an answer is a handful of tokens. A label's token keeps the quotes, so that the same
word in a customer's text stays an ordinary word. Answers in free text are learnt from like the
prompts, and nothing is lowercased: what is decoded must be able to equal the answer.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from mlops_assets.artifacts import LineageError
from mlops_assets.refs import Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, END, MASK = "<|pad|>", "<|end|>", "<|mask|>"
ROLES = ("system", "user", "assistant")
CHAT_TEMPLATE = (
    "{% if tools %}{{ '<|system|>' + (tools | tojson) + '<|end|>' }}{% endif %}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['tool_calls'] %}{{ message['tool_calls'] | tojson }}{% endif %}"
    "{{ '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train_tokenizer(
    rows: Sequence[Row], labels: Mapping[str, Sequence[str]], vocabulary: int
) -> "PreTrainedTokenizerFast":
    """Learn ``vocabulary`` BPE tokens from the texts of ``rows`` and add the answer's tokens.

    With ``labels`` the answers of ``rows`` are not read, but for the first one's fixed parts.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    if labels:
        core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(labels))
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=[PAD, END, MASK, *(f"<|{role}|>" for role in ROLES)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    if labels:
        core.train_from_iterator(prompt_texts(rows), trainer)
        core.add_tokens(_answer_tokens(rows[0], labels))
    else:
        core.train_from_iterator(chain(prompt_texts(rows), (row.answer for row in rows)), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=END,
        mask_token=MASK,
        chat_template=CHAT_TEMPLATE,
        model_max_length=1_000_000,
        clean_up_tokenization_spaces=False,
    )


def prompt_texts(rows: Iterable[Row]) -> Iterable[str]:
    """What users and the system say; never what is to be answered."""
    return (message["content"] for row in rows for message in row.prompt)


def label_literals(labels: Mapping[str, Sequence[str]]) -> list[str]:
    """Every label as JSON writes it, once."""
    values = (label for vocabulary in labels.values() for label in vocabulary)
    return list(dict.fromkeys(json.dumps(value, ensure_ascii=False) for value in values))


def answer_frame(row: Row, fields: Iterable[str]) -> list[str]:
    """The answer's fixed parts: before, between and after the values of ``fields``.

    Raises LineageError when the answer is not a JSON object with these fields in this order.
    """
    parts, rest = [], row.answer
    try:
        values = json.loads(rest)
        for name in fields:
            literal = json.dumps(values[name], ensure_ascii=False)
            before, found, rest = rest.partition(literal)
            if not found:
                raise ValueError(name)
            parts.append(before)
    except (ValueError, KeyError, TypeError) as error:
        raise LineageError(
            f"The answer of row {row.id} is not a JSON object of {', '.join(fields)}.",
            "Write answers as JSON with these fields in this order.",
        ) from error
    return [*parts, rest]


def _answer_tokens(row: Row, labels: Mapping[str, Sequence[str]]) -> list[object]:
    from tokenizers import AddedToken

    frame = [part for part in answer_frame(row, labels) if part]
    literals = label_literals(labels)
    return [AddedToken(text, normalized=False) for text in dict.fromkeys(frame + literals)]
