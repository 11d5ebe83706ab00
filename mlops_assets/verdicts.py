"""The three verdicts, what a criterion of the gate is, and how a gate's artifact is read again.

A criterion passes, fails, or is inconclusive: a number that is missing, not finite or measured
on too few items decides nothing. Only a whole gate of passes is a pass. Evaluation writes the
gate; promotion, the `mlops` command and alerts read it, each time from the verified artifact.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mlops_assets.artifacts import Artifact, ArtifactStore, LineageError
from mlops_assets.refs import GateRef

PASS, FAIL, INCONCLUSIVE = "PASS", "FAIL", "INCONCLUSIVE"
GATE, SUMMARY, JUNIT = "gate.json", "summary.md", "junit.xml"
"""The files of a gate's artifact: for machines, for a pull request, for a CI service."""


@dataclass(frozen=True)
class Criterion:
    """One requirement on a candidate, its verdict, and the numbers that decided."""

    name: str
    """Stable and unique within a gate, such as ``floor/exact_match`` or ``slice/channel=chat``."""
    verdict: str
    """``PASS``, ``FAIL`` or ``INCONCLUSIVE``."""
    detail: str
    """The sentence for people: what was measured, against what."""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    """What decided: JSON values, the finite ones alone."""


@dataclass(frozen=True)
class Gate:
    """The content of ``gate.json``."""

    verdict: str
    candidate: str
    """Digest of the bundle that was judged."""
    report: str
    """Digest of the evaluation report that was read."""
    champion: str | None
    """Digest of the bundle it was compared with, if there was one."""
    criteria: tuple[Criterion, ...]
    spec: Mapping[str, Any]
    """The settings of the gate, all of them."""
    notes: tuple[str, ...] = ()
    """What people should know and what decides nothing."""


def overall(criteria: Iterable[Criterion]) -> str:
    """FAIL if any failed, else INCONCLUSIVE if any is or there is none, else PASS."""
    verdicts = {criterion.verdict for criterion in criteria}
    if FAIL in verdicts:
        return FAIL
    return PASS if verdicts == {PASS} else INCONCLUSIVE


def read_gate(store: ArtifactStore, ref: GateRef) -> Gate:
    """The gate that ``ref`` names, read again from its artifact.

    Raises LineageError when a byte of it was changed, when it does not add up to its verdict,
    or when it is of another candidate, report or champion than the ref says.
    """
    gate = load_gate(store, ref.artifact)
    said = (ref.verdict, ref.bundle.digest, ref.report.digest, ref.champion)
    if said != (gate.verdict, gate.candidate, gate.report, gate.champion):
        raise _unusable(ref.artifact, "is not the one that its reference describes")
    return gate


def load_gate(store: ArtifactStore, artifact: Artifact) -> Gate:
    """The gate in an artifact. Raises LineageError when a byte of it was changed, or when it does
    not add up to its verdict."""
    path = store.path(artifact) / GATE
    try:
        gate = TypeAdapter(Gate).validate_python(json.loads(path.read_bytes()))
    except (OSError, ValueError, ValidationError) as error:
        raise _unusable(artifact, "cannot be read") from error
    if gate.verdict != overall(gate.criteria):
        raise _unusable(artifact, "does not add up to its verdict")
    return gate


def _unusable(artifact: Artifact, why: str) -> LineageError:
    return LineageError(
        f"The gate's result {artifact.key[:12]} {why}.", "Materialise `gate_verdict` again."
    )
