"""Engines: only what is verified starts, what dies comes back, and nothing is left behind."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home
from mlops_assets.serving.engines.engine_manager import EngineManager
from mlops_assets.serving.engines.engine_spec import EngineSpec
from mlops_assets_tests.engine_homes import answer, asked_of, is_running, managing, switch, until
from mlops_assets_tests.engine_program import install
from mlops_assets_tests.engine_server import serve_engine
from mlops_assets_tests.served_homes import promote
from mlops_assets_tests.waiting import wait_until

pytestmark = pytest.mark.slow


def test_an_engine_comes_up_private_and_warm(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "hunter2")
    entry = promote(home, 1, "a")

    async def scenario() -> None:
        async with managing(home, install(tmp_path), engine_warm_up=3) as manager:
            upstream = await manager.ensure(entry)
            assert upstream == await manager.ensure(entry)
            assert upstream.system == "Answer with one queue."
            assert upstream.generation == {"max_tokens": 32, "temperature": 0.0}
            assert await answer(upstream, "Where?") == f"{upstream.model}: Where?"
            asked = await asked_of(upstream)
            assert [one["stream"] for one in asked[:4]] == [False, False, True, False]
            assert all(one["max_tokens"] == 1 for one in asked[:4])
            [state] = manager.state()
            assert (state.state, state.deaths) == ("ready", 0)
            assert state.pid is not None
            environment = Path(f"/proc/{state.pid}/environ").read_bytes()
            assert b"HF_HUB_OFFLINE=1" in environment
            assert b"OMP_NUM_THREADS=1" in environment
            assert b"hunter2" not in environment
        assert not is_running(state.pid)

    asyncio.run(scenario())
    [log] = (home.root / "serving" / "engines").glob("*.log")
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert stat.S_IMODE(log.parent.stat().st_mode) == 0o700


def test_several_releases_share_a_base_and_its_process(home: Home, tmp_path: Path) -> None:
    first, second = promote(home, 1, "a"), promote(home, 2, "b")

    async def scenario() -> None:
        async with managing(home, install(tmp_path)) as manager:
            one, two = await asyncio.gather(manager.ensure(first), manager.ensure(second))
            assert one.url == two.url
            assert one.model != two.model
            pids = {state.pid for state in manager.state()}
            assert len(pids) == 1
            await manager.retire(one.release)
            assert await answer(two, "still there?") == f"{two.model}: still there?"
            with pytest.raises(AssertionError, match="no model"):
                await answer(one, "gone?")
            assert await manager.ensure(first) == one  # taken back at run time
            await manager.retire(one.release)
            await manager.retire(two.release)
            assert manager.state() == ()
            assert not any(is_running(pid) for pid in pids if pid)

    asyncio.run(scenario())


@pytest.mark.parametrize("signal_sent", [signal.SIGKILL, signal.SIGSTOP])
def test_what_dies_or_hangs_comes_back_at_its_address(
    home: Home, tmp_path: Path, signal_sent: signal.Signals
) -> None:
    entry, told = promote(home, 1, "a"), list[str]()

    async def scenario() -> None:
        async with managing(home, install(tmp_path), engine_probe_timeout_s=0.3) as manager:
            manager.crashed = told.append
            upstream = await manager.ensure(entry)
            before = manager.state()[0].pid
            assert before is not None
            with manager.track(upstream.release):  # a user waits, and the engine does nothing
                os.kill(before, signal_sent)
                state = await until(manager, lambda state: state.deaths == 1)
            assert not manager.is_ready(upstream.release)
            why = "signal 9" if signal_sent == signal.SIGKILL else "does not answer a probe"
            assert why in state.detail
            assert await manager.ensure(entry) == upstream
            assert await answer(upstream, "back?") == f"{upstream.model}: back?"
            assert manager.state()[0].pid != before
            assert not is_running(before)

    asyncio.run(scenario())
    assert told == [entry.decision.bundle.digest]


def test_an_engine_that_never_comes_up_is_given_up(home: Home, tmp_path: Path) -> None:
    entry = promote(home, 1, "a")
    program = install(tmp_path, ends="no such accelerator")

    async def scenario() -> None:
        async with managing(home, program, engine_restarts_per_hour=1) as manager:
            with pytest.raises(LineageError, match=r"failed: .*no such accelerator.*vllm-base-"):
                await manager.ensure(entry)
            assert manager.state() == ()

    asyncio.run(scenario())
    [log] = (home.root / "serving" / "engines").glob("*.log")
    assert log.read_text().count("no such accelerator") == 2  # once, and one restart


def test_an_engine_that_is_only_busy_does_not_hang(home: Home, tmp_path: Path) -> None:
    entry = promote(home, 1, "a")
    settings = {"engine_probe_s": 0.1, "engine_probe_timeout_s": 0.6, "engine_probe_failures": 1}

    async def scenario() -> None:
        async with managing(home, install(tmp_path), **settings) as manager:
            upstream = await manager.ensure(entry)
            with manager.track(upstream.release):
                await answer(upstream, "a long one [compute: 1.2]")
            await switch(upstream, "hang")
            for _ in range(8):
                with manager.track(upstream.release):
                    await answer(upstream, "quick [engine: answer]")
                await asyncio.sleep(0.15)
            assert manager.state()[0].deaths == 0  # probes hang, users are answered
            state = await until(manager, lambda state: state.deaths == 1)
            assert "gave no answer in 0.6 s" in state.detail

    asyncio.run(scenario())


@pytest.mark.parametrize("reply", ["garbage", "empty"])
def test_an_engine_that_generates_no_token_is_not_ready(
    home: Home, tmp_path: Path, reply: str
) -> None:
    entry = promote(home, 1, "a")

    async def scenario() -> None:
        program = install(tmp_path, always=reply)
        async with managing(home, program, engine_restarts_per_hour=0) as manager:
            with pytest.raises(LineageError, match="failed"):
                await manager.ensure(entry)

    asyncio.run(scenario())


def test_requests_under_way_may_finish(home: Home, tmp_path: Path) -> None:
    entry = promote(home, 1, "a")

    async def scenario() -> None:
        async with managing(home, install(tmp_path)) as manager:
            upstream = await manager.ensure(entry)
            with manager.track(upstream.release):
                retiring = asyncio.create_task(manager.retire(upstream.release))
                answered = await answer(upstream, "slowly [engine: slow:0.3]")
                assert manager.state()[0].state == "draining"
                assert not manager.is_ready(upstream.release)
            assert answered.startswith(upstream.model)
            await retiring
            assert manager.state() == ()

    asyncio.run(scenario())


def test_a_request_that_never_ends_does_not_stop_a_drain(home: Home, tmp_path: Path) -> None:
    entry = promote(home, 1, "a")

    async def scenario() -> None:
        async with managing(home, install(tmp_path), engine_drain_s=0.2) as manager:
            upstream = await manager.ensure(entry)
            with manager.track(upstream.release):
                await manager.retire(upstream.release)
            assert manager.state() == ()

    asyncio.run(scenario())


GATEWAY = """
import asyncio, sys
from pathlib import Path
from mlops_assets.home import Home
from mlops_assets_tests.engine_homes import managing

