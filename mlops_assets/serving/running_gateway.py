"""What the gateway that runs says of itself, asked over its own address."""

import json
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

from mlops_assets.serving.serving_home import ServingHome

TIMEOUT = 2.0  # seconds
LARGEST = 1024**2  # bytes
_OPENER = build_opener(ProxyHandler({}))  # a proxy is never between us and this machine


def ask_gateway(files: ServingHome) -> dict[str, Any] | None:
    """What ``/health`` says, with the gateway's address; None where none runs.

    The address of one that was killed may be somebody else's by now: that is no answer either.
    """
    noted = files.address() or {}
    url = str(noted.get("url", ""))
    if urlsplit(url).scheme != "http":
        return None
    try:
        try:
            answer = _OPENER.open(f"{url}/health", timeout=TIMEOUT)
        except HTTPError as unhealthy:  # 503 says why in its body
            answer = unhealthy
        with answer:
            told = json.loads(answer.read(LARGEST))
    except (URLError, OSError, ValueError):
        return None
    if not isinstance(told, dict) or told.get("instance") != noted.get("instance"):
        return None
    return {"url": url, **told}
