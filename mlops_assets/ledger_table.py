"""The table behind the decision ledger: its columns, and how it came to be a chain."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from mlops_assets.artifacts import digest_json

_metadata = sa.MetaData()
DECISIONS = sa.Table(
    "decisions",
    _metadata,
    sa.Column("entry", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("at", sa.String, nullable=False),
    # What was asked: asking the same again finds the same row.
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
    # Both are null in rows from before there was a chain.
    sa.Column("previous", sa.String, nullable=True),
    sa.Column("hash", sa.String, nullable=True),
)
_CHAIN = sa.Index("decisions_chain", DECISIONS.c.previous, unique=True)
CHAIN_COLUMNS = ("previous", "hash")
_HASHED = tuple(name for name in DECISIONS.c.keys() if name not in ("entry", "hash"))  # noqa: SIM118


def columns(connection: sa.Connection) -> set[str]:
    """The columns of the table as it stands, none before the first row."""
    inspector = sa.inspect(connection)
    if not inspector.has_table(DECISIONS.name):
        return set()
    return {str(column["name"]) for column in inspector.get_columns(DECISIONS.name)}


def row_hash(row: Mapping[str, Any]) -> str:
    """SHA-256 over every column but the row's number, which the database gives."""
    return digest_json({name: row[name] for name in _HASHED})


def prepare(engine: sa.Engine) -> None:
    """Create the table, or give one from before there was a chain its columns."""
    _make_private(engine)
    try:
        with engine.begin() as connection:
            present = columns(connection)
            for name in CHAIN_COLUMNS:
                if present and name not in present:
                    adding = f"ALTER TABLE decisions ADD COLUMN {name} VARCHAR"
                    connection.execute(sa.text(adding))
            if present:
                _CHAIN.create(connection, checkfirst=True)
            _metadata.create_all(connection)
    except (sa.exc.OperationalError, sa.exc.ProgrammingError, sa.exc.IntegrityError):
        # Another process did the same at the same moment, or nothing works at all.
        with engine.connect() as connection:
            if not set(CHAIN_COLUMNS) <= columns(connection):
                raise


def _make_private(engine: sa.Engine) -> None:
    """An SQLite ledger is created readable and writable by its owner alone."""
    file = engine.url.database
    if engine.dialect.name == "sqlite" and file not in (None, "", ":memory:"):
        path = Path(file)
        path.touch(mode=0o600)
        path.chmod(0o600)
