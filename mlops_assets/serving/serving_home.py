"""Where the serving state lies: ``MLOPS_HOME/serving``, private to its owner."""

import fcntl
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_assets.artifacts import LineageError, atomic_write
from mlops_assets.home import Home

SALT_BYTES = 32


@dataclass(frozen=True)
class ServingHome:
    """Paths below one directory."""

    root: Path

    @classmethod
    def of(cls, home: Home) -> "ServingHome":
        """The serving state of a home."""
        return cls(home.root / "serving")

    @property
    def keys(self) -> Path:
        """API keys, as hashes."""
        return self.root / "keys.json"

    @property
    def requests(self) -> Path:
        """Segments of the request log."""
        return self.root / "requests"

    @property
    def feedback(self) -> Path:
        """Segments of what users said of answers."""
        return self.root / "feedback"

    @property
    def first_key(self) -> Path:
        """The key that the first start makes, in the clear: for this machine's own commands."""
        return self.root / "default.key"

    @property
    def address_file(self) -> Path:
        """Where the running gateway listens."""
        return self.root / "gateway.json"

    def prepare(self) -> None:
        """Make the directory. Raises LineageError."""
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.root.chmod(0o700)
        except OSError as error:
            raise LineageError(
                f"The directory {self.root} cannot be made ({error.strerror}).",
                "Point MLOPS_HOME at a directory that you may write.",
            ) from error

    def salt(self) -> bytes:
        """What makes hashes of users this home's own. Made once; without it the log's users can
        no longer be told by their names."""
        path = self.root / "salt"
        self.prepare()
        if not path.exists():
            with atomic_write(path) as temporary:
                temporary.touch(mode=0o600)
                temporary.write_bytes(secrets.token_bytes(SALT_BYTES))
        salt = path.read_bytes()
        if len(salt) != SALT_BYTES:
            raise LineageError(
                f"{path} is not the salt that was written there.",
                "Bring it back from a backup; a new one makes every user a new user.",
            )
        return salt

    @contextmanager
    def only_gateway(self) -> Iterator[None]:
        """Hold the lock of the one gateway that a home may have. Raises LineageError."""
        self.prepare()
        lock = self.root / "gateway.lock"
        lock.touch(mode=0o600)
        with lock.open("a") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                url = (self.address() or {}).get("url", "an unknown address")
                raise LineageError(
                    f"A gateway of this home runs already, on {url}.",
                    "Stop it first, or serve another MLOPS_HOME.",
                ) from None
            yield

    def note_address(self, facts: dict[str, Any]) -> None:
        """Say where the gateway listens."""
        with atomic_write(self.address_file) as temporary:
            temporary.touch(mode=0o600)
            temporary.write_text(json.dumps(facts), encoding="utf-8")

    def address(self) -> dict[str, Any] | None:
        """What the last gateway said of itself; None without any. It may have stopped since."""
        try:
            facts = json.loads(self.address_file.read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return facts if isinstance(facts, dict) else None
