"""What people are told of a gate: the criteria in short, the ones that did not pass first."""

from collections.abc import Sequence

from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home
from mlops_assets.refs import GateRef
from mlops_assets.verdicts import FAIL, INCONCLUSIVE, PASS, Criterion, Gate, read_gate
from mlops_assets.webhook import Message

ORDER = {FAIL: 0, INCONCLUSIVE: 1, PASS: 2}


def criterion_lines(criteria: Sequence[Criterion], problem: str = "") -> tuple[str, ...]:
    """One line for each criterion, failures first; before them why they cannot be trusted."""
    known = sorted(criteria, key=lambda each: ORDER.get(each.verdict, 0))
    lines = (f"{each.verdict} {each.name}: {each.detail}" for each in known)
    return (problem, *lines) if problem else tuple(lines)


def gate_of_run(home: Home, run_id: str) -> Gate | None:
    """The gate that this very run came to; None if it came to none that can be read."""
    try:
        ref = home.of_run("gate_verdict", run_id)
        return read_gate(home.store, ref) if isinstance(ref, GateRef) else None
    except LineageError:
        return None  # the run's own failure is told instead


def stopped_message(run: str, job: str, gate: Gate) -> Message:
    """The alert of a run that its gate ended: the criteria that did not pass, with numbers."""
    stopped = [each for each in gate.criteria if each.verdict != PASS]
    counts = {name: sum(each.verdict == name for each in gate.criteria) for name in ORDER}
    return Message(
        title=f"The gate of {job} says {gate.verdict}: nothing is promoted",
        facts=(
            ("Run", run[:8]),
            ("Candidate", gate.candidate[:12]),
            ("Against", gate.champion[:12] if gate.champion else "no champion yet"),
            ("Criteria", ", ".join(f"{count} {name}" for name, count in counts.items() if count)),
        ),
        details=criterion_lines(stopped),
    )
