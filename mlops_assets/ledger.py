"""The decision ledger: what was promoted, kept or refused, and on what evidence.

Rows are only ever appended. The current champion is what the rows add up to; MLflow's
aliases are a projection of it. It stands beside the artifact store, not inside a stage,
because evaluation (what to compare with), promotion (what to append) and serving (what to
run) all read it. SQLite by default, any SQLAlchemy URL (Postgres) by configuration.
"""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter

from mlops_assets.artifacts import LineageError, canonical_json
from mlops_assets.refs import ReleaseBundle

PROMOTED, KEPT, NO_VERDICT = "promoted", "kept", "no_verdict"
PASSED, FAILED, INCONCLUSIVE = "passed", "failed", "inconclusive"
"""What the gate said of a candidate: a row of version 0, because nothing is registered yet."""

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
    # The promotion that a promotion replaces, 0 for a model's first. Two processes that
    # decide at the same time cannot both replace the same champion: the database refuses
    # the second.
    sa.Column("replaces", sa.Integer, nullable=True),
    sa.UniqueConstraint("model", "replaces"),
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
    replaces: int | None = None
    """Entry of the champion that a promotion replaces, 0 without any; None if not promoted."""


@dataclass(frozen=True)
class LedgerEntry:
    """A decision as the ledger holds it."""

    entry: int
    at: str
    decision: Decision


class Ledger:
    """Append and replay decisions. Errors of the database are LineageErrors that name it."""

    def __init__(self, url: str) -> None:
        try:
            # Every reader makes its own ledger for a moment: keep no connection open.
            self._engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
        except (sa.exc.ArgumentError, ImportError) as error:
            raise LineageError(
                f"The decision ledger's URL cannot be used ({type(error).__name__}).",
                "Correct MLOPS_LEDGER_URL and install its driver (extra `postgres`).",
            ) from None

    def append(self, decision: Decision) -> LedgerEntry:
        """Append ``decision``; where its key is already in the ledger, return that row.

        Raises LineageError when the champion that it replaces was replaced meanwhile.
        """
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
            "replaces": decision.replaces,
        }
        try:
            self._make_private()
            with self._engine.begin() as connection:
                _metadata.create_all(connection)
                connection.execute(_decisions.insert().values(**values))
        except sa.exc.IntegrityError:
            pass  # the same decision was written before, or another one came first
        except (sa.exc.SQLAlchemyError, OSError) as error:
            raise self._unreachable(error) from error
        if (entry := self.find(decision.key)) is None:
            raise LineageError(
                f"The champion of {decision.model} changed while this candidate was judged.",
                "Run again: the evaluation will compare with the new champion.",
            )
        return entry

    def find(self, key: str) -> LedgerEntry | None:
        """The row with this key, or None."""
        return next((row for row in self.entries() if row.decision.key == key), None)

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

    def champion(self, model: str | None = None) -> LedgerEntry | None:
        """The last promotion, of ``model`` or of any: the release in force."""
        promoted = self.promotions(model)
        return promoted[-1] if promoted else None

    def promotions(self, model: str | None = None) -> list[LedgerEntry]:
        """Every promotion, of ``model`` or of any, oldest first."""
        return [
            row
            for row in self.entries()
            if row.decision.outcome == PROMOTED and model in (None, row.decision.model)
        ]

    def _make_private(self) -> None:
        """An SQLite ledger is created readable and writable by its owner alone."""
        file = self._engine.url.database
        if self._engine.dialect.name == "sqlite" and file not in (None, "", ":memory:"):
            path = Path(file)
            path.touch(mode=0o600)
            path.chmod(0o600)

    def _unreachable(self, error: Exception) -> LineageError:
        # The URL may carry a password: SQLAlchemy's rendering hides it, the error's may not.
        return LineageError(
            f"The decision ledger {self._engine.url} cannot be used ({type(error).__name__}).",
            "Check that the database runs and that its disk has room, then run again.",
        )


def _entry(row: Any) -> LedgerEntry:
    content = json.loads(row.bundle)
    if "versions" not in content:  # a row from before prompts and eval sets had versions
        content["versions"] = {"data": content["dataset"], "prompts": "", "eval_set": ""}
    bundle = TypeAdapter(ReleaseBundle).validate_python(content)
    decision = Decision(
        row.key,
        row.outcome,
        row.reason,
        row.model,
        row.version,
        bundle,
        json.loads(row.evidence),
        row.replaces,
    )
    return LedgerEntry(row.entry, row.at, decision)
