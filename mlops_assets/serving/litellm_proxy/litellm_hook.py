"""Routes a LiteLLM proxy's requests by the release state that lies beside this file.

Written by `mlops export litellm`; the proxy imports it, see config.yaml. It needs nothing but
LiteLLM and Python. Whoever asks for the model gets the stable release or, for a share of users
that grows with the canary, the candidate; each with the system prompt and the settings that were
approved with it. The state is read again when its file changes, and the last one that could be
read stays in force.
"""

import hmac
import json
import logging
import time
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from litellm.integrations.custom_logger import CustomLogger  # noqa: TID253

from mlops_assets.serving.traffic.bucketing import bucket

STATE = Path(__file__).with_name("release.json")
LOOK_AGAIN = 1.0  # seconds between two looks at the file
CHAT = ("completion", "acompletion")


class ReleaseRouting(CustomLogger):  # type: ignore[misc]
    """Decides for every chat completion before the proxy picks a deployment."""

    def __init__(self, path: Path = STATE) -> None:
        super().__init__()
        self._path = path
        self._looked = 0.0
        self._written = -1
        self._state: dict[str, Any] = {}

    async def async_pre_call_hook(
        self,
        user_api_key_dict: Any,
        cache: Any,  # noqa: ARG002 (LiteLLM names the arguments)
        data: dict[str, Any],
        call_type: str,
    ) -> dict[str, Any] | None:
        """The request for the release that answers it; requests for other models as they are."""
        state, model = self._current(), str(data.get("model"))
        if model.startswith("release/"):
            raise HTTPException(404, f"Ask for {state.get('model')}: no caller picks its release.")
        if call_type not in CHAT or model != state.get("model"):
            return None
        arm = choose(state, identify(user_api_key_dict, data, state["user_salt"]))
        release = state[arm]
        if release["system"]:
            system = {"role": "system", "content": release["system"]}
            data["messages"] = [system, *(data.get("messages") or [])]
        data["model"] = f"release/{release['served_as']}"
        said = {"max_tokens", *data} if "max_completion_tokens" in data else data.keys()
        data.update({name: of for name, of in release["generation"].items() if name not in said})
        told = {"release": release["digest"], "arm": arm}
        data["metadata"] = {**(data.get("metadata") or {}), **told}
        return data

    def _current(self) -> dict[str, Any]:
        if time.monotonic() - self._looked < LOOK_AGAIN:
            return self._state
        self._looked = time.monotonic()
        try:
            if (written := self._path.stat().st_mtime_ns) != self._written:
                self._state, self._written = json.loads(self._path.read_text("utf-8")), written
        except (OSError, ValueError) as error:
            logging.getLogger(__name__).warning("%s: %s", self._path.name, type(error).__name__)
        return self._state


def identify(key: Any, data: dict[str, Any], salt: str) -> str:
    """The user's name as the gateway hashes it: of the key's alias, and the user that the caller
    names, else of the alias alone."""
    alias = getattr(key, "key_alias", None) or ""
    named = f"{alias}\0{data.get('user') or alias}".encode()
    return hmac.digest(bytes.fromhex(salt), named, "sha256").hex()


def choose(state: dict[str, Any], user: str) -> str:
    """``candidate`` for users below the canary's percentage, else ``stable``."""
    chosen = state.get("candidate") and bucket(user, state["salt"]) < state["percent"] / 100
    return "candidate" if chosen else "stable"


routing = ReleaseRouting()
