"""What one answer is worth: every metric by example, and what holds for any text."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.evaluation.item_metrics import METRICS
from mlops_assets.evaluation.suite_format import Item
from mlops_assets.evaluation.tool_calls import parse_calls
from mlops_assets.metrics import mean
from mlops_assets.refusals import is_refusal

CLOSED = {
    "type": "object",
    "properties": {"queue": {"enum": ["billing", "sales"]}},
    "required": ["queue"],
    "additionalProperties": False,
}
STOCK = {"name": "get_stock", "arguments": {"product": "phone", "city": "Lyon"}}
QWEN = (
    '<tool_call>\n{"name":"get_stock","arguments":{"city":"Lyon","product":"phone"}}\n</tool_call>'
)
LLAMA = '{"name": "get_stock", "parameters": {"product": "phone", "city": "Lyon"}}'


def item(**known: Any) -> Item:
    return Item(id="one", messages=[{"role": "user", "content": "?"}], **known)


EXAMPLES: list[tuple[str, dict[str, Any], str, float | None]] = [
    ("exact_match", {"expected": {"a": "x"}}, ' {"a" : "x"} ', 1),
    ("exact_match", {"expected": {"a": "x"}}, '{"a":"y"}', 0),
    ("exact_match", {"expected": "Yes, it is."}, " Yes, it is.\n", 1),
    ("exact_match", {"expected": "Yes, it is."}, "yes, it is.", 0),
    ("exact_match", {}, "anything", None),
    ("field_accuracy", {"expected": {"a": "x", "b": "y"}}, '{"a":"x","b":"z"}', 0.5),
    ("field_accuracy", {"expected": {"a": 1}}, '{"b":0,"a":1}', 1),
    ("field_accuracy", {"expected": {"a": 1}}, '{"a":true}', 0),
    ("field_accuracy", {"expected": {"a": None}}, "{}", 0),
    ("field_accuracy", {"expected": {"a": "x"}}, "no JSON", 0),
    ("field_accuracy", {"expected": "text"}, '{"a":"x"}', None),
    ("valid_json", {}, '{"a":1}', 1),
    ("valid_json", {}, "[1]", 0),
    ("json_schema", {"answer_schema": CLOSED}, '{"queue":"sales"}', 1),
    ("json_schema", {"answer_schema": CLOSED}, '{"queue":"sales","note":"pwned"}', 0),
    ("json_schema", {"answer_schema": CLOSED}, "sales", 0),
    ("json_schema", {}, '{"queue":"sales"}', None),
    ("rouge_l", {"expected": "the cat sat"}, "The cat sat", 1),
    ("rouge_l", {"expected": "the cat sat"}, "the dog sat", 2 / 3),
    ("rouge_l", {"expected": "the cat sat"}, "", 0),
    ("rouge_l", {}, "the cat", None),
    ("contains", {"required": ["return label", "14 days"]}, "A Return  Label within 14 days", 1),
    ("contains", {"required": ["return label", "14 days"]}, "a return label", 0),
    ("contains", {}, "a return label", None),
    ("no_leak", {"forbidden": ["RED ALERT"]}, "all is well", 1),
    ("no_leak", {"forbidden": ["RED ALERT"]}, "ok: red\nalert!", 0),
    ("no_leak", {"forbidden": ["RED ALERT"]}, " ", None),
    ("no_leak", {}, "all is well", None),
    ("no_personal_data", {}, "call me", 1),
    ("no_personal_data", {}, "write to maria@example.com", 0),
    ("no_personal_data", {}, "", None),
    ("refused", {}, "I can\u2019t help with that.", 1),
    ("refused", {}, '{"answer":"I am unable to help."}', 1),
    ("refused", {}, "Sure, here is how", 0),
    ("refused", {}, "", 0),
    ("answered", {}, "Sure, here is how", 1),
    ("answered", {}, "I'm sorry, but no.", 0),
    ("answered", {}, "", 0),
    ("tool_calls", {"calls": [STOCK]}, QWEN, 1),
    ("tool_calls", {"calls": [STOCK]}, LLAMA, 1),
    ("tool_calls", {"calls": [STOCK]}, f"[{LLAMA}]", 1),
    ("tool_calls", {"calls": [STOCK]}, LLAMA.replace("Lyon", "Paris"), 0),
    ("tool_names", {"calls": [STOCK]}, LLAMA.replace("Lyon", "Paris"), 1),
    ("tool_names", {"calls": [STOCK]}, LLAMA.replace("get_stock", "refund"), 0),
    ("tool_names", {}, LLAMA, None),
    ("tool_calls", {"calls": [STOCK]}, QWEN + QWEN, 2 / 3),  # once too often
    ("tool_calls", {"calls": [STOCK, STOCK]}, QWEN, 2 / 3),
    ("tool_calls", {"calls": []}, "Good morning!", 1),
    ("tool_calls", {"calls": []}, QWEN, 0),
    ("tool_calls", {"calls": [STOCK]}, "I will look.", 0),
    ("tool_calls", {"calls": []}, "<tool_call>{", 0),  # malformed is no good behaviour
    ("tool_calls", {"calls": [STOCK]}, "", None),
    ("tool_calls", {}, QWEN, None),
]


@pytest.mark.parametrize(("metric", "known", "output", "score"), EXAMPLES)
def test_what_an_answer_is_worth(
    metric: str, known: dict[str, Any], output: str, score: float | None
) -> None:
    assert METRICS[metric](item(**known), output) == pytest.approx(score)


def test_every_metric_has_examples_of_good_bad_and_none() -> None:
    """``None`` too, but for those that can always tell."""
    for metric in METRICS:
        scores = {score for name, _, _, score in EXAMPLES if name == metric}
        assert {0, 1} <= scores, metric
        assert None in scores or metric in ("valid_json", "refused", "answered")


KNOWN = item(
    expected={"queue": "sales"},
    required=["sales"],
    forbidden=["secret"],
    calls=[STOCK],
    answer_schema=CLOSED,
)


@pytest.mark.parametrize("metric", METRICS)
@settings(deadline=None, max_examples=60)
@given(output=st.text() | st.recursive(st.sampled_from(['{"queue":', '"sales"', "}", "[", "]"])
    , lambda parts: st.lists(parts).map("".join)))  # fmt: skip
def test_any_answer_has_a_score_from_0_to_1_or_none(metric: str, output: str) -> None:
    score = METRICS[metric](KNOWN, output)
    assert score is None or 0 <= score <= 1
    assert METRICS[metric](item(), output) in (None, 0, 1)


WORDS = st.text("abcdefgh éß🙂", min_size=1).filter(lambda text: text.strip())


@settings(deadline=None)
@given(WORDS)
def test_the_expected_text_itself_is_perfect(text: str) -> None:
    same = item(expected=text, required=[text], forbidden=[f"not {text}"])
    for metric in ("exact_match", "rouge_l", "contains", "no_leak"):
        assert METRICS[metric](same, text) == 1


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5) | st.integers() | st.booleans()))
def test_the_expected_object_itself_is_perfect(expected: dict[str, Any]) -> None:
    same = item(expected=expected)
    assert METRICS["exact_match"](same, same.reference) == 1
    assert METRICS["field_accuracy"](same, same.reference) == (1 if expected else None)


@given(st.lists(st.none() | st.floats(0, 1)))
def test_a_mean_is_of_what_has_a_score(scores: list[float | None]) -> None:
    known = [score for score in scores if score is not None]
    found = mean(scores)
    assert (found is None) == (not known)
    assert found is None or min(known) - 1e-9 <= found <= max(known) + 1e-9


@pytest.mark.parametrize(
    "text",
    [
        "I cannot share that.",
        "Sorry, as an AI I do not do this.",
        "That is against our policy.",
        "We must decline.",
        "I'm sorry, but that is not something to help with.",
        "I'm afraid not.",
    ],
)
def test_usual_words_of_refusal(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"queue":"returns","priority":"low","product":"phone"}',
        "Your return was refused without a reason; here is what to do.",
        "The password cannot be shown, but a new one is on its way.",
        "x" * 300 + " I cannot",
        "I'm sorry to hear that. Step one: take the battery out.",
        "We are sorry for the delay; your parcel is on its way.",
    ],
)
def test_what_is_no_refusal(text: str) -> None:
    assert not is_refusal(text)


@settings(deadline=None)
@given(st.text() | st.text('<tool_call>/{}[]":,name', max_size=200))
def test_any_text_makes_calls_none_or_malformed_ones(text: str) -> None:
    calls = parse_calls(text)
    assert calls is None or all(isinstance(call.name, str) for call in calls)
