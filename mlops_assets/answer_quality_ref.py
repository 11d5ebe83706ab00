"""What the asset `answer_quality` hands to the drift report; see ``refs``."""

from dataclasses import dataclass

from mlops_assets.artifacts import Artifact


@dataclass(frozen=True)
class AnswerQualityRef:
    """``quality.json``, its page and its plot."""

    artifact: Artifact
    release: str
    """Digest of the bundle in force whose answers were measured; empty before the first."""
    requests: int
    """In the current window."""
