"""Materialise some assets of the lineage in a process of its own, with Dagster's own storage.

python -m mlops_assets_tests.materialise ASSET,ASSET CONFIG_JSON
"""

import json
import sys

import dagster as dg

from mlops_assets.definitions import lineage_assets
from mlops_assets.resources import RESOURCES


def main(names: str, config: str) -> None:
    """Exit code 1 when an asset or a blocking check fails."""
    with dg.DagsterInstance.get() as instance:
        run = dg.materialize(
            lineage_assets(),
            selection=[dg.AssetKey(name) for name in names.split(",")],
            resources=RESOURCES,
            run_config=json.loads(config),
            instance=instance,
            raise_on_error=False,
        )
    sys.exit(0 if run.success else 1)


if __name__ == "__main__":
    main(*sys.argv[1:])
