"""Nobody is served an unverified byte: before the start, while it loads, while it answers."""

import asyncio
import errno
import os
import shutil
from pathlib import Path

import pytest

from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home
from mlops_assets.ledger import LedgerEntry
from mlops_assets.serving.engines.release_files import ReleaseFiles, remove_copies
from mlops_assets.serving.engines.served_release import ServedRelease
from mlops_assets_tests.engine_homes import answer, is_running, managing, until
from mlops_assets_tests.engine_program import install
from mlops_assets_tests.releases import request
from mlops_assets_tests.served_homes import promote
from mlops_assets_tests.waiting import wait_beside

pytestmark = pytest.mark.slow


def test_what_a_killed_gateway_left_is_removed_but_for_logs(tmp_path: Path) -> None:
    copy, log = tmp_path / "transformers-1" / "model", tmp_path / "transformers-1.log"
    copy.mkdir(parents=True)
    (copy / "model.safetensors").write_text("half of it")
    log.write_text("why it died")
    remove_copies(tmp_path)
    assert list(tmp_path.iterdir()) == [log]


def weights(home: Home, entry: LedgerEntry) -> Path:
    """The file that is tampered with."""
    return home.store.path(entry.decision.bundle.adapter) / "adapter_model.safetensors"


def test_a_tampered_release_is_never_started(home: Home, tmp_path: Path) -> None:
    entry = promote(home, 1, "a")
    weights(home, entry).write_text("others' weights")

    async def scenario() -> None:
        async with managing(home, install(tmp_path)) as manager:
            with pytest.raises(LineageError, match=r"approval of .* is void.*adapter_model"):
                await manager.ensure(entry)
            assert manager.state() == ()

    asyncio.run(scenario())
    assert not (home.root / "serving" / "engines").exists()


def test_what_was_only_asked_for_is_never_started(home: Home, tmp_path: Path) -> None:
    """Nobody has to have approved a request: as a release it is none, whichever row names it."""
    requested = request(home).request.entry

    async def scenario() -> None:
        async with managing(home, install(tmp_path)) as manager:
            with pytest.raises(LineageError, match=r"\(requested\) promotes nothing"):
                await manager.ensure(requested)

    asyncio.run(scenario())


def test_an_engine_dies_when_its_files_change_and_comes_back_with_them(
    home: Home, tmp_path: Path
) -> None:
    entry, told = promote(home, 1, "a"), list[str]()
    path = weights(home, entry)
    approved = path.read_bytes()

    async def scenario() -> None:
        async with managing(home, install(tmp_path)) as manager:
            manager.mismatched = told.append
            upstream = await manager.ensure(entry)
            pid = manager.state()[0].pid
            assert pid is not None
            path.write_bytes(approved[::-1])  # as long as before
            state = await until(manager, lambda state: state.state == "tampered")
            assert "adapter_model.safetensors" in state.detail
            assert not manager.is_ready(upstream.release)
            await wait_beside(lambda: not is_running(pid), "the engine's end")
            with pytest.raises(LineageError, match="adapter_model"):
                await manager.ensure(entry)
            path.write_bytes(approved)
            await until(manager, lambda state: state.state == "ready")
            assert await manager.ensure(entry) == upstream
            assert await answer(upstream, "back?") == f"{upstream.model}: back?"

    asyncio.run(scenario())
    assert told == [entry.decision.bundle.digest]


def test_a_disk_that_fails_for_a_moment_keeps_no_engine_down(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry, hashes = promote(home, 1, "a"), ServedRelease._hash
    path = weights(home, entry)
    approved, failed = path.read_bytes(), list[ServedRelease]()

    def fail_once(served: ServedRelease) -> None:
        if served.fault is not None and not failed:
            failed.append(served)
            raise OSError(errno.EIO, "Input/output error")
        hashes(served)

    async def scenario() -> None:
        async with managing(home, install(tmp_path)) as manager:
            await manager.ensure(entry)
            path.write_bytes(approved[::-1])
            await until(manager, lambda state: state.state == "tampered")
            monkeypatch.setattr(ServedRelease, "_hash", fail_once)
            path.write_bytes(approved)
            await until(manager, lambda state: state.state == "ready")

    asyncio.run(scenario())
    assert failed


def test_others_on_the_same_base_go_on(home: Home, tmp_path: Path) -> None:
    first, second = promote(home, 1, "a"), promote(home, 2, "b")

    async def scenario() -> None:
        async with managing(home, install(tmp_path)) as manager:
            one, two = await manager.ensure(first), await manager.ensure(second)
            weights(home, first).write_text("others' weights")
            await until(manager, lambda state: state.state == "tampered")
            with pytest.raises(AssertionError, match="no model"):
                await answer(one, "still there?")
            assert await answer(two, "still there?") == f"{two.model}: still there?"

    asyncio.run(scenario())


def test_what_is_swapped_and_swapped_back_while_it_loads_is_loaded_again(
    home: Home, tmp_path: Path
) -> None:
    entry = promote(home, 1, "a")
    path = weights(home, entry)
    approved = path.read_bytes()

    async def scenario() -> None:
        async with managing(home, install(tmp_path, start_s=0.5)) as manager:
            ensuring = asyncio.create_task(manager.ensure(entry))
            await until(manager, lambda state: state.pid is not None)
            path.write_bytes(b"others' weights")
            path.write_bytes(approved)
            state = await until(manager, lambda state: state.deaths == 1)
            assert "touched while it loaded" in state.detail
            await ensuring

    asyncio.run(scenario())


def swap_and_restore(path: Path) -> None:
    kept, times = path.with_name("kept"), path.stat()
    path.rename(kept)
    path.write_text("others' weights")
    kept.rename(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def rewrite(path: Path) -> None:
    """In place, with the times that it had."""
    content, times = path.read_bytes(), path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def add_a_file(path: Path) -> None:
    path.with_name("more.json").write_text("{}")


@pytest.mark.parametrize("touch", [swap_and_restore, rewrite, add_a_file, Path.unlink])
def test_the_slightest_touch_shows(home: Home, touch: object) -> None:
    entry = promote(home, 1, "a")
    files = ReleaseFiles(home, entry, ())
    before = files.marks()
    assert files.marks() == before
    touch(weights(home, entry))  # type: ignore[operator]
    assert files.marks() != before


def test_a_store_that_is_gone_is_no_release(home: Home) -> None:
    entry = promote(home, 1, "a")
    files = ReleaseFiles(home, entry, ())
    before = files.marks()
    shutil.rmtree(home.store.root / "lora_adapter")
    assert files.marks() != before
    with pytest.raises(LineageError, match="not in the store"):
        files.verify()
