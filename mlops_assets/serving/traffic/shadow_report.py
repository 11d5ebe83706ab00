"""The report at the end of a shadow: both releases side by side, for people and for the ledger.

An artifact like any other, with the numbers as JSON and one HTML page that needs nothing beside
itself. Examples of what users wrote go through the detector of personal data first. Its language
tools take seconds to load and bring libraries that a gateway must not hold, so the gateway has the
report made in a process of its own.
"""

import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlops_assets.artifacts import Artifact, LineageError, Recipe, canonical_json
from mlops_assets.code_digest import code_digest
from mlops_assets.home import Home
from mlops_assets.html_pages import page_environment
from mlops_assets.ledger import LedgerEntry
from mlops_assets.privacy import redact
from mlops_assets.release_view import SHADOW_PAGE, SHADOW_REPORT
from mlops_assets.serving.rollout.rollout_progress import Arms
from mlops_assets.serving.traffic.shadow_comparison import agree, compare
from mlops_assets.serving.traffic.shadow_pairs import DIRECTORY, ShadowPair, Side, read_pairs

logger = logging.getLogger(__name__)

MODULE = "mlops_assets.serving.traffic.shadow_report"  # its name also when it is run
REPORT = "report.json"
TEMPLATE = "shadow_report.html.jinja"
EXAMPLES = 12
LONGEST = 420  # characters of an example
DEADLINE = 120.0  # seconds for a report that is made in a process of its own
NICENESS = 10  # users' requests go first
DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


def build(
    home: Home, stable: str, candidate: str, since: str, verdict: Mapping[str, Any]
) -> Artifact:
    """The report on the pairs of two releases since ``since`` (ISO 8601, UTC).

    ``verdict`` is what ended the shadow: action, reason and criteria.
    """
    found = read_pairs(home.root / "serving" / DIRECTORY, stable, candidate)
    pairs = [pair for pair in found if pair.timestamp >= since]
    content = hashlib.sha256()
    for pair in pairs:
        content.update(canonical_json(asdict(pair)))
    recipe = Recipe(
        kind=SHADOW_REPORT,
        inputs={"stable": stable, "candidate": candidate, "pairs": content.hexdigest()},
        spec={"verdict": dict(verdict), "examples": EXAMPLES},
        code_version=code_digest(MODULE),
    )

    def produce(directory: Path) -> dict[str, Any]:
        report = {
            "stable": stable,
            "candidate": candidate,
            "verdict": dict(verdict),
            **compare(pairs),
            "examples": examples(pairs),
        }
        (directory / REPORT).write_bytes(canonical_json(report))
        (directory / SHADOW_PAGE).write_text(render(report), encoding="utf-8")
        return {
            "pairs": len(pairs),
            "agreement": report["agreement"]["same"],
            "action": verdict.get("action"),
        }

    return home.store.build(recipe, produce)


def build_apart(
    home: Home, stable: str, candidate: str, since: str, verdict: Mapping[str, Any]
) -> dict[str, str]:
    """``build`` in a process of its own; returns kind, key and digest of the artifact.

    Raises LineageError when it fails or takes too long.
    """
    asked = canonical_json([str(home.root), stable, candidate, since, dict(verdict)])
    try:
        ended = subprocess.run(
            [sys.executable, "-m", MODULE],
            input=asked,
            capture_output=True,
            timeout=DEADLINE,
            check=True,
        )
        made: dict[str, str] = json.loads(ended.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        said = getattr(error, "stderr", None) or b""
        why = said.decode("utf-8", "replace").strip().splitlines()[-1:] or [str(error)]
        raise LineageError(
            f"The report of the shadow could not be made: {why[0]}.",
            "The pairs stay in serving/shadow; see that the disk has room.",
        ) from error
    return made


class ShadowReports:
    """Reports as evidence for the rows that end a shadow; each is made once."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._made: tuple[int, dict[str, Any]] = (0, {})

    def on(
        self, candidate: LedgerEntry, arms: Arms, since: str, verdict: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What names the report on this candidate's shadow. Raises nothing: a report that cannot
        be made holds no release up, and its place says why."""
        if self._made[0] != candidate.entry:
            told: dict[str, Any]
            try:
                told = dict(build_apart(self._home, arms.stable, arms.candidate, since, verdict))
            except LineageError as error:
                logger.error("%s", error)
                told = {"problem": error.problem}
            self._made = (candidate.entry, {SHADOW_REPORT: told})
        return self._made[1]


def examples(pairs: Sequence[ShadowPair]) -> list[dict[str, Any]]:
    """Pairs with different answers, spread over the whole time, without personal data."""
    different = [pair for pair in pairs if not agree(pair)]
    step = max(1, len(different) // EXAMPLES)
    return [
        {
            "id": pair.id,
            "question": _shown(pair.question),
            "live": _answer(pair.live),
            "shadow": _answer(pair.shadow),
        }
        for pair in different[::step][:EXAMPLES]
    ]


def render(report: Mapping[str, Any]) -> str:
    """The page's HTML."""
    filters = {"percent": percent, "points": points, "plain": plain, "milliseconds": milliseconds}
    environment = page_environment(Path(__file__).parent, filters)
    return environment.get_template(TEMPLATE).render(report=report)


def percent(value: float | None) -> str:
    """A share as ``84.1%``; a dash where there is none."""
    return DASH if value is None else f"{value:.1%}"


def points(value: float | None) -> str:
    """A difference of shares in percentage points, with its sign."""
    return DASH if value is None else f"{100 * value:+.1f}".replace("-", MINUS)


def plain(value: float | None) -> str:
    """A number with thousands separated."""
    return DASH if value is None else f"{value:,.0f}"


def milliseconds(value: float | None) -> str:
    """A time with as many digits as it deserves."""
    return DASH if value is None else f"{value:,.1f} ms" if value < 100 else f"{value:,.0f} ms"


def _answer(side: Side) -> dict[str, str]:
    if side.error:
        return {"text": "", "note": side.error}
    if side.tool_calls and not side.output:
        return {"text": "", "note": "calls tools"}
    return {"text": _shown(side.output), "note": "" if side.output.strip() else "empty"}


def _shown(text: str) -> str:
    clean, _ = redact(text)
    return clean if len(clean) <= LONGEST else clean[: LONGEST - 1] + "…"


def main() -> None:
    """Make the report that standard input asks for; its name goes to standard output."""
    os.nice(NICENESS)
    root, stable, candidate, since, verdict = json.load(sys.stdin)
    made = build(Home(Path(root)), stable, candidate, since, verdict)
    sys.stdout.write(json.dumps({"kind": made.kind, "key": made.key, "digest": made.digest}))


if __name__ == "__main__":
    main()
