"""The decision ledger: what was promoted, kept or refused, and on what evidence.

Rows are only ever appended. The current champion is what the rows add up to; MLflow's
aliases are a projection of it. It stands beside the artifact store, not inside a stage,
because evaluation (what to compare with), promotion (what to append) and serving (what to
run) all read it. SQLite by default, any SQLAlchemy URL (Postgres) by configuration.
"""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter

from mlops_assets.artifacts import LineageError, canonical_json
from mlops_assets.refs import ReleaseBundle

PROMOTED, KEPT, NO_VERDICT = "promoted", "kept", "no_verdict"

_metadata = sa.MetaData()
_decisions = sa.Table(
    "decisions",
    _metadata,
    sa.Column("entry", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("at", sa.String, nullable=False),
    # One decision for each candidate, report and policy: deciding again finds the same row.
    sa.Column("key", sa.String, nullable=False, unique=True),
    sa.Column("outcome", sa.String, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("model", sa.String, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("bundle_digest", sa.String, nullable=False),
    sa.Column("bundle", sa.Text, nullable=False),
    sa.Column("evidence", sa.Text, nullable=False),
)


@dataclass(frozen=True)
class Decision:
    """A decision about to be written."""

    key: str
    outcome: str
    reason: str
    model: str
    version: int
    bundle: ReleaseBundle
    evidence: dict[str, Any]


@dataclass(frozen=True)
class LedgerEntry:
    """A decision as the ledger holds it."""

    entry: int
    at: str
    decision: Decision


class Ledger:
    """Append and replay decisions. Errors of the database are LineageErrors that name it."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url)

    def append(self, decision: Decision) -> LedgerEntry:
        """Append ``decision``; where its key is already in the ledger, return that row."""
        values = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "key": decision.key,
            "outcome": decision.outcome,
            "reason": decision.reason,
            "model": decision.model,
            "version": decision.version,
            "bundle_digest": decision.bundle.digest,
            "bundle": json.dumps(asdict(decision.bundle)),
            "evidence": canonical_json(decision.evidence).decode(),
        }
        try:
            with self._engine.begin() as connection:
                _metadata.create_all(connection)
                connection.execute(_decisions.insert().values(**values))
        except sa.exc.IntegrityError:
            pass  # the same decision was written before
        except sa.exc.SQLAlchemyError as error:
            raise self._unreachable(error) from error
        return next(row for row in self.entries() if row.decision.key == decision.key)

    def entries(self) -> list[LedgerEntry]:
        """Every row, oldest first."""
        try:
            with self._engine.connect() as connection:
                if not sa.inspect(connection).has_table(_decisions.name):
                    return []
                rows = connection.execute(sa.select(_decisions).order_by(_decisions.c.entry))
                return [_entry(row) for row in rows]
        except sa.exc.SQLAlchemyError as error:
            raise self._unreachable(error) from error

    def champion(self) -> LedgerEntry | None:
        """The last promotion, which is the release in force."""
        promoted = [row for row in self.entries() if row.decision.outcome == PROMOTED]
        return promoted[-1] if promoted else None

    def _unreachable(self, error: Exception) -> LineageError:
        # The URL may carry a password: SQLAlchemy's rendering hides it, the error's may not.
        return LineageError(
            f"The decision ledger {self._engine.url} cannot be used ({type(error).__name__}).",
            "Check that the database runs and that its disk has room, then run again.",
        )


def _entry(row: Any) -> LedgerEntry:
    bundle = TypeAdapter(ReleaseBundle).validate_json(row.bundle)
    decision = Decision(
        row.key,
        row.outcome,
        row.reason,
        row.model,
        row.version,
        bundle,
        json.loads(row.evidence),
    )
    return LedgerEntry(row.entry, row.at, decision)
