"""The decision ledger: every verdict, request, approval, promotion and step of a release, with
its evidence.

Rows are only ever appended. The current champion is what the rows add up to; MLflow's
aliases are a projection of it. It stands beside the artifact store, not inside a stage,
because evaluation (what to compare with), promotion (what to append) and serving (what to
run) all read it. SQLite by default, any SQLAlchemy URL (Postgres) by configuration.

Each row holds the hash of the row before it, so that a row that was changed, taken out or put
in breaks the chain (``ledger_audit``). No two rows may follow the same one: the database
refuses the second, and whoever wrote it tries again behind the first. So the chain never
forks, however many processes append.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter, ValidationError

from mlops_assets.artifacts import LineageError, canonical_json
from mlops_assets.ledger_table import CHAIN_COLUMNS, DECISIONS, columns, prepare, row_hash
from mlops_assets.refs import ReleaseBundle

PASSED, FAILED, INCONCLUSIVE = "passed", "failed", "inconclusive"
"""The gate's verdict on a candidate; its version is 0, nothing is registered yet."""
REQUESTED, APPROVED, REJECTED = "requested", "approved", "rejected"
"""What people are asked, and what each of them said."""
PROMOTED = "promoted"
SHADOW, CANARY, RELEASED, ROLLED_BACK = "shadow", "canary", "released", "rolled_back"
"""What the gateway does with what was promoted, step by step: see ``release_state``."""
CHAMPIONS = (PROMOTED, ROLLED_BACK)
"""Outcomes that name a champion: the one promoted, or the one that a rollback restores."""
KEPT, NO_VERDICT = "kept", "no_verdict"  # rows from before there was a gate with these verdicts

MEET_THE_NEW_CHAMPION = (
    "The sensor `champion_changed` has the newest candidate evaluated against the new champion;"
    " where no daemon runs, start the job `reevaluate`."
)
"""What follows for a candidate that lost to another."""

GENESIS = "0" * 64
"""What the first row names as the hash of the row before it."""
APPEND_ATTEMPTS = 50

_BUNDLE = TypeAdapter(ReleaseBundle)  # made once: making it takes longer than reading a row
_EVIDENCE = TypeAdapter(dict[str, Any])


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
    """Entry of the champion that a promotion replaces, 0 without any, or that a rollback undoes;
    None for every other outcome."""


@dataclass(frozen=True)
class LedgerEntry:
    """A decision as the ledger holds it."""

    entry: int
    at: str
    """ISO 8601 in UTC: when the ledger took it, whatever the row itself claims."""
    decision: Decision
    bundle_digest: str = ""
    """As written beside the bundle, whose own digest it must be."""
    previous: str | None = None
    """Hash of the row before; None in rows from before there was a chain."""
    hash: str | None = None
    """As written with the row."""
    computed: str = ""
    """Hash of what the row says now, after the rows before it; ``hash`` unless it was changed."""

    @property
    def chained(self) -> bool:
        """Whether the row was written as a part of the chain."""
        return self.hash is not None


