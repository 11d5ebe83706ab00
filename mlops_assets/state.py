"""The state of a home, gathered from refs, reports and ledger: what ``mlops status`` shows."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mlops_assets.approval_requests import Standing, latest_request, utc_now, ways_to_approve
from mlops_assets.approval_standing import pending, standing
from mlops_assets.approvers import Approvers, read_approvers
from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home
from mlops_assets.ledger import LedgerEntry, last_champion
from mlops_assets.monitoring_refs import DriftReportRef
from mlops_assets.refs import (
    EvalReportRef,
    RegisteredModelRef,
    ReleaseBundle,
    SplitsRef,
    ValidatedRef,
)
from mlops_assets.release_check import find_void
from mlops_assets.release_state import ReleaseState, read_release
from mlops_assets.release_view import recent_steps, release_json, shadow_page
from mlops_assets.retraining_notes import LastRetraining, Note, read_notes
from mlops_assets.statements import stamp


@dataclass(frozen=True)
class State:
    """The latest product of every stage; None before its first run."""

    home: Home
    validated: ValidatedRef | None
    splits: SplitsRef | None
    evaluated: EvalReportRef | None
    report: Mapping[str, Any] | None
    """``report.json``, read after its digests were verified."""
    registered: RegisteredModelRef | None
    approval: Standing | None
    """The latest request for the registered version, if anybody was asked about it."""
    pending: tuple[Standing, ...]
    """Every request of the home that waits for somebody, oldest first."""
    approvers: Approvers
    drift: DriftReportRef | None
    champion: LedgerEntry | None
    void: str | None
    """What of the champion is not what was approved; None if all is."""
    release: ReleaseState
    steps: tuple[Mapping[str, Any], ...]
    """The last rows of the release, oldest first."""
    shadow_page: Path | None
    """The page about the last shadow that ended."""
    ledger_entries: int
    retraining: tuple[Note, ...]
    """What the sensors that start retrainings said when they last looked."""

    @property
    def last_retraining(self) -> LastRetraining | None:
        """The latest one that started by itself."""
        newest = max(self.retraining, key=lambda note: note.at, default=None)
        return newest.last if newest else None

    def as_json(self) -> dict[str, Any]:
        """The machine's view; the keys are a contract (see docs/status.md)."""
        return {
            "champion": self.champion and _champion(self.champion) | {"void": self.void},
            "candidate": self.registered and _candidate(self.registered),
            "release": release_json(self.release) | {"decisions": list(self.steps)},
            "last_report": self.report and self._last_report(self.report),
            "quarantine": self.validated and _quarantine(self.validated),
            "drift": self.drift and _drift(self.drift),
            "retraining": {
                "last": self.last_retraining and asdict(self.last_retraining),
                "sensors": {n.sensor: {"at": n.at, "said": n.said} for n in self.retraining},
            },
            "pending_approvals": [_pending(found, self.approvers) for found in self.pending],
            "ledger_entries": self.ledger_entries,
        }

    def _last_report(self, report: Mapping[str, Any]) -> dict[str, Any]:
        scores = ("exact_match", "valid_json", "items", "slices", "fields")
        shown = (*scores, "candidate", "champion", "versions")
        return {key: report.get(key) for key in shown} | {"path": str(self.report_page)}

    @property
    def report_page(self) -> Path | None:
        """The eval report's HTML page."""
        return self._directory(self.evaluated) / "report.html" if self.evaluated else None

    @property
    def drift_page(self) -> Path | None:
        """The drift report's page."""
        page = self._directory(self.drift) / "drift.html" if self.drift else None
        return page if page and page.is_file() else None

    @property
    def quarantine_file(self) -> Path | None:
        """The rows that were refused, with line and reason."""
        return self._directory(self.validated) / "quarantine.jsonl" if self.validated else None

    def _directory(self, ref: EvalReportRef | DriftReportRef | ValidatedRef) -> Path:
        return self.home.store.root / ref.artifact.kind / ref.artifact.key


def read_state(home: Home) -> State:
    """Gather the state. Raises LineageError when a report was changed after it was written."""
    evaluated = _latest(home, "eval_report", EvalReportRef)
    registered = _latest(home, "registered_model", RegisteredModelRef)
    entries, approvers = home.ledger.entries(), read_approvers(home)
    champion = last_champion(entries, registered.name if registered else None)
    model = champion.decision.model if champion else ""
    now = utc_now()
    return State(
        home=home,
        validated=_latest(home, "validated_dataset", ValidatedRef),
        splits=_latest(home, "dataset_splits", SplitsRef),
        evaluated=evaluated,
        report=evaluated and _read_report(home, evaluated),
        registered=registered,
        approval=registered and _approval(entries, registered, approvers, now),
        pending=tuple(pending(entries, approvers, now)),
        approvers=approvers,
        drift=_latest(home, "drift_report", DriftReportRef),
        champion=champion,
        void=find_void(home, champion) if champion else None,
        release=read_release(entries, model),
        steps=tuple(recent_steps(entries, model)),
        shadow_page=shadow_page(home.store, entries, model),
        ledger_entries=len(entries),
        retraining=tuple(read_notes(home)),
    )


def _approval(
    entries: Sequence[LedgerEntry],
    registered: RegisteredModelRef,
    approvers: Approvers,
    now: datetime,
) -> Standing | None:
    try:
        request = latest_request(entries, registered.version, registered.name)
    except LineageError:
        return None
    return standing(entries, request, approvers, now)


def _latest(home: Home, asset: str, kind: type[Any]) -> Any:
    ref = home.latest(asset)
    return ref if isinstance(ref, kind) else None


def _read_report(home: Home, ref: EvalReportRef) -> Mapping[str, Any]:
    page = home.store.path(ref.artifact) / "report.json"
    report: Mapping[str, Any] = json.loads(page.read_bytes())
    return report


def _release(version: int, bundle: ReleaseBundle) -> dict[str, Any]:
    return {
        "version": version,
        "bundle": bundle.digest,
        "adapter": bundle.adapter.digest,
        "dataset": bundle.versions.data,
        "versions": asdict(bundle.versions),
    }


def _champion(entry: LedgerEntry) -> dict[str, Any]:
    release = _release(entry.decision.version, entry.decision.bundle)
    return release | {"since": entry.at, "ledger_entry": entry.entry}


def _pending(found: Standing, approvers: Approvers) -> dict[str, Any]:
    request, asked = found.request, found.request.entry.decision
    return {
        "model": asked.model,
        "version": asked.version,
        "bundle": asked.bundle.digest,
        "request": request.id,
        "requested_at": request.entry.at,
        "expires": stamp(request.terms.expires),
        "author": request.terms.author or None,
        "required_approvals": request.required,
        "approvals": [asdict(approval) for approval in found.approvals],
        "invalid": list(found.invalid),
        "reason": asked.reason,
        "criteria": list(request.terms.criteria),
        "gate": request.terms.gate,
        "report": request.terms.report,
        "approve_with": list(ways_to_approve(found, approvers)),
    }


def _candidate(ref: RegisteredModelRef) -> dict[str, Any]:
    return _release(ref.version, ref.bundle)


def _quarantine(ref: ValidatedRef) -> dict[str, Any]:
    total = sum(ref.quarantined.values())
    return {"total": total, "by_reason": dict(ref.quarantined), "rows_in": ref.rows_in}


def _drift(ref: DriftReportRef) -> dict[str, Any]:
    return {
        "verdict": ref.verdict,
        "layers": dict(ref.layers),
        "columns": list(ref.columns),
        "records": ref.records,
        "versions": asdict(ref.versions),
    }
