"""Four ways to have a release answered, behind one: what to start, what it reads, its name.

`transformers serve` loads the merged model; one process for a release. `vllm serve` holds a base
model and takes adapters at run time; one process for all releases over a base. Any other server
that speaks the OpenAI protocol is only asked; for hosted providers a process of ours asks.
"""

import asyncio
import json
import os
import secrets
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from mlops_assets.artifacts import SHORT, Artifact, LineageError, digest_json
from mlops_assets.home import Home
from mlops_assets.ledger import LedgerEntry
from mlops_assets.profiles import PROJECT
from mlops_assets.refs import ReleaseBundle
from mlops_assets.serving.engines.engine_process import child_environment, launched
from mlops_assets.serving.engines.engine_spec import LITELLM, OPENAI, TRANSFORMERS, VLLM, EngineSpec
from mlops_assets.serving.engines.lora_adapters import is_loadable
from mlops_assets.serving.engines.served_model import (
    AS_STORED,
    EXACT,
    MODULE,
    find_served_model,
    forget_served_model,
)

GREEDY = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""What was measured: no setting that came with the base model bends the likeliest token."""
PASSED_ON = ("temperature", "top_p", "seed", "stop")
"""Generation settings of a bundle that the OpenAI protocol names alike."""


@dataclass(frozen=True)
class EnginePlan:
    """How one release is to be served."""

    server: str
    """Name of the process; plans of one name share it."""
    model: str
    """What the server calls the release."""
    command: tuple[str, ...] = ()
    """Without host and port; empty where the server is somebody else's."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Beside what every child sees."""
    reads: tuple[Artifact, ...] = ()
    """Artifacts that the server reads, beside those of the bundle."""
    copied: Artifact | None = None
    """The artifact that the server loads from a copy of its own, under the name ``model``."""
    adapter: Path | None = None
    """The adapter that a running server has to load."""
    url: str = ""
    """Of somebody else's server, up to and with ``/v1``."""
    api_key: str = field(default="", repr=False)


Plan = Callable[[Home, EngineSpec, LedgerEntry], Awaitable[EnginePlan]]


async def plan_transformers(home: Home, spec: EngineSpec, entry: LedgerEntry) -> EnginePlan:
    """`transformers serve` on the merged model. Raises LineageError when it cannot be merged."""
    bundle = entry.decision.bundle
    program = _program(spec, "transformers")
    dtype = EXACT if spec.engine_device == "cpu" else AS_STORED
    served = await provide_served_model(home, spec, bundle, dtype)
    # A relative name: a path with an @ would be taken for a hub's revision, and answers show it.
    name = bundle.digest[:SHORT]
    options = ("--device", spec.engine_device, "--dtype", dtype)
    return EnginePlan(
        server=f"{TRANSFORMERS}-{name}",
        model=name,
        command=(program, "serve", name, *options),
        reads=(served,),
        copied=served,
    )


async def plan_vllm(home: Home, spec: EngineSpec, entry: LedgerEntry) -> EnginePlan:
    """`vllm serve` on the base model, or on the merged one where vLLM takes no such adapter."""
    bundle = entry.decision.bundle
    program, name = _program(spec, "vllm"), bundle.digest[:SHORT]
    options = ["--gpu-memory-utilization", str(spec.engine_gpu_memory), "--seed", "0"]
    options += ["--override-generation-config", json.dumps(GREEDY, sort_keys=True)]
    adapter = await asyncio.to_thread(home.store.path, bundle.adapter)
    if not is_loadable(adapter, spec.engine_adapter_rank):
        served = await provide_served_model(home, spec, bundle, AS_STORED)
        model = str(home.store.root / served.kind / served.key)
        return EnginePlan(
            server=f"{VLLM}-{name}",
            model=name,
            command=(program, "serve", model, "--served-model-name", name, *options),
            reads=(served,),
        )
    base = home.store.root / bundle.base.kind / bundle.base.key
    shared = f"{VLLM}-base-{bundle.base.digest[:SHORT]}"
    options += ["--enable-lora", "--max-loras", str(spec.engine_adapters)]
    options += ["--max-lora-rank", str(spec.engine_adapter_rank)]
    return EnginePlan(
        server=shared,
        model=name,
        command=(program, "serve", str(base), "--served-model-name", shared, *options),
        environment={"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"},
        adapter=adapter,
    )


async def plan_openai(home: Home, spec: EngineSpec, entry: LedgerEntry) -> EnginePlan:  # noqa: ARG001
    """Somebody else's server. What it has loaded is not ours to verify."""
    digest = entry.decision.bundle.digest
    key = os.environ.get(spec.engine_key_variable, "") if spec.engine_key_variable else ""
    if spec.engine_key_variable and not key:
        raise LineageError(
            f"The environment variable {spec.engine_key_variable} is not set.",
            f"Set it to the API key of {spec.engine_url}, or leave engine_key_variable empty.",
        )
    return EnginePlan(
        server=f"{OPENAI}-{digest[:SHORT]}",
        model=served_name(spec.engine_model, entry),
        url=spec.engine_url.rstrip("/"),
        api_key=key,
    )


