"""Which requests are judged, and what every system answered to them."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from mlops_assets.evaluation.judge_spec import is_loopback
from mlops_assets.evaluation.spec import EvaluationSpec
from mlops_assets.privacy import redact
from mlops_assets.refs import Message, Row

OURS, RIVAL = "tuned", "champion"

Key = tuple[str, str, str]
"""Suite, item and system, as in a record."""


@dataclass(frozen=True)
class Judged:
    """One request, and what each system answered to it."""

    suite: str
    item: str
    messages: Sequence[Message]
    """The conversation before the answer."""
    reference: str
    outputs: Mapping[str, str]
    """By system: the candidate's, and the champion's where it is another."""

    @property
    def keys(self) -> list[Key]:
        """The names of its answers."""
        return [(self.suite, self.item, system) for system in self.outputs]

    @property
    def request(self) -> str:
        """What the user said last; empty where no user speaks."""
        said = (item["content"] for item in reversed(self.messages) if item["role"] == "user")
        return str(next(said, ""))

    @property
    def contexts(self) -> list[str]:
        """What was retrieved for the answer: the results of the tools that were called before."""
        return [
            str(message["content"])
            for message in self.messages
            if message["role"] == "tool" and message.get("content")
        ]


def judged_rows(
    suite: str, rows: Sequence[Row], outputs: Mapping[str, Sequence[str]]
) -> list[Judged]:
    """The rows with the answers of the systems that are judged; ``outputs`` are by system."""
    return [
        Judged(
            suite,
            row.id,
            row.prompt,
            row.answer,
            {name: outputs[name][i] for name in (OURS, RIVAL) if name in outputs},
        )
        for i, row in enumerate(rows)
    ]


def draw_sample(items: Sequence[Judged], spec: EvaluationSpec) -> list[Judged]:
    """A seeded sample of at most ``judge_rows`` items, in their own order."""
    count = min(spec.judge_rows, len(items))
    chosen = sorted(random.Random(spec.seed).sample(range(len(items)), count))
    return [items[i] for i in chosen]


def fit_to_send(items: Sequence[Judged], spec: EvaluationSpec) -> list[Judged]:
    """The items as they may go to the judge: to another machine without personal data.

    Rows went through the policy of ``validated_dataset``; what a model wrote did not.
    """
    if is_loopback(urlsplit(spec.judge_url).hostname or ""):
        return list(items)
    return [
        replace(
            item,
            messages=[_redacted(message) for message in item.messages],
            reference=redact(item.reference)[0],
            outputs={system: redact(text)[0] for system, text in item.outputs.items()},
        )
        for item in items
    ]


def _redacted(message: Message) -> Message:
    """What of a message is sent: who speaks, the text, and the calls of tools."""
    sent = {"role": message["role"], "content": redact(str(message.get("content") or ""))[0]}
    if calls := message.get("tool_calls"):
        sent["tool_calls"] = redact(json.dumps(calls, ensure_ascii=False))[0]
    return sent
