"""What asset checks said of artifacts, kept for those who decide in another run.

A blocking check stops the run it is part of, and no other. `no_leakage` and `template_fidelity`
therefore write down what they found, by the digest of what they looked at, and the gate asks
for it: bytes that nobody checked have no result. The last result of a check counts.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from mlops_assets.artifacts import Artifact, atomic_write, canonical_json, digest_json

NO_LEAKAGE, TEMPLATE_FIDELITY = "no_leakage", "template_fidelity"


@dataclass(frozen=True)
class CheckResult:
    """What a check found."""

    passed: bool
    detail: str
    """The sentence that the check's description shows."""


def adapter_on_base(base: Artifact, adapter: Artifact) -> str:
    """The digest under which `template_fidelity` is kept: the two together decide it."""
    return digest_json({"base": base.digest, "adapter": adapter.digest})


def record_check(checks: Path, name: str, digest: str, result: CheckResult) -> None:
    """Keep the result of the check ``name`` on what has ``digest``, in the directory ``checks``."""
    with atomic_write(_path(checks, name, digest)) as temporary:
        temporary.write_bytes(canonical_json(asdict(result)))


def find_check(checks: Path, name: str, digest: str) -> CheckResult | None:
    """The latest result, or None where none was kept that can be read."""
    try:
        content = json.loads(_path(checks, name, digest).read_bytes())
        result = CheckResult(**content)
    except (OSError, ValueError, TypeError):
        return None
    return result if isinstance(result.passed, bool) else None


def _path(checks: Path, name: str, digest: str) -> Path:
    return checks / name / f"{digest}.json"