class Overtaken(Exception):
    """Another row came in between: what was decided on the rows before it has to be looked at
    again."""


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

    def append(
        self, decision: Decision, at: datetime | None = None, after: LedgerEntry | None = None
    ) -> LedgerEntry:
        """Append ``decision``; where its key is already in the ledger, return that row.

        ``at`` is the time to write down, by default now. ``after`` is the last row that was read
        for this decision: raises Overtaken when it is not the last one any more. Raises
        LineageError when the champion that it replaces was replaced meanwhile.
        """
        values = _values(decision, at or datetime.now(UTC))
        try:
            prepare(self._engine)
            for _ in range(APPEND_ATTEMPTS):
                before = self._head()
                if (entry := self.find(decision.key)) is not None:
                    return entry
                if after is not None and before != (after.hash or after.computed):
                    raise Overtaken
                if not self._insert(values, before) and self._head() == before:
                    break  # not another row's haste: the database refuses this very one
        except (sa.exc.SQLAlchemyError, OSError) as error:
            raise self._unreachable(error) from error
        if (entry := self.find(decision.key)) is None:
            raise LineageError(
                f"The champion of {decision.model} changed while this candidate was judged.",
                MEET_THE_NEW_CHAMPION,
            )
        return entry

    def find(self, key: str) -> LedgerEntry | None:
        """The row with this key, or None."""
        return next((row for row in self.entries() if row.decision.key == key), None)

    def entries(self) -> list[LedgerEntry]:
        """Every row, oldest first."""
        return read_rows(self.rows())

    def champion(self, model: str | None = None) -> LedgerEntry | None:
        """The last promotion or rollback, of ``model`` or of any: the release in force."""
        return last_champion(self.entries(), model)

    def promotions(self, model: str | None = None) -> list[LedgerEntry]:
        """Every promotion, of ``model`` or of any, oldest first."""
        return [
            row
            for row in self.entries()
            if row.decision.outcome == PROMOTED and model in (None, row.decision.model)
        ]

    def tip(self) -> tuple[int, str | None] | None:
        """Number and hash of the last row, None before the first: whether there is something new
        costs one look."""
        try:
            with self._engine.connect() as connection:
                if not columns(connection):
                    return None
                chosen = (DECISIONS.c.entry, DECISIONS.c.hash)
                last = sa.select(*chosen).order_by(DECISIONS.c.entry.desc()).limit(1)
                found = connection.execute(last).first()
        except sa.exc.SQLAlchemyError as error:
            raise self._unreachable(error) from error
        return (found.entry, found.hash) if found else None

    def rows(self) -> list[dict[str, Any]]:
        """The table as it stands: JSON types, so that a copy of it is a ledger to be read too."""
        try:
            with self._engine.connect() as connection:
                if not (present := columns(connection)):
                    return []
                chosen = [column for column in DECISIONS.c if column.name in present]
                rows = connection.execute(sa.select(*chosen).order_by(DECISIONS.c.entry))
                return [dict.fromkeys(CHAIN_COLUMNS) | dict(row._mapping) for row in rows]
        except sa.exc.SQLAlchemyError as error:
            raise self._unreachable(error) from error

    def _head(self) -> str:
        """The hash that the next row follows."""
        entries = self.entries()
        return (entries[-1].hash or entries[-1].computed) if entries else GENESIS

    def _insert(self, values: Mapping[str, Any], previous: str) -> bool:
        """Whether the row was written; False when a constraint refuses it."""
        row = {**values, "previous": previous}
        try:
            with self._engine.begin() as connection:
                connection.execute(DECISIONS.insert().values(**row, hash=row_hash(row)))
        except sa.exc.IntegrityError:
            return False
        return True

    def _unreachable(self, error: Exception) -> LineageError:
        url = self._engine.url
        folder = Path(url.database or ".").parent
        if url.get_backend_name() == "sqlite" and not folder.is_dir():
            return LineageError(f"There is no {folder}.", "Run `make run`, or check MLOPS_HOME.")
        # The URL may carry a password: SQLAlchemy's rendering hides it, the error's may not.
        return LineageError(
            f"The decision ledger {self._engine.url} cannot be used ({type(error).__name__}).",
            "Check that the database runs and that its disk has room, then run again.",
        )


def last_champion(entries: Sequence[LedgerEntry], model: str | None = None) -> LedgerEntry | None:
    """The last of these rows that names a champion, of ``model`` or of any."""
    named = (
        row
        for row in reversed(entries)
        if row.decision.outcome in CHAMPIONS and model in (None, row.decision.model)
    )
    return next(named, None)


def read_rows(rows: Iterable[Mapping[str, Any]]) -> list[LedgerEntry]:
    """Rows of the table, or of a copy of it, every hash computed anew from what they say.

    Raises LineageError when one of them cannot be read.
    """
    found: list[LedgerEntry] = []
    previous = GENESIS
    for row in rows:
        found.append(_entry(row, previous))
        previous = found[-1].hash or found[-1].computed
    return found


def _values(decision: Decision, at: datetime) -> dict[str, Any]:
    return {
        "at": at.astimezone(UTC).isoformat(timespec="seconds"),
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


def _entry(row: Mapping[str, Any], previous: str) -> LedgerEntry:
    """``previous`` is the hash of the row before, as the table now has it."""
    try:
        content = json.loads(row["bundle"])
        if "versions" not in content:  # a row from before prompts and eval sets had versions
            content["versions"] = {"data": content["dataset"], "prompts": "", "eval_set": ""}
        bundle = _BUNDLE.validate_python(content)
        evidence = _EVIDENCE.validate_python(json.loads(row["evidence"]))
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise LineageError(
            f"Row {row['entry']} of the decision ledger cannot be read ({type(error).__name__}).",
            "It was changed by another hand: bring the ledger back from a backup.",
        ) from error
    decision = Decision(
        row["key"],
        row["outcome"],
        row["reason"],
        row["model"],
        row["version"],
        bundle,
        evidence,
        row["replaces"],
    )
    computed = row_hash({**row, "previous": row["previous"] or previous})
    return LedgerEntry(
        row["entry"],
        row["at"],
        decision,
        row["bundle_digest"],
        row["previous"],
        row["hash"],
        computed,
    )
