"""The stage's assets: the registered version, and the decision what the champion is."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

import mlops_assets
from mlops_assets.artifacts import Artifact, ArtifactStore, LineageError, digest_json
from mlops_assets.code_digest import code_digest
from mlops_assets.home import Home
from mlops_assets.ledger import LedgerEntry
from mlops_assets.promotion import decision, package, registry
from mlops_assets.promotion.approval_alerts import send_alerts
from mlops_assets.promotion.version_tags import VersionTags, make_tags
from mlops_assets.provenance import find_provenance
from mlops_assets.refs import AdapterRef, DecisionRef, EvalReportRef, GateRef, RegisteredModelRef
from mlops_assets.resources import Tracking, Workspace

OWNERS = ["team:ml-platform"]
PACKAGE = Path(mlops_assets.__file__).resolve().parent


@dg.asset(
    group_name="promotion",
    kinds={"mlflow"},
    owners=OWNERS,
    code_version=code_digest(package.__name__),
    deps=["gate_verdict"],  # whose check stops what may not be registered
    pool="registry",
)
def registered_model(
    context: dg.AssetExecutionContext,
    workspace: Workspace,
    tracking: Tracking,
    eval_report: EvalReportRef,
    lora_adapter: AdapterRef,
) -> dg.MaterializeResult[RegisteredModelRef]:
    """The evaluated bundle as a version in the MLflow registry, alias `candidate`.

    An MLflow model directory with signature, model card and adapter, without a pickle. Its
    tags hold the whole lineage (runs, data, base, adapter, bundle, report, commit, lock
    file); a version that would lack one is refused. The same bundle with the same report is
    the same version.
    """

    @contextmanager
    def attach() -> Iterator[str]:
        with tracking.attach(context) as run:
            yield run.mlflow_run

    with workspace.stage(context) as store:
        home, tags = workspace.home, make_tags(lora_adapter, eval_report, find_provenance(PACKAGE))
        built: list[Artifact] = []

        def make_package() -> registry.Package:
            built.append(package.build_package(store, workspace.model, lora_adapter, eval_report))
            return registry.Package(store.path(built[0]), built[0].summary["head"])

        number = registry.register(home, workspace.model, tags, make_package, attach)
        ref = RegisteredModelRef(workspace.model, number, eval_report.bundle, eval_report.artifact)
        metadata = _version_metadata(home, store, ref, tags)
    return dg.MaterializeResult(
        value=ref,
        data_version=dg.DataVersion(digest_json([workspace.model, number, ref.bundle.digest])),
        metadata=metadata | {"from_store": not built},
    )


@dg.asset(
    group_name="promotion",
    kinds={"mlflow", "sqlite"},
    owners=OWNERS,
    code_version=code_digest(decision.__name__),
    pool="registry",
)
def promotion_decision(
    context: dg.AssetExecutionContext,
    workspace: Workspace,
    registered_model: RegisteredModelRef,
    gate_verdict: GateRef,
) -> dg.MaterializeResult[DecisionRef]:
    """Whether the candidate becomes the champion: promoted, kept or no verdict.

    Reads the gate's result again from its verified artifact: a candidate that passed against
    the champion of now is promoted. The decision is a row in the ledger with its evidence; the
    registry's aliases `champion` and `previous` follow the ledger.
    """
    with workspace.stage(context) as store:
        home = workspace.home
        ref = decision.decide(
            store, home.ledger, registered_model, gate_verdict, context.run.run_id
        )
        aliases = registry.reconcile(home, registered_model.name)
        entries = home.ledger.entries()
    return dg.MaterializeResult(
        value=ref,
        data_version=dg.DataVersion(digest_json([ref.entry, ref.outcome, ref.bundle])),
        metadata=_decision_metadata(ref, entries, dict(aliases), context.run.run_id)
        | registered_model.bundle.versions.by_name(),
    )


def _version_metadata(
    home: Home, store: ArtifactStore, ref: RegisteredModelRef, made: VersionTags
) -> dict[str, Any]:
    """Name, lineage and model card of the version, as it was registered."""
    seen = registry.glance(home, ref.name)
    tags = dict(seen.versions.get(ref.version, {})) if seen else made.as_mapping()
    made_from = (tags.get(name, "") for name in ("report_digest", "origin_digest"))
    recipe = package.package_recipe(ref.name, ref.bundle.digest, *made_from)
    found = store.find(recipe.kind, recipe.key)
    metadata: dict[str, Any] = {
        "model": ref.name,
        "version": ref.version,
        "uri": f"models:/{ref.name}/{ref.version}",
        **ref.bundle.versions.by_name(),
        "lineage": dg.MetadataValue.table(
            [dg.TableRecord({"tag": name, "value": tags[name]}) for name in sorted(tags)],
            schema=_schema(("tag", "string"), ("value", "string")),
        ),
    }
    if found is None:
        return metadata
    card = store.path(found) / package.CARD
    return metadata | {
        "model_card": dg.MetadataValue.md(card.read_text(encoding="utf-8")),
        "package": dg.MetadataValue.path(str(card.parent)),
    }


def _decision_metadata(
    ref: DecisionRef, entries: list[LedgerEntry], aliases: dict[str, int], run: str
) -> dict[str, Any]:
    columns = (("entry", "int"), ("at", "string"), ("outcome", "string"), ("version", "int"))
    recent = [
        dg.TableRecord(
            {
                "entry": row.entry,
                "at": row.at,
                "outcome": row.decision.outcome,
                "version": row.decision.version,
                "reason": row.decision.reason,
            }
        )
        for row in entries[-10:]
    ]
    evidence = next(row.decision.evidence for row in entries if row.entry == ref.entry)
    return {
        "outcome": ref.outcome,
        "reason": ref.reason,
        "ledger_entry": ref.entry,
        "ledger_entries": len(entries),
        "latest_decisions": dg.MetadataValue.table(
            recent, schema=_schema(*columns, ("reason", "string"))
        ),
        "evidence": dg.MetadataValue.json(evidence),
        "aliases": dg.MetadataValue.json(aliases),
        "from_store": evidence.get("decided_in_run") != run,
    }


def _schema(*columns: tuple[str, str]) -> dg.TableSchema:
    return dg.TableSchema([dg.TableColumn(name, kind) for name, kind in columns])


@dg.sensor(
    minimum_interval_seconds=30,
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


defs = dg.Definitions(assets=[registered_model, promotion_decision], sensors=[approval_alerts])
