"""Makes rows of lessons, and says of every other lesson why it is none.

Here each lesson is looked at by itself: whether it says something that the model did not say,
whether request and answer have the form that validation asks of every row, and what is done with
personal data in them. The policy is that of the splits' own validation.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mlops_assets.metrics import parse_object
from mlops_assets.monitoring.feedback.echoes import same_answer
from mlops_assets.monitoring.feedback.lessons import CORRECTION, Lesson
from mlops_assets.near_duplicates import normalised
from mlops_assets.privacy import Detector
from mlops_assets.refs import Message, SplitsRef

REASONS = {
    "taken_back": "the same person said something else of it later",
    "excluded": "the settings exclude this person or request",
    "unknown_request": "the log holds no such answered request any more",
    "echo": "it repeats an answer of the model, which is no label",
    "earlier_answer": "the conversation holds an earlier answer, which may be the model's own",
    "bad_request": "the request is no question in text, or too long",
    "bad_answer": "the answer is empty, too long, or not a JSON object with the expected fields",
    "wrong_label": "a label is not in the vocabulary",
    "personal_data": "it holds personal data that the policy blocks",
    "contradicted": "two people give different answers to the same text",
    "confirmed": "a label agrees with the answer, so it is no case; its user's rows are cases",
    "duplicate_text": "an earlier lesson has the same text, ignoring case and spacing",
    "near_duplicate": "an earlier lesson has nearly the same text",
    "in_eval_set": "the text stands in the validation or test split or in a suite",
    "near_eval_set": "the text nearly stands there",
    "in_training": "the text stands in the train split, or nearly",
    "person_cap": "its person has too many rows, or too great a share of them",
    "tenant_cap": "its tenant has too great a share of all that is learnt, or held out",
}
"""Why a lesson is quarantined, and what that means."""

LONGEST_ANSWER = 32_768  # characters of a free text, as long as a correction may be
_LETTERS = str.maketrans("0123456789abcdef", "abcdefghijklmnop")


@dataclass(frozen=True)
class Draft:
    """A lesson on its way to be a row."""

    lesson: Lesson
    reason: str = ""
    """Why it is quarantined; empty as long as it is not."""
    prompt: tuple[Message, ...] = ()
    """The request, personal data taken out."""
    answer: str = ""
    """The same of the right answer; of JSON its canonical form."""
    case: bool = False
    """Whether it asks, instead of teaching."""

    @property
    def id(self) -> str:
        """Letters alone: nothing that looks for numbers or keys takes it for one."""
        said = f"{self.lesson.kind}\0{self.lesson.request}\0{self.lesson.person}"
        return f"feedback-{_letters(said)}"

    @property
    def group(self) -> str:
        """Who asked: rows of one group stay in one split."""
        return f"user-{_letters(self.lesson.user or self.lesson.person)}"

    @property
    def text(self) -> str:
        """By which it is found to be the same as another: the question, whatever the
        instructions before it."""
        return normalised(str(self.prompt[-1]["content"]))


@dataclass(frozen=True)
class Form:
    """What validation asks of every row."""

    labels: Mapping[str, Sequence[str]]
    most_characters: int
    detector: Detector = field(compare=False)

    @classmethod
    def of(cls, splits: SplitsRef) -> "Form":
        """As the splits' rows were validated."""
        said = splits.settings["validated_dataset"]
        detector = Detector(said["privacy"], said["ner_model"], said["phone_regions"])
        return cls(splits.labels, said["max_characters"], detector)


def screen(lesson: Lesson, form: Form, excluded: Collection[str], regression_share: float) -> Draft:
    """The lesson as a row, or the first reason that speaks against it."""
    if excluded and {lesson.person, lesson.tenant, lesson.user, lesson.request} & set(excluded):
        return Draft(lesson, "excluded")
    if not lesson.messages:
        return Draft(lesson, "unknown_request")
    answer, fault = _answer(lesson.answer, form.labels)
    repeated = _repeated(lesson, answer, form.labels)
    if lesson.kind == CORRECTION and any(repeated):
        return Draft(lesson, "echo")
    if reason := _fault_of_request(lesson.messages, form.most_characters):
        return Draft(lesson, reason)
    if fault:
        return Draft(lesson, fault)
    found: Counter[str] = Counter()
    prompt = [
        {"role": message["role"], "content": message["content"]} for message in lesson.messages
    ]
    clean = form.detector.scan_json(prompt, found), form.detector.scan_json(answer, found)
    slices = tuple((name, form.detector.scan_json(value, found)) for name, value in lesson.slices)
    lesson = replace(lesson, slices=slices)  # a field of the request may hold anything
    case = is_case(lesson, regression_share)
    reason = "personal_data" if form.detector.blocks(found) else ""
    if case and not reason and any(repeated[:1]):
        reason = "confirmed"
    return Draft(lesson, reason, tuple(clean[0]), clean[1], case)


def is_case(lesson: Lesson, share: float) -> bool:
    """Whether the lessons of who asked this are cases: by hash of the user, so always the same."""
    point = hashlib.sha256(f"case\0{lesson.user or lesson.person}".encode()).digest()[:8]
    return int.from_bytes(point, "big") / 2**64 < share


def _repeated(lesson: Lesson, answer: str, labels: Mapping[str, Sequence[str]]) -> list[bool]:
    """Of each answer of a model, whether the lesson repeats it: as it stands, or as a row's."""
    return [
        same_answer(lesson.answer, said)
        or bool(answer and same_answer(answer, _answer(said, labels)[0]))
        for said in lesson.answers
    ]


def _fault_of_request(messages: Sequence[Message], most: int) -> str:
    roles = [message.get("role") for message in messages]
    if "assistant" in roles or "tool" in roles:
        return "earlier_answer"
    texts = [message.get("content") for message in messages]
    if roles not in (["user"], ["system", "user"]) or any(len(m) > 2 for m in messages):
        return "bad_request"
    sound = all(isinstance(text, str) and 0 < len(text.strip()) <= most for text in texts)
    return "" if sound else "bad_request"


def _answer(given: str, labels: Mapping[str, Sequence[str]]) -> tuple[str, str]:
    """The answer in the form of the data's own, or why it is none.

    Nothing is filled in from the model's answer: an object that lacks a field is no answer. A
    bare label will do where there is one field.
    """
    if not labels:
        sound = 0 < len(given.strip()) <= LONGEST_ANSWER
        return given.strip(), "" if sound else "bad_answer"
    found = parse_object(given)
    if found is None and len(labels) == 1 and given.strip()[:1] not in ("{", "["):
        found = {next(iter(labels)): given.strip()}
    if found is None or found.keys() != labels.keys():
        return "", "bad_answer"
    if any(found[name] not in known for name, known in labels.items()):
        return "", "wrong_label"
    text = json.dumps({name: found[name] for name in labels}, ensure_ascii=False)
    return text, ""


def _letters(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16].translate(_LETTERS)
