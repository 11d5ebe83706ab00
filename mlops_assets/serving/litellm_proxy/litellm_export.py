"""A LiteLLM proxy's configuration and routing hook, for teams that run that proxy already.

Three files: ``config.yaml`` for the proxy, ``release_routing.py`` (the hook, with the gateway's
own function that places users in it) and ``release.json``, the release state that the hook
follows. The hook needs no library of ours, so the proxy may live in an environment of its own; it
reads a file, not the ledger, so whatever happens here the proxy keeps the last known state.
``follow`` keeps that file as the ledger says. No release is written whose bytes do not verify.
"""

import inspect
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mlops_assets.artifacts import LineageError, atomic_write
from mlops_assets.home import Home
from mlops_assets.ledger import CANARY, LedgerEntry
from mlops_assets.prompts import system_text
from mlops_assets.release_check import verify_release
from mlops_assets.release_state import ReleaseState, read_release
from mlops_assets.serving.engines.engine_plans import request_fields, served_name
from mlops_assets.serving.serving_home import ServingHome
from mlops_assets.serving.traffic import bucketing
from mlops_assets.serving.traffic.router import canary_salt

logger = logging.getLogger(__name__)

CONFIG, HOOK, STATE = "config.yaml", "release_routing.py", "release.json"
SOURCE = Path(__file__).with_name("litellm_hook.py")
IMPORT = "from mlops_assets.serving.traffic.bucketing import bucket\n"
LOOK_AGAIN = 1.0  # seconds between two looks at the ledger
HEADER = """\
# Written by `mlops export litellm`. Start the proxy where these files lie:
#     LITELLM_MASTER_KEY=... litellm --config config.yaml --host 127.0.0.1
"""


@dataclass(frozen=True)
class Engines:
    """The server that holds the releases, each under a model name of its own."""

    url: str
    """Up to and with ``/v1``."""
    names: str
    """Of a release's model there; ``{version}`` and ``{release}`` stand for the registered version
    and the bundle's digest."""
    key_variable: str = ""
    """Environment variable of the proxy with the server's key; empty sends none."""


@dataclass(frozen=True)
class Export:
    """What is exported, and where to."""

    home: Home
    directory: Path
    model: str
    engines: Engines
    flags: Path | None
    """The file that says who may be among a canary's first users; None where a server does."""

    def write(self) -> dict[str, Any]:
        """Write the proxy's files; returns the release state that was written.

        Raises LineageError when nothing was promoted yet, or a release does not verify.
        """
        state = self._state(self._read())
        config = proxy_config(self.model, self.engines)
        for name, text in {CONFIG: config, HOOK: hook_source(), STATE: _json(state)}.items():
            _write(self.directory / name, text)
        return state

    def follow(self, look_again: float = LOOK_AGAIN) -> Iterator[dict[str, Any]]:
        """Keep ``release.json`` as the ledger says, for ever; yields each state it writes.

        ``look_again`` is in seconds. What cannot be exported is logged once and leaves the file,
        and so the proxy, as it was.
        """
        written, problem = None, ""
        while True:
            try:
                found, everybody = self._read(), everybody_is_eligible(self.flags)
                if written != (found, everybody):
                    state = self._state(found)
                    _write(self.directory / STATE, _json(state))
                    written, problem = (found, everybody), ""
                    yield state
            except LineageError as error:
                if error.problem != problem:
                    logger.warning("%s stays as it was: %s", STATE, error)
                    problem = error.problem
            time.sleep(look_again)

    def _read(self) -> ReleaseState:
        return read_release(self.home.ledger.entries(), self.model)

    def _state(self, found: ReleaseState) -> dict[str, Any]:
        if found.stable is None:
            raise LineageError(
                f"No release of {self.model!r} is on the ledger: there is nothing to export.",
                "Run the job `lineage`, and approve what it registers.",
            )
        canary = found.candidate if found.stage == CANARY else None
        shown = canary is not None and everybody_is_eligible(self.flags)
        return {
            "model": self.model,
            "stage": found.stage,
            "percent": found.percent if shown else 0,
            "salt": canary_salt(canary) if canary else "",
            "user_salt": ServingHome.of(self.home).salt().hex(),
            "stable": self._arm(found.stable),
            "candidate": self._arm(canary) if canary else None,
        }

    def _arm(self, entry: LedgerEntry) -> dict[str, Any]:
        verify_release(self.home, entry)
        bundle = entry.decision.bundle
        return {
            "digest": bundle.digest,
            "version": entry.decision.version,
            "served_as": served_name(self.engines.names, entry),
            "system": system_text(self.home.store, bundle.prompt),
            "generation": request_fields(bundle.generation),
        }


def proxy_config(model: str, engines: Engines) -> str:
    """The proxy's ``config.yaml``. A new release changes nothing in it."""
    key = f"os.environ/{engines.key_variable}" if engines.key_variable else "none"
    server = {"api_base": engines.url, "api_key": key}
    # Without the hook the first name reaches the server as it is, which has no such model.
    names = {model: f"openai/{model}", "release/*": "openai/*"}
    config = {
        "model_list": [
            {"model_name": name, "litellm_params": {"model": theirs, **server}}
            for name, theirs in names.items()
        ],
        "litellm_settings": {"callbacks": [f"{Path(HOOK).stem}.routing"], "telemetry": False},
        "general_settings": {"master_key": "os.environ/LITELLM_MASTER_KEY"},
    }
    return HEADER + yaml.safe_dump(config, sort_keys=False)


def hook_source() -> str:
    """The hook with the gateway's placing of users in it: it imports nothing of ours."""
    placing = inspect.getsource(bucketing).partition('"""\n\n')[2]
    return SOURCE.read_text("utf-8").replace(IMPORT, placing)


def everybody_is_eligible(flags: Path | None) -> bool:
    """Whether the flag `canary` is on for all. The hook cannot follow a rule: then nobody is."""
    if flags is None:
        return False
    try:
        flag = yaml.safe_load(flags.read_text("utf-8"))["flags"]["canary"]
        default = flag["variants"][flag["defaultVariant"]]
        return bool(flag["state"] == "ENABLED" and not flag.get("targeting") and default is True)
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return False


def _json(state: dict[str, Any]) -> str:
    return json.dumps(state, indent=2, ensure_ascii=False) + "\n"


def _write(path: Path, text: str) -> None:
    """Private to the owner: the state holds what makes hashes of users this home's own."""
    with atomic_write(path) as temporary:
        temporary.touch(mode=0o600)
        temporary.write_text(text, encoding="utf-8")
