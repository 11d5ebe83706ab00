"""What the rows of the train split are like, in tokens: what memory and time depend on."""

from dataclasses import dataclass

from mlops_assets.training.encoding import IGNORED, Encoded


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
    lengths = [len(ids) for ids in rows.input_ids]
    return Workload(
        tokens=sum(lengths),
        answers=sum(label != IGNORED for labels in rows.labels for label in labels),
        squares=sum(length**2 for length in lengths),
        longest=max(lengths),
    )
