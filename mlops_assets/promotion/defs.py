"""The registered version, what became of it, and the job `approve`."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

import mlops_assets
from mlops_assets.approval_requests import OPEN, Standing, utc_now, ways_to_approve
from mlops_assets.approval_standing import pending
from mlops_assets.approvers import NAME, read_approvers
from mlops_assets.artifacts import ArtifactStore, LineageError, digest_json
from mlops_assets.code_digest import code_digest
from mlops_assets.gate_alert import stopped_message
from mlops_assets.home import Home
from mlops_assets.promotion import approval, automatic, package, registry, request, turned_down
from mlops_assets.promotion.approval_alerts import send_alerts, try_alerts
from mlops_assets.promotion.bill_of_materials import BILL
from mlops_assets.promotion.decision_rows import (
    DECIDED,
    PENDING,
    counted,
    pending_rows,
    recent_rows,
)
from mlops_assets.promotion.model_card import card_text
from mlops_assets.promotion.page_address import evidence_url
from mlops_assets.promotion.spec import PromotionSpec
from mlops_assets.promotion.submission import RegistrationSpec, Submission
from mlops_assets.promotion.version_tags import make_tags
from mlops_assets.provenance import find_author, find_provenance
from mlops_assets.refs import (
    AdapterRef,
    BaseModelRef,
    DecisionRef,
    EvalReportRef,
    GateRef,
    RegisteredModelRef,
    SplitsRef,
)
from mlops_assets.resources import Alerts, Cost, Tracking, Workspace, table
from mlops_assets.sensor_interval import sensor_seconds
from mlops_assets.signing import load_key
from mlops_assets.statements import stamp
from mlops_assets.verdicts import PASS, read_gate

OWNERS = ["team:ml-platform"]
PACKAGE = Path(mlops_assets.__file__).resolve().parent


class RegistrationConfig(RegistrationSpec, dg.Config):
    """Settings of the registration as run config."""


class PromotionConfig(PromotionSpec, dg.Config):
    """The policy of approval as run config."""


@dg.asset(
    group_name="promotion",
    kinds={"mlflow"},
    owners=OWNERS,
    code_version=code_digest(package.__name__),
    pool="registry",
)
def registered_model(
    context: dg.AssetExecutionContext,
    config: RegistrationConfig,
    workspace: Workspace,
    tracking: Tracking,
    cost: Cost,
    dataset_splits: SplitsRef,
    base_model: BaseModelRef,
    lora_adapter: AdapterRef,
    eval_report: EvalReportRef,
    gate_verdict: GateRef,
) -> dg.MaterializeResult[RegisteredModelRef]:
    """The evaluated bundle as a version in the MLflow registry, alias `candidate`.

    An MLflow model directory with signature, model card, bill of materials, settings and
    adapter: safetensors and text, never a pickle. Its tags hold the whole lineage (runs, data,
    base, adapter, prompt, report, gate, commit, author, lock file, licences, cost): complete or
    refused. The same bundle with the same evidence is the same version.
    """

    @contextmanager
    def attach() -> Iterator[str]:
        with tracking.attach(context) as run:
            yield run.mlflow_run

    with workspace.stage(context) as store:
        home, made_of = workspace.home, (dataset_splits, base_model, lora_adapter, eval_report)
        submission = Submission(workspace.model, *made_of, gate_verdict, cost.rates, config)
        tags = make_tags(store, submission, find_provenance(PACKAGE))
        built: list[registry.Package] = []

        def make_package() -> registry.Package:
            built.append(package.make_package(store, submission))
            return built[0]

        number = registry.register(home, workspace.model, tags, make_package, attach)
        ref = RegisteredModelRef(workspace.model, number, eval_report.bundle, eval_report.artifact)
        made = tags.as_mapping() | (dict(built[0].tags) if built else {})
        metadata = _version_metadata(home, store, ref, made)
    return dg.MaterializeResult(
        value=ref,
        data_version=dg.DataVersion(digest_json([workspace.model, number, ref.bundle.digest])),
        metadata=metadata | {"from_store": not built},
    )


@dg.asset(
    group_name="promotion",
    kinds={"mlflow", "sqlite"},
    owners=OWNERS,
    code_version=code_digest(request.__name__),
    pool="registry",
)
def promotion_decision(
    context: dg.AssetExecutionContext,
    config: PromotionConfig,
    workspace: Workspace,
    alerts: Alerts,
    registered_model: RegisteredModelRef,
    gate_verdict: GateRef,
) -> dg.MaterializeResult[DecisionRef]:
    """What became of the candidate: requested, or promoted where the policy lets a key of this
    machine approve.

    Reads the gate's result again from its verified artifact; what passed is asked of people. The
    request is a row in the ledger with its evidence; it expires, and nothing waits in a process.
    `mlops approve`, the job `approve` or the signed link answer it; the registry's aliases follow
    the ledger. A bundle that already is the champion needs no answer.
    """
    with workspace.stage(context) as store:
        home, now, run = workspace.home, utc_now(), context.run.run_id
        metadata: dict[str, Any] = {}
        approval.settle(home, registered_model.name, now)  # what a crash interrupted comes first
        if champion := request.as_champion(home, registered_model):
            ref = request.nothing_to_ask(champion, registered_model)
        elif (gate := read_gate(store, gate_verdict)).verdict != PASS:
            ref = request.not_requested(registered_model, gate.verdict)
            # The profile lets the run go on, so no failure tells of it.
            alerts.send(stopped_message(run, context.run.job_name, gate))
        elif config.automatic and (
            undone := request.find_undone(home, registered_model, gate_verdict)
        ):
            ref = request.rolled_back(undone, registered_model)
        elif "mlops/trigger" in context.run.tags and (
            refused := turned_down.find_turned_down(home, registered_model, gate, config, now)
        ):
            ref = turned_down.not_asked_again(refused, registered_model)
        else:
            author = find_author(PACKAGE)
            found = request.open_request(
                home, registered_model, gate_verdict, config, author, run, now
            )
            if answer := automatic.approve_automatically(home, found, now):
                found = answer.standing
            try_alerts(home)
            ref = request.reference(found)
            metadata = _request_metadata(home, found, run)
        aliases = registry.reconcile(home, registered_model.name)
    return dg.MaterializeResult(
        value=ref,
        data_version=dg.DataVersion(digest_json([ref.entry, ref.state, ref.bundle])),
        metadata=_decisions(home, ref)
        | metadata
        | {"aliases": dg.MetadataValue.json(dict(aliases))}
        | registered_model.bundle.versions.by_name(),
    )


class Answer(dg.Config):
    """Who approves what, and why. The private key comes from a file or the environment."""

    version: int = Field(ge=1, description="Number of the registered version.")
    name: str = Field(pattern=NAME, description="The approver's name on the list.")
    reason: str = Field(min_length=1, description="Why; it is signed and kept for good.")
    key_file: str | None = Field(
        None,
        description="File of the private key; default: what MLOPS_SIGNING_KEY holds or names, else"
        " MLOPS_HOME/keys/NAME.pem.",
    )


@dg.op
def approve_version(context: dg.OpExecutionContext, config: Answer, workspace: Workspace) -> None:
    """Sign and record one approval, as `mlops approve` does."""
    home, path = workspace.home, Path(config.key_file) if config.key_file else None
    try:
        key = load_key(path, home.root / "keys" / f"{config.name}.pem")
        answer = approval.approve(
            home, config.version, config.name, config.reason, key, model=workspace.model
        )
    except LineageError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    context.add_output_metadata(answer.as_json())
    # The asset's page shows what its last run saw; this is what stands now.
    shown = _decisions(home, request.reference(answer.standing))
    context.log_event(dg.AssetObservation("promotion_decision", metadata=shown))


@dg.job(
    name="approve",
    description="Approve a version that waits: see docs/approval.md.",
    executor_def=dg.in_process_executor,
)
def approve_job() -> None:
    """One step: nothing else has to run for a person to say yes."""
    approve_version()


def _version_metadata(
    home: Home, store: ArtifactStore, ref: RegisteredModelRef, made: Mapping[str, str]
) -> dict[str, Any]:
    """Name, lineage and model card of the version, as it was registered."""
    seen = registry.glance(home, ref.name)
    tags = dict(seen.versions.get(ref.version, {})) if seen else dict(made)
    metadata: dict[str, Any] = {
        "model": ref.name,
        "version": ref.version,
        "uri": f"models:/{ref.name}/{ref.version}",
        **ref.bundle.versions.by_name(),
        "lineage": table(
            ({"tag": name, "value": tags[name]} for name in sorted(tags)),
            {"tag": "string", "value": "string"},
        ),
    }
    if (directory := package.find_package(store, tags)) is None:
        return metadata
    card = (directory / package.CARD).read_text(encoding="utf-8")
    return metadata | {
        "model_card": dg.MetadataValue.md(card_text(card)),
        "bill_of_materials": dg.MetadataValue.path(str(directory / BILL)),
        "package": dg.MetadataValue.path(str(directory)),
    }


def _request_metadata(home: Home, found: Standing, run: str) -> dict[str, Any]:
    """What a person needs to decide: the evidence, who has answered, and how to."""
    terms, asked = found.request.terms, found.request.entry.decision
    report = home.store.root / terms.report["kind"] / terms.report["key"] / "report.html"
    commands = "\n".join(ways_to_approve(found, read_approvers(home)))
    metadata: dict[str, Any] = {
        "request": found.request.id,
        "expires": stamp(terms.expires),
        "author": terms.author,
        "approvals": counted(found),
        "criteria": table(
            terms.criteria, {"name": "string", "verdict": "string", "detail": "string"}
        ),
        "report": dg.MetadataValue.path(report),
        "evidence": dg.MetadataValue.json(asked.evidence),
        "from_store": asked.evidence.get("requested_in_run") != run,
    }
    if page := evidence_url(home, found.request.id):
        metadata["page"] = dg.MetadataValue.url(page)
    if found.state == OPEN:
        metadata["approve_with"] = dg.MetadataValue.md(f"```\n{commands}\n```")
    if found.reason:
        metadata["reason"] = found.reason
    return metadata


def _decisions(home: Home, ref: DecisionRef) -> dict[str, Any]:
    """Where the candidate stands, what else waits, and the ledger's last rows."""
    entries = home.ledger.entries()
    waiting = pending(entries, read_approvers(home), utc_now())
    return {
        "state": ref.state,
        "ledger_entry": ref.entry,
        "ledger_entries": len(entries),
        "pending_approvals": table(pending_rows(waiting), PENDING),
        "latest_decisions": table(recent_rows(entries), DECIDED),
        "from_store": True,
    }


@dg.sensor(
    minimum_interval_seconds=sensor_seconds(30),
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Sends the alerts of open approval requests that no webhook has taken yet.",
)
def approval_alerts(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Starts no run: an alert that could not be delivered waits here for the next tick."""
    try:
        return dg.SkipReason(str(send_alerts(Home.from_environment())))
    except LineageError as error:
        context.log.error(str(error))
        return dg.SkipReason(str(error))


defs = dg.Definitions(
    assets=[registered_model, promotion_decision], jobs=[approve_job], sensors=[approval_alerts]
)
