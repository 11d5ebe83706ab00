"""A release as people and machines are shown it: one line, one JSON object, a table of steps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlops_assets.artifacts import SHORT, ArtifactStore
from mlops_assets.ledger import CANARY, ROLLED_BACK, SHADOW, LedgerEntry
from mlops_assets.release_state import STEPS, WAITING, ReleaseState

RECENT = 10
SECONDS = len("2026-11-22T10:00:00")
SHADOW_REPORT = "shadow_report"
"""Kind of the artifact, which is also its name in the evidence of the row that ends a shadow."""
SHADOW_PAGE = "report.html"
STEP_COLUMNS = {"entry": "int", "at_utc": "string", "step": "string", "reason": "string"}
"""Columns of ``step_rows`` and what they hold."""
CRITERION_COLUMNS = {"criterion": "string", "verdict": "string", "detail": "string"}
"""Columns of ``criterion_rows``."""
SPLIT_COLUMNS = {"version": "int", "role": "string", "percent": "int", "bundle": "string"}
"""Columns of ``split_rows``."""


def release_line(release: ReleaseState) -> str:
    """Who gets what, in a sentence."""
    stable, candidate = release.stable, release.candidate
    if stable is None:
        return "nothing yet"
    served = f"version {stable.decision.version} to all users"
    if candidate is None:
        if release.stage == WAITING:
            return f"version {stable.decision.version} waits for a gateway (`mlops serve`)"
        ended = ", after a rollback" if release.stage == ROLLED_BACK else ""
        return f"{served} since {release.since}{ended}"
    name = f"version {candidate.decision.version}"
    if release.stage == SHADOW:
        return f"{served}; {name} sees copies of requests (shadow) since {release.since}"
    if release.stage == CANARY:
        rest = f"version {stable.decision.version} to {100 - release.percent}% of users"
        return f"{rest}, {name} to {release.percent}% (canary) since {release.since}"
    return f"{served}; {name} waits for a gateway (`mlops serve`)"


def release_json(release: ReleaseState) -> dict[str, Any]:
    """The state for machines; the keys are a contract (see docs/status.md)."""
    return {
        "stage": release.stage or None,
        "percent": release.percent,
        "since": release.since or None,
        "stable": _named(release.stable),
        "candidate": _named(release.candidate),
        "previous": _named(release.previous),
        "rollback_restores": release.restores.decision.version if release.restores else None,
    }


def recent_steps(entries: Sequence[LedgerEntry], model: str) -> list[dict[str, Any]]:
    """The last rows of the model's release, oldest first."""
    steps = [row for row in entries if _is_step(row, model)]
    return [
        {
            "entry": row.entry,
            "at": row.at,
            "outcome": row.decision.outcome,
            "version": row.decision.version,
            "percent": _percent(row),
            "reason": row.decision.reason,
        }
        for row in steps[-RECENT:]
    ]


def step_rows(entries: Sequence[LedgerEntry], model: str) -> list[dict[str, Any]]:
    """``recent_steps`` in as few columns as leave room for the reasons."""
    return [
        {
            "entry": step["entry"],
            "at_utc": step["at"][:SECONDS].replace("T", " "),
            "step": f"{step['outcome']}: version {step['version']}, {step['percent']}%",
            "reason": step["reason"],
        }
        for step in recent_steps(entries, model)
    ]


def criterion_rows(entries: Sequence[LedgerEntry], model: str) -> list[dict[str, str]]:
    """What decided on the last step that was decided by numbers."""
    for row in reversed(entries):
        verdict = row.decision.evidence.get("verdict")
        if _is_step(row, model) and isinstance(verdict, dict):
            return [
                {
                    "criterion": str(each.get("name")),
                    "verdict": str(each.get("verdict")),
                    "detail": str(each.get("detail")),
                }
                for each in verdict.get("criteria", [])
            ]
    return []


def shadow_page(store: ArtifactStore, entries: Sequence[LedgerEntry], model: str) -> Path | None:
    """The page about the last shadow that ended; None where there is none, or it was pruned."""
    for row in reversed(entries):
        named = row.decision.evidence.get(SHADOW_REPORT)
        if _is_step(row, model) and isinstance(named, dict):
            found = store.find(SHADOW_REPORT, str(named["key"])) if "key" in named else None
            return store.path(found) / SHADOW_PAGE if found else None
    return None


def split_rows(release: ReleaseState) -> list[dict[str, str | int]]:
    """Who answers which share of the users."""
    waits = release.candidate is None and release.stage == WAITING
    roles = (
        (release.stable, "stable", 0 if waits else 100 - release.percent),
        (release.candidate, "candidate", release.percent),
        (release.previous, "previous, warm for a rollback", 0),
    )
    return [
        {
            "version": row.decision.version,
            "role": role,
            "percent": percent,
            "bundle": row.decision.bundle.digest[:SHORT],
        }
        for row, role, percent in roles
        if row is not None
    ]


def _is_step(row: LedgerEntry, model: str) -> bool:
    return row.decision.model == model and row.decision.outcome in STEPS


def _percent(row: LedgerEntry) -> int:
    """Of the users, who get the row's version from then on."""
    if row.decision.outcome == CANARY:
        percent = row.decision.evidence.get("percent")
        return percent if isinstance(percent, int) else 0
    return 0 if row.decision.outcome == SHADOW else 100


def _named(row: LedgerEntry | None) -> Mapping[str, Any] | None:
    if row is None:
        return None
    decided = row.decision
    return {
        "version": decided.version,
        "bundle": decided.bundle.digest,
        "ledger_entry": row.entry,
        "promoted_at": row.at,
    }
