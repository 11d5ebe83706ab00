"""``origin.json``: what it takes to train a registered version again, and what to expect.

It stands in the registered package, because the settings of five assets are too much for tags;
a tag holds its digest. `mlops reproduce` reads it.
"""

import hashlib
import json

from mlops_assets.artifacts import SHORT, LineageError
from mlops_assets.refs import AdapterRef

ORIGIN = "origin.json"
MEASURED = ("train_loss", "validation_loss")


def render_origin(adapter: AdapterRef) -> bytes:
    """The file's content, the same bytes for the same adapter.

    Raises LineageError when the adapter's manifest does not say what it was made from.
    """
    summary = adapter.artifact.summary
    try:
        content = {
            "digests": {
                "splits": summary["splits_digest"],
                "base": adapter.base.digest,
                "adapter": adapter.artifact.digest,
            },
            "versions": dict(summary["versions"]),
            "metrics": {name: summary[name] for name in MEASURED},
            "hardware": dict(summary["hardware"]),
            "libraries": dict(summary["libraries"]),
            "settings": json.loads(summary["settings"]),
        }
    except KeyError as error:
        raise LineageError(
            f"The adapter {adapter.artifact.key[:SHORT]} does not say what made it (no {error}).",
            "Delete its directory in the artifact store, and materialise `lora_adapter` again.",
        ) from error
    # Not sorted: the order of the labels counts.
    return json.dumps(content, indent=1, ensure_ascii=False).encode()


def origin_digest(adapter: AdapterRef) -> str:
    """SHA-256 of ``origin.json``, 64 hex digits."""
    return hashlib.sha256(render_origin(adapter)).hexdigest()
