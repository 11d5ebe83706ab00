"""What the real system says of itself: the ledger, Dagster's runs, the latest refs, the gateway."""

import json
import os
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg

from mlops_assets.approval_requests import Standing, utc_now
from mlops_assets.approval_standing import pending
from mlops_assets.approvers import read_approvers
from mlops_assets.home import Home
from mlops_assets.ledger import LedgerEntry
from mlops_assets.release_state import STEPS, ReleaseState, read_release
from mlops_assets.retraining_notes import read_notes
from mlops_assets.serving.serving_home import ServingHome

TRIGGER, REASON = "mlops/trigger", "mlops/reason"
Ref = TypeVar("Ref")


class RealState:
    """Looked up anew each time; nothing is remembered."""

    def __init__(self, home: Home, model: str) -> None:
        self.home, self.model = home, model
        folder = str(home.root / "dagster")
        os.environ["DAGSTER_HOME"] = folder  # where our storage looks (mlops_assets.instance)
        self.instance = dg.DagsterInstance.from_config(folder)

    def ref(self, asset: str, kind: type[Ref]) -> Ref | None:
        """An asset's latest."""
        found = self.home.latest(asset)
        return found if isinstance(found, kind) else None

    def artifact(self, ref: Any) -> Path:
        """Where a ref's files lie."""
        return Path(self.home.store.root / ref.artifact.kind / ref.artifact.key)

    @property
    def entries(self) -> Sequence[LedgerEntry]:
        """The ledger's rows."""
        return self.home.ledger.entries()

    @property
    def release(self) -> ReleaseState:
        """What users are served."""
        return read_release(self.entries, self.model)

    @property
    def stable(self) -> int:
        """The version that users get; 0 before the first."""
        stable = self.release.stable
        return stable.decision.version if stable else 0

    def steps(self, after: int) -> list[LedgerEntry]:
        """Steps of releases behind this row."""
        return [r for r in self.entries if r.entry > after and r.decision.outcome in STEPS]

    def waiting(self) -> Standing | None:
        """The request that waits for a person."""
        found = pending(self.entries, read_approvers(self.home), utc_now())
        return found[-1] if found else None

    def runs(self, job: str, trigger: str) -> list[dg.DagsterRun]:
        """The job's runs that this trigger asked for, newest first."""
        wanted = dg.RunsFilter(job_name=job, tags={TRIGGER: trigger})
        return list(self.instance.get_runs(wanted))

    def said(self, sensor: str) -> str:
        """What a sensor said when it looked last."""
        return next((note.said for note in read_notes(self.home) if note.sensor == sensor), "")

    def gateway(self) -> dict[str, Any]:
        """What ``/health`` says; empty while nobody listens."""
        files = ServingHome.of(self.home)
        try:
            url = json.loads(files.address_file.read_bytes())["url"]
            with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:  # noqa: S310
                told: dict[str, Any] = json.loads(answer.read())
        except (OSError, ValueError):
            return {}
        return told | {"url": url}

    def tell(self) -> str:
        """Where everything stands, for an error."""
        release = self.release
        runs = [
            f"{run.job_name} ({run.tags.get(TRIGGER, 'by hand')}): {run.status.value}"
            for run in self.instance.get_runs(limit=5)
        ]
        return "\n".join(
            [
                f"Release: version {self.stable}, {release.stage} {release.percent}%",
                f"Gateway: {self.gateway().get('status', 'none')},"
                f" {self.gateway().get('verdict') or 'no verdict is due'}",
                f"Runs, newest first: {'; '.join(runs) or 'none'}",
                *(f"{note.sensor}: {note.said}" for note in read_notes(self.home)),
            ]
        )