async def main(root, program):
    home = Home(Path(root))
    async with managing(home, Path(program)) as manager:
        await manager.ensure(home.ledger.champion())
        print(manager.state()[0].pid, flush=True)
        await asyncio.sleep(60)

asyncio.run(main(*sys.argv[1:]))
"""


def test_a_killed_gateway_leaves_no_engine(home: Home, tmp_path: Path) -> None:
    promote(home, 1, "a")
    command = [sys.executable, "-c", GATEWAY, str(home.root), str(install(tmp_path))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as gateway:
        assert gateway.stdout is not None
        engine = int(gateway.stdout.readline())
        assert is_running(engine)
        gateway.kill()
    wait_until(lambda: not is_running(engine), "the engine's end")


def test_a_server_that_somebody_else_runs_is_asked_with_its_key(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = promote(home, 1, "a")
    monkeypatch.setenv("HOSTED_KEY", "s3cret")

    async def scenario(url: str, variable: str) -> None:
        spec = EngineSpec(
            engine="openai",
            engine_url=url,
            engine_model="tickets:{version}",
            engine_key_variable=variable,
            engine_start_s=0.5,
        )
        manager = EngineManager(home, spec)
        try:
            upstream = await manager.ensure(entry)
            assert "s3cret" not in repr(upstream)
            assert await answer(upstream, "Hello") == "tickets:1: Hello"
            assert manager.state()[0].pid is None
        finally:
            await manager.close()

    with serve_engine() as server:
        asyncio.run(scenario(server.url, "HOSTED_KEY"))
        assert server.asked[0].headers["Authorization"] == "Bearer s3cret"
        with pytest.raises(LineageError, match="MISSING_KEY is not set"):
            asyncio.run(scenario(server.url, "MISSING_KEY"))
    with pytest.raises(LineageError, match=r"not up after 0\.5 s \(it cannot be reached"):
        asyncio.run(scenario(server.url, ""))
