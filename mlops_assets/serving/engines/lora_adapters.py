"""Adapters that a running vLLM takes and gives back: its two admin endpoints.

They are open only where ``VLLM_ALLOW_RUNTIME_LORA_UPDATING`` is set, which we do for our own
server on loopback. vLLM takes plain LoRA on linear layers (``vllm/lora/peft_helper.py``); what it
does not take is merged and gets a server of its own.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from mlops_assets.model_loading import ADAPTER_CONFIG, LOW_RANK
from mlops_assets.serving.engines.engine_probe import EngineFault

if TYPE_CHECKING:
    import aiohttp

LOAD_S, UNLOAD_S = 120.0, 10.0
"""Longest that vLLM may take."""
EMBEDDINGS = ("embed", "wte", "lm_head")
"""In the names of layers that are no linear layer between others."""


def is_loadable(adapter: Path, highest_rank: int) -> bool:
    """Whether vLLM loads this adapter beside the base at run time."""
    path = adapter / ADAPTER_CONFIG
    if not path.is_file():
        return False
    config = json.loads(path.read_bytes())
    targets = config.get("target_modules") or ()
    return (
        config.get("peft_type") == LOW_RANK
        and not config.get("use_dora")
        and not config.get("modules_to_save")
        and config.get("bias", "none") == "none"
        and int(config.get("r", 0)) <= highest_rank
        and not any(part in str(name) for name in targets for part in EMBEDDINGS)
    )


async def load_adapter(
    session: "aiohttp.ClientSession", url: str, name: str, adapter: Path
) -> None:
    """Have the server at ``url`` answer as ``name`` with this adapter. Raises EngineFault."""
    body = {"lora_name": name, "lora_path": str(adapter)}
    await _post(session, f"{url}/load_lora_adapter", body, LOAD_S)


async def unload_adapter(session: "aiohttp.ClientSession", url: str, name: str) -> None:
    """Have the server forget the adapter; one that it does not have is no fault."""
    await _post(session, f"{url}/unload_lora_adapter", {"lora_name": name}, UNLOAD_S, missing=404)


async def _post(
    session: "aiohttp.ClientSession",
    url: str,
    body: dict[str, str],
    timeout_s: float,
    missing: int = 200,
) -> None:
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=timeout_s)
    try:
        async with session.post(url, json=body, timeout=timeout, allow_redirects=False) as response:
            text = (await response.text())[:200]
            if response.status not in (200, missing):
                raise EngineFault(f"vLLM refuses the adapter ({response.status}: {text})")
    except (aiohttp.ClientError, TimeoutError) as error:
        raise EngineFault(f"vLLM cannot be reached ({type(error).__name__})") from error
