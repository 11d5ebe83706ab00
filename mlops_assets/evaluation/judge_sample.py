"""Which requests are judged, and what every system answered to them."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlops_assets.evaluation.spec import EvaluationSpec
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
