"""API keys: what is kept of them, whom they let in, and how fast they are taken back."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import time_machine
from typer.testing import CliRunner

from mlops_assets.artifacts import LineageError
from mlops_assets.cli import app
from mlops_assets.home import Home
from mlops_assets.serving.gateway.api_keys import ADMIN, CHAT, KeyRing, new_key, read_keys, revoke
from mlops_assets.serving.serving_home import ServingHome
from mlops_assets_tests.waiting import wait_until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "serving" / "keys.json"


def test_the_file_holds_hashes_for_its_owner_alone(path: Path) -> None:
    key, token = new_key(path, "search-team", [CHAT], requests_per_minute=60)
    text = path.read_text()
    assert token not in text
    assert token.split("-", 2)[2] not in text
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert KeyRing(path).find(token) == key


@pytest.mark.parametrize("change", [lambda t: t[:-1], lambda t: t + "x", lambda t: t.swapcase()])
def test_a_key_that_is_nearly_right_is_none(path: Path, change: object) -> None:
    _, token = new_key(path, "search-team", [CHAT])
    assert KeyRing(path).find(change(token)) is None  # type: ignore[operator]


def test_a_ring_follows_the_file(path: Path) -> None:
    ring = KeyRing(path)
    _, token = new_key(path, "search-team", [CHAT])
    assert ring.find(token) is not None
    _, other = new_key(path, "help-team", [CHAT, ADMIN])
    assert ring.find(other) is not None
    revoke(path, "search-team")
    assert ring.find(token) is None
    assert ring.find(other) is not None
    path.write_text("{")
    assert ring.find(other) is not None, "a file that cannot be read changes nothing"
    path.unlink()
    assert ring.find(other) is None, "a file that is gone holds no key"


def test_a_file_that_can_be_read_again_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Revoked by somebody whose file is not ours to read: until its mode is put right."""
    ring = KeyRing(path)
    _, token = new_key(path, "search-team", [CHAT])
    assert ring.find(token) is not None
    with monkeypatch.context() as forbidden:
        forbidden.setattr(Path, "read_bytes", _forbidden)
        changed = json.loads(path.read_text())
        changed["keys"][0]["revoked"] = changed["keys"][0]["created"]
        path.write_text(json.dumps(changed))
        assert ring.find(token) is not None

    def is_revoked() -> bool:
        path.chmod(0o600)  # again and again: the kernel's clock of files goes by ticks
        return ring.find(token) is None

    wait_until(is_revoked, "the revocation")


def _forbidden(_: Path) -> bytes:
    raise PermissionError


def test_a_key_expires(path: Path) -> None:
    _, token = new_key(path, "visitor", [CHAT], days=1)
    ring = KeyRing(path)
    assert ring.find(token) is not None
    with time_machine.travel(datetime.now(UTC) + timedelta(days=1, seconds=1)):
        assert ring.find(token) is None
        new_key(path, "visitor", [CHAT])  # the name is free again


@pytest.mark.parametrize(
    ("name", "scopes", "says"),
    [
        ("Search Team", [CHAT], "is no name of a key"),
        ("search", ["root"], "scopes are some of"),
        ("search", [], "scopes are some of"),
        ("taken", [CHAT], "called taken already"),
    ],
)
def test_what_is_refused(path: Path, name: str, scopes: list[str], says: str) -> None:
    new_key(path, "taken", [CHAT])
    with pytest.raises(LineageError, match=says):
        new_key(path, name, scopes)
    assert len(read_keys(path)) == 1


def test_the_commands(home: Home) -> None:
    def run(*words: str) -> str:
        ended = CliRunner().invoke(app, ["gateway-keys", *words])
        assert ended.exit_code == 0, ended.output
        return ended.stdout

    token = run("new", "search", "--scope", "chat", "--scope", "admin", "--days", "7").strip()
    ring = KeyRing(ServingHome.of(home).keys)
    found = ring.find(token)
    assert found is not None
    assert found.scopes == {CHAT, ADMIN}
    listed = run("list")
    assert "search" in listed
    assert "valid" in listed
    assert token not in listed
    assert found.sha256 not in run("list", "--json")
    run("revoke", "search")
    assert ring.find(token) is None
    ended = CliRunner().invoke(app, ["gateway-keys", "revoke", "search"])
    assert ended.exit_code == 1
    assert "no valid key called search" in ended.output
