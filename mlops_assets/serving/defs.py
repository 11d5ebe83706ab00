"""The stage's assets: what users are served of the model, and the gateway that serves it.

Both only look: what is done about a release the gateway does, and `mlops rollback`.
"""

from typing import Any

import dagster as dg

from mlops_assets.artifacts import SHORT, LineageError, digest_json
from mlops_assets.code_digest import code_digest
from mlops_assets.home import Home
from mlops_assets.release_alert import send_release_alerts
from mlops_assets.release_state import STEPS, read_release
from mlops_assets.release_view import (
    CRITERION_COLUMNS,
    SPLIT_COLUMNS,
    STEP_COLUMNS,
    criterion_rows,
    release_json,
    release_line,
    shadow_page,
    split_rows,
    step_rows,
)
from mlops_assets.resources import Workspace, table
from mlops_assets.sensor_interval import sensor_seconds
from mlops_assets.serving.gateway_spec import GatewaySpec
from mlops_assets.serving.rollout.release_spec import ReleaseSpec
from mlops_assets.serving.running_gateway import ask_gateway
from mlops_assets.serving.serving_home import ServingHome

OWNERS = ["team:ml-platform"]
ENGINE_COLUMNS = {"engine": "string", "state": "string", "release": "string"}
NOT_RUNNING = "not running: `mlops serve` starts it"


class ReleaseConfig(ReleaseSpec, dg.Config):
    """Settings of a release as run config; the gateway reads them from the profile."""


class GatewayConfig(GatewaySpec, dg.Config):  # type: ignore[misc] # of several pydantic models
    """Settings of the gateway as run config; it reads them from the profile."""


@dg.asset(
    group_name="serving",
    kinds={"sqlite"},
    owners=OWNERS,
    code_version=code_digest("mlops_assets.serving.rollout.rollout"),
    deps=["promotion_decision"],
)
def release(
    context: dg.AssetExecutionContext, config: ReleaseConfig, workspace: Workspace
) -> dg.MaterializeResult[None]:
    """What users are served, as the ledger's rows add up.

    Stable, candidate, stage and share of the users; the steps, with the numbers that decided on
    the last one. A promotion waits here until a gateway takes it up; the gateway takes it to its
    users step by step, or off them, and `mlops rollback` does that by hand.
    """
    with workspace.looking(context):
        entries = workspace.home.ledger.entries()
        state = read_release(entries, workspace.model)
        told = release_json(state)
        page = shadow_page(workspace.home.store, entries, workspace.model)
    metadata: dict[str, Any] = {
        "state": release_line(state),
        "traffic": table(split_rows(state), SPLIT_COLUMNS),
        "steps": table(step_rows(entries, workspace.model), STEP_COLUMNS),
        "criteria": table(criterion_rows(entries, workspace.model), CRITERION_COLUMNS),
        "settings": dg.MetadataValue.json(config.model_dump(mode="json")),
        "from_store": True,
    }
    if page is not None:
        metadata["shadow_report"] = dg.MetadataValue.path(page)
    if state.restores is not None:
        metadata["take_back_with"] = dg.MetadataValue.md(
            f'`mlops rollback --model {workspace.model} --as NAME --reason "..."` restores version'
            f" {state.restores.decision.version}"
        )
    return dg.MaterializeResult(data_version=dg.DataVersion(digest_json(told)), metadata=metadata)


@dg.asset(
    group_name="serving",
    kinds={"starlette"},
    owners=OWNERS,
    code_version=code_digest("mlops_assets.serving.gateway.gateway"),
    deps=["release"],
)
def gateway(
    context: dg.AssetExecutionContext, config: GatewayConfig, workspace: Workspace
) -> dg.MaterializeResult[None]:
    """The gateway that serves the model to users: what the running one says of itself.

    `mlops serve` runs it, no run of Dagster's does; where none runs, this says so. Its data version
    is that of the settings.
    """
    with workspace.looking(context):
        told = ask_gateway(ServingHome.of(workspace.home))
    metadata: dict[str, Any] = {"status": NOT_RUNNING} if told is None else _said(told, config)
    metadata["settings"] = dg.MetadataValue.json(config.model_dump(mode="json"))
    metadata["from_store"] = True
    return dg.MaterializeResult(data_version=dg.DataVersion(config.digest), metadata=metadata)


def _said(told: dict[str, Any], config: GatewaySpec) -> dict[str, Any]:
    """What the running gateway says of itself, as metadata."""
    return {
        "status": told["status"],
        "address": dg.MetadataValue.url(f"{told['url']}/health"),
        "stage": told["stage"],
        "verdict": told.get("verdict") or "none is due",
        "engines": table(
            [{**each, "release": each["release"][:SHORT]} for each in told["engines"]],
            ENGINE_COLUMNS,
        ),
        "ledger": dg.MetadataValue.json(told["ledger"]),
        "runs_with_these_settings": told["config"] == config.digest,
    }


@dg.sensor(
    job_name="follow_release",
    minimum_interval_seconds=sensor_seconds(30),
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="After a step of a release: shows it, and tells people of a release or a rollback.",
)
def release_changed(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Starts `follow_release` once for each last step; an undelivered alert waits for the next
    tick."""
    home = Home.from_environment()
    try:
        entries = home.ledger.entries()
        alerts = send_release_alerts(home, entries)
    except LineageError as error:
        context.log.error(str(error))
        return dg.SkipReason(str(error))
    steps = [row for row in entries if row.decision.outcome in STEPS]
    if not steps:
        return dg.SkipReason("No gateway has released anything yet.")
    last = steps[-1]
    context.log.info("alerts: %s", alerts)
    return dg.RunRequest(
        run_key=f"release:{last.computed}",
        tags={"mlops/trigger": "release", "mlops/reason": last.decision.reason[:200]},
    )


defs = dg.Definitions(assets=[release, gateway], sensors=[release_changed])
