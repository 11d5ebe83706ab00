"""What the rows of the train split are like, in tokens: what memory and time depend on."""

from dataclasses import dataclass

from mlops_assets.training.encoding import Encoded


@dataclass(frozen=True)
class Workload:
    """One epoch; each answer of a preference pair counts as a sequence of its own."""

    tokens: int
    answers: int
    """Tokens that carry loss."""
    squares: int
    """Sum of the squared lengths: what attention costs."""
    longest: int
    """Tokens of the longest sequence."""


def workload_of(rows: Encoded) -> Workload:
    """The workload of encoded rows."""
    pairs = [
        (len(example.prompt), len(answer))
        for example in rows.examples
        for answer in (example.chosen, example.rejected)
        if answer is not None
    ]
    return Workload(
        tokens=sum(prompt + answer for prompt, answer in pairs),
        answers=sum(answer for _, answer in pairs),
        squares=sum((prompt + answer) ** 2 for prompt, answer in pairs),
        longest=max(prompt + answer for prompt, answer in pairs),
    )
