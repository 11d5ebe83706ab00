"""The asset `lora_adapter` as a job of its own, for `dagster job execute -m`: a test stops it."""

import dagster as dg

from mlops_assets.console import console
from mlops_assets.definitions import lineage_assets
from mlops_assets.resources import RESOURCES
from mlops_assets.training import arguments
from mlops_assets_tests.small_training import LOG_POINTS, SPEC

arguments.LOG_POINTS = LOG_POINTS  # as `small_training.train` does

CONFIG = {
    "execution": {"config": {"in_process": {}}},
    "loggers": {"console": {}},
    "ops": {"lora_adapter": {"config": SPEC.model_dump(exclude_unset=True)}},
}

defs = dg.Definitions(
    assets=lineage_assets(),
    jobs=[
        dg.define_asset_job(
            "train", selection=dg.AssetSelection.assets("lora_adapter"), config=CONFIG
        )
    ],
    resources=RESOURCES,
    loggers={"console": console},
)