async def plan_litellm(home: Home, spec: EngineSpec, entry: LedgerEntry) -> EnginePlan:  # noqa: ARG001
    """Hosted providers, asked by one process for all releases: of ours is only what is said
    around a question. Raises LineageError when a secret or LiteLLM is missing."""
    from mlops_assets.serving.engines.hosted import KEY_VARIABLE

    if missing := [name for name in spec.engine_secrets if not os.environ.get(name)]:
        raise LineageError(
            f"The environment variable {missing[0]} is not set.",
            "Set it to the provider's key, or take it out of engine_secrets.",
        )
    if not spec.engine_program and find_spec("litellm") is None:
        raise LineageError(
            "LiteLLM is not installed here.",
            "Install the extra `litellm`, or name a Python that has it in engine_program.",
        )
    named, key = served_name(spec.engine_model, entry), _hosted_key()
    options = ["--model", named, "--api-base", spec.engine_url]
    options += [word for model in spec.engine_fallbacks for word in ("--fallback", model)]
    options += ["--retries", str(spec.engine_retries), "--timeout", str(spec.engine_answer_s)]
    ours = {"PYTHONPATH": str(PROJECT), KEY_VARIABLE: key}
    return EnginePlan(
        server=f"{LITELLM}-{digest_json(options)[:SHORT]}",
        model=named,
        command=(_program(spec, "python"), "-m", "mlops_assets.serving.engines.hosted", *options),
        environment=ours | {name: os.environ[name] for name in spec.engine_secrets},
        api_key=key,
    )


@cache
def _hosted_key() -> str:
    """What our process for hosted providers is asked with: they cost, and loopback is for all."""
    return secrets.token_hex(32)


PLANS: Mapping[str, Plan] = {
    TRANSFORMERS: plan_transformers,
    VLLM: plan_vllm,
    OPENAI: plan_openai,
    LITELLM: plan_litellm,
}


def served_name(pattern: str, entry: LedgerEntry) -> str:
    """A model's name at a server of others, by ``engine_model``."""
    named = pattern.replace("{version}", str(entry.decision.version))
    return named.replace("{release}", entry.decision.bundle.digest)


def request_fields(generation: Mapping[str, Any]) -> dict[str, Any]:
    """A bundle's generation settings as fields of a chat request."""
    fields = {name: generation[name] for name in PASSED_ON if name in generation}
    if "max_new_tokens" in generation:
        fields["max_tokens"] = generation["max_new_tokens"]
    if not generation.get("do_sample", False):
        fields["temperature"] = 0.0
    return fields


async def provide_served_model(
    home: Home, spec: EngineSpec, bundle: ReleaseBundle, dtype: str
) -> Artifact:
    """The served model, made by a child: we never import torch.

    Raises LineageError when it cannot be made.
    """
    if spec.engine_merge_anew:
        await asyncio.to_thread(forget_served_model, home.store, bundle, dtype)
    elif found := await asyncio.to_thread(find_served_model, home.store, bundle, dtype):
        return found
    child = await asyncio.create_subprocess_exec(
        *launched([sys.executable, "-m", MODULE, str(home.root), dtype]),
        env=child_environment(1),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    given = TypeAdapter(ReleaseBundle).dump_json(bundle)
    try:
        told, complaint = await child.communicate(given)
    finally:
        if child.returncode is None:  # we are being cancelled
            child.kill()
            await child.wait()
    if child.returncode != 0:
        raise _refusal(told, complaint, child.returncode)
    return TypeAdapter(Artifact).validate_json(told.splitlines()[-1])


def _refusal(told: bytes, complaint: bytes, code: int | None) -> LineageError:
    try:
        return LineageError(**json.loads(told.splitlines()[-1]))
    except (ValueError, TypeError, IndexError):
        last = complaint.decode("utf-8", "replace").strip().rpartition("\n")[2]
        return LineageError(
            f"The served model could not be made (code {code}: {last}).",
            "Look whether memory and disk suffice, then start the gateway again.",
        )


def _program(spec: EngineSpec, name: str) -> str:
    given = spec.engine_program or str(Path(sys.executable).with_name(name))
    if found := shutil.which(given) or (None if spec.engine_program else shutil.which(name)):
        return found
    raise LineageError(
        f"The engine's program {given} is not there.",
        f"Install {name} (extra `gpu` for vllm), or name its path in engine_program.",
    )
