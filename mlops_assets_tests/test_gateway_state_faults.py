"""Ledger and registry cannot be reached, the disk is full under the log: serving goes on, or
refuses cleanly, and afterwards all is as the ledger says."""

import resource
import socket
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from mlops_assets.home import Home
from mlops_assets_tests.engine_server import EngineServer, serve_engine
from mlops_assets_tests.served_homes import approved_home, promote
from mlops_assets_tests.serving_client import find_breach
from mlops_assets_tests.serving_process import ServingProcess, hosted, serving
from mlops_assets_tests.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineServer]:
    with serve_engine() as engine:
        yield engine


@pytest.fixture(scope="module")
def gateway(
    engine: EngineServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServingProcess]:
    """A gateway whose registry was never there."""
    home = approved_home(tmp_path_factory.mktemp("state"))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nobody listens, and nobody else can begin to
        dead = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with serving(
            home,
            {"MLFLOW_TRACKING_URI": dead},
            gateway=hosted(engine),
        ) as gateway:
            yield gateway


@contextmanager
def locked(ledger: Path) -> Iterator[None]:
    """Another process writes, and does not come to an end."""
    with sqlite3.connect(ledger, isolation_level=None) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")
    connection.close()


@contextmanager
def replaced(ledger: Path, by: Callable[[Path], object]) -> Iterator[None]:
    aside = ledger.with_name("aside.db")
    ledger.rename(aside)
    by(ledger)
    yield
    aside.rename(ledger)


def corrupt(ledger: Path) -> AbstractContextManager[None]:
    """Other bytes in its place."""
    return replaced(ledger, lambda path: path.write_bytes(bytes(range(256)) * 64))


def without_rows(ledger: Path) -> AbstractContextManager[None]:
    """An empty file is an SQLite database; so is what a volume that is not mounted leaves."""
    return replaced(ledger, Path.touch)


@pytest.mark.parametrize("outage", [locked, corrupt, without_rows])
def test_without_its_ledger_it_serves_what_it_knew(
    gateway: ServingProcess, outage: Callable[[Path], AbstractContextManager[None]]
) -> None:
    ledger = gateway.home.root / "ledger.db"
    before = gateway.health()[1]["release"]
    with outage(ledger):
        wait_until(lambda: not gateway.reads_ledger(), "a word on the ledger")
        answers = gateway.ask(*(f"number {i}" for i in range(4)))
        assert [find_breach(one) for one in answers] == [None] * 4
        assert all(one.acknowledged for one in answers)
        assert gateway.health()[1]["release"] == before
    wait_until(lambda: gateway.reads_ledger(), "the ledger's return")
    assert gateway.unlogged(answers) == []


def test_a_log_that_may_not_grow_costs_clean_errors(gateway: ServingProcess) -> None:
    """The kernel takes a part of a record and refuses the rest (EFBIG)."""
    log = gateway.log_bytes()
    _, hard = resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (log + 200, hard))
    try:
        refused = [
            *gateway.ask("one", "two"),
            *gateway.ask("three", "four", stream=True),
        ]
    finally:
        resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    assert [find_breach(one) for one in refused] == [None] * 4
    assert not any(one.acknowledged for one in refused)
    assert gateway.log_bytes() == log, "no half record stays"
    (answer,) = gateway.ask("five")
    assert answer.acknowledged
    assert gateway.unlogged([answer]) == []


def may_mount() -> bool:
    """Whether this machine lets anybody make a file system in a namespace of their own."""
    words = [*IN_NAMESPACE, "mount -t tmpfs tmpfs /mnt"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


IN_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
SMALL_DISK = 'mount -t tmpfs -o size=64k,mode=700 tmpfs "$0" && exec "$@"'


@pytest.mark.skipif(not may_mount(), reason="this machine allows no user namespaces")
def test_a_full_disk_under_the_log(home: Home, engine: EngineServer) -> None:
    """A real ENOSPC; once there is room again, answers come again."""
    promote(home, 1, "a")
    with ServingProcess(home, gateway=hosted(engine)) as gateway:
        gateway.log.mkdir(parents=True, mode=0o700)
        gateway.wrapper = (*IN_NAMESPACE, SMALL_DISK, str(gateway.log))
        gateway.start()
        gateway.log = Path(f"/proc/{gateway.process.pid}/root{gateway.log}")
        ballast = gateway.log / "ballast"
        ballast.write_bytes(b"\0" * 40_000)
        answers = [one for i in range(8) for one in gateway.ask(*(f"{i} {n}" for n in range(8)))]
        assert [find_breach(one) for one in answers] == [None] * len(answers)
        assert answers[0].acknowledged
        assert not answers[-1].acknowledged
        ballast.unlink()
        answers += gateway.ask("and now?")
        assert answers[-1].acknowledged
        assert gateway.unlogged(answers) == []


def test_started_without_its_ledger_it_serves_what_was_in_force(
    home: Home, engine: EngineServer
) -> None:
    """A Postgres that cannot be reached, from the first second on."""
    promote(home, 1, "a")
    with ServingProcess(home, gateway=hosted(engine)) as gateway:
        gateway.start()
        before = gateway.health()[1]["release"]
        gateway.kill()
        gateway.environment["MLOPS_LEDGER_URL"] = "postgresql://nobody:hush@127.0.0.1:9/none"
        gateway.start()
        (answer,) = gateway.ask("who answers?")
        assert answer.acknowledged
        assert gateway.health()[1]["release"] == before
        assert not gateway.reads_ledger()
        assert "hush" not in gateway.output.read_text()
