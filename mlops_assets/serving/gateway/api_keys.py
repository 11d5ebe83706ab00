"""API keys: random, shown once, and kept as hashes.

A key is ``mlops-ID-SECRET``: the ID finds it in the file, the secret has 256 random bits, so one
round of SHA-256 is all the hashing that it needs. The file is private to its owner and is read
again whenever it changes: a revoked key is refused at the next request.
"""

import hashlib
import hmac
import logging
import os
import re
import secrets
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from mlops_assets.artifacts import LineageError, atomic_write
from mlops_assets.file_lock import exclusive_lock

logger = logging.getLogger(__name__)

CHAT, FEEDBACK, METRICS, ADMIN = "chat", "feedback", "metrics", "admin"
SCOPES = (CHAT, FEEDBACK, METRICS, ADMIN)
PREFIX = "mlops"
NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"
LONGEST = 200  # characters of what a caller sends as its key
MOST_KEYS = 1_000  # they are labels of metrics
REMEDY = "Make one with `mlops gateway-keys new NAME`."


class ApiKey(BaseModel):
    """A key as the file holds it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern="^[0-9a-f]{12}$", description="Public part, which finds the key.")
    name: str = Field(pattern=NAME, description="The tenant: whom logs and budgets name.")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="Hash of the whole key.")
    scopes: frozenset[str] = Field(description="What it may be used for.")
    created: AwareDatetime = Field(description="When it was made.")
    expires: AwareDatetime | None = Field(None, description="From when it is refused.")
    revoked: AwareDatetime | None = Field(None, description="Since when it is refused.")
    requests_per_minute: int | None = Field(
        None, ge=1, le=1_000_000, description="Requests in a minute; none: no limit."
    )
    tokens_per_minute: int | None = Field(
        None, ge=1, le=1_000_000_000, description="Tokens in a minute; none: no limit."
    )

    def state(self, now: datetime) -> str:
        """``valid``, ``revoked`` or ``expired``."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "valid"


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    keys: tuple[ApiKey, ...] = Field((), max_length=MOST_KEYS)


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """Every key of the file, revoked ones too. Raises LineageError when it cannot be read."""
    try:
        return _File.model_validate_json(path.read_bytes()).keys
    except FileNotFoundError:
        return ()
    except (OSError, ValidationError) as error:
        raise LineageError(
            f"The file of API keys {path} cannot be read ({type(error).__name__}).",
            "Bring it back from a backup, or delete it and make new keys.",
        ) from None  # the error's text holds the hashes


def new_key(
    path: Path,
    name: str,
    scopes: Sequence[str],
    *,
    days: float | None = None,
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
) -> tuple[ApiKey, str]:
    """Make a key; returns what is kept, and the key itself, which nobody can show again.

    Raises LineageError for a name or scope that is none, or a name that is in use.
    """
    if not re.fullmatch(NAME, name):
        raise LineageError(
            f"{name!r} is no name of a key.",
            "Use lower-case letters, digits, `.`, `_` and `-`, 64 at most.",
        )
    if not scopes or not set(scopes) <= set(SCOPES):
        raise LineageError(
            f"A key's scopes are some of {', '.join(SCOPES)}.", "Give one or more by --scope."
        )
    now = datetime.now(UTC)
    identity = secrets.token_hex(6)
    token = f"{PREFIX}-{identity}-{secrets.token_urlsafe(32)}"
    key = ApiKey(
        id=identity,
        name=name,
        sha256=_hash(token),
        scopes=frozenset(scopes),
        created=now,
        expires=None if days is None else now + timedelta(days=days),
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
    )
    with _changing(path):
        known = read_keys(path)
        if any(each.name == name and each.state(now) == "valid" for each in known):
            raise LineageError(
                f"There is a key called {name} already.",
                f"Choose another name, or revoke it first: mlops gateway-keys revoke {name}",
            )
        _write(path, (*known, key))
    return key, token


def revoke(path: Path, name: str) -> int:
    """Revoke the valid keys of this name or id; returns how many.

    Raises LineageError when there is none.
    """
    now = datetime.now(UTC)
    with _changing(path):
        known = read_keys(path)
        hit = [key for key in known if name in (key.name, key.id) and key.state(now) == "valid"]
        if not hit:
            raise LineageError(
                f"There is no valid key called {name}.", "`mlops gateway-keys list` shows them."
            )
        _write(
            path,
            [key.model_copy(update={"revoked": now}) if key in hit else key for key in known],
        )
    return len(hit)


class KeyRing:
    """The keys as the running gateway knows them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version: tuple[int, int, int] | None = None
        self._keys: dict[str, ApiKey] = {}

    def find(self, token: str) -> ApiKey | None:
        """The valid key that this is, or None. Reads the file again if it changed."""
        self.refresh()
        parts = token.split("-", 2)
        if len(token) > LONGEST or len(parts) != 3 or parts[0] != PREFIX:
            return None
        key = self._keys.get(parts[1])
        if key is None or not hmac.compare_digest(key.sha256, _hash(token)):
            return None
        return key if key.state(datetime.now(UTC)) == "valid" else None

    def states(self) -> list[dict[str, str]]:
        """Name, id and state of every key."""
        self.refresh()
        now = datetime.now(UTC)
        keys = self._keys.values()
        return [{"name": key.name, "id": key.id, "state": key.state(now)} for key in keys]

    def refresh(self) -> None:
        """Follow the file. One that cannot be read changes nothing; one that is gone holds no
        key."""
        try:
            found = os.stat(self._path)
            # The time of a change of its mode or owner, too: it may be read then.
            version = (found.st_ctime_ns, found.st_ino, found.st_size)
        except OSError:
            version = None
        if version == self._version:
            return
        self._version = version
        try:
            self._keys = {key.id: key for key in read_keys(self._path)}
        except LineageError as error:
            logger.error("%s", error)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _changing(path: Path) -> AbstractContextManager[None]:
    """One change of the file at a time."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return exclusive_lock(path.with_suffix(".lock"))


def _write(path: Path, keys: Sequence[ApiKey]) -> None:
    if len(keys) > MOST_KEYS:
        raise LineageError(
            f"There are {MOST_KEYS:,} keys already.",
            f"Take revoked ones out of {path} by hand.",
        )
    with atomic_write(path) as temporary:
        temporary.touch(mode=0o600)
        temporary.write_text(_File(keys=tuple(keys)).model_dump_json(indent=2), encoding="utf-8")
