"""The asset ``promotion_decision``, run on a candidate as a job does."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from mlops_assets.promotion.defs import promotion_decision
from mlops_assets.refs import GateRef, RegisteredModelRef
from mlops_assets.resources import RESOURCES
from mlops_assets_tests.releases import MODEL


def run_promotion(
    version: int, gate: GateRef, policy: Mapping[str, Any], tags: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The metadata of the asset, whose candidate the gate judged.

    Raises Dagster's error when the asset fails.
    """

    @dg.asset
    def registered_model() -> RegisteredModelRef:
        return RegisteredModelRef(MODEL, version, gate.bundle, gate.report)

    @dg.asset
    def gate_verdict() -> GateRef:
        return gate

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [registered_model, gate_verdict, promotion_decision],
            resources=RESOURCES,
            instance=instance,
            tags=tags,
            run_config={"ops": {"promotion_decision": {"config": dict(policy)}}},
        )
    (event,) = result.asset_materializations_for_node("promotion_decision")
    return {name: value.value for name, value in event.metadata.items()}
