"""The steps in which an engine comes up with a release: its copy, its port, its first tokens."""

import asyncio
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from mlops_assets.home import Home
from mlops_assets.serving.engines.engine_probe import EngineFault, probe
from mlops_assets.serving.engines.engine_process import EngineProcess
from mlops_assets.serving.engines.engine_spec import EngineSpec
from mlops_assets.serving.engines.lora_adapters import load_adapter
from mlops_assets.serving.engines.release_files import copy_verified, verify_copy
from mlops_assets.serving.engines.served_release import ServedRelease

if TYPE_CHECKING:
    import aiohttp

POLL_S = 0.05


async def copy_model(home: Home, folder: Path, served: ServedRelease) -> None:
    """Where the engine maps its weights into memory, let that be a file of its own.

    Whoever rewrites a mapped file in place changes the weights of the running engine. Raises
    LineageError when the copy is not what the store's manifest says.
    """
    if (artifact := served.plan.copied) is not None:
        source = home.store.root / artifact.kind / artifact.key
        copy = folder / served.plan.model
        served.copied = await asyncio.to_thread(copy_verified, source, copy)


async def wait_until_listening(process: EngineProcess, session: "aiohttp.ClientSession") -> None:
    """Return when the process says that it is healthy. Raises EngineFault when it ends."""
    import aiohttp

    while True:
        if process.pid is None:
            raise EngineFault(f"it ended while it started ({process.last_words()})")
        try:
            async with session.get(f"{process.address}/health") as response:
                if response.status == 200:
                    return
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(POLL_S)


async def bring_up(
    served: ServedRelease, spec: EngineSpec, session: "aiohttp.ClientSession", folder: Path
) -> None:
    """Load a release, have it prove itself, verify it again, warm it up.

    Raises EngineFault when it does not answer, and when a file was changed or only touched since
    it was verified.
    """
    if served.fault is not None:
        raise EngineFault(served.fault.problem)
    before, plan = served.marks, served.plan
    if plan.adapter is not None:
        await load_adapter(session, served.upstream.url, plan.model, plan.adapter)
    await probe(session, served.upstream, spec.engine_start_s)
    if plan.copied is not None:
        await asyncio.to_thread(_drop_copy, folder / plan.model, served)
    await served.verify()
    if served.fault is not None or served.marks != before:
        raise EngineFault("files of the release were touched while it loaded")
    for number in range(spec.engine_warm_up):
        streamed = bool(number % 2)
        await probe(session, served.upstream, spec.engine_probe_timeout_s, stream=streamed)


def _drop_copy(copy: Path, served: ServedRelease) -> None:
    """Verify what was loaded, and take its name away: nobody can open it any more."""
    if verify_copy(copy) != served.copied:
        raise EngineFault("its copy of the model was touched while it loaded")
    shutil.rmtree(copy)
