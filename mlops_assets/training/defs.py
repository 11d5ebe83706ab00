"""The assets of the stage `training`: the base model, and what it is tuned to."""

import base64
from collections.abc import Mapping
from typing import Any

import dagster as dg

from mlops_assets.artifacts import SHORT, LineageError
from mlops_assets.checks import TEMPLATE_FIDELITY, CheckResult, adapter_on_base, record_check
from mlops_assets.code_digest import code_digest
from mlops_assets.refs import AdapterRef, BaseModelRef, SplitsRef
from mlops_assets.resources import Cost, Tracking, Workspace
from mlops_assets.tracking import ui_address
from mlops_assets.training import base_model as base_models
from mlops_assets.training import finetune as finetuning
from mlops_assets.training.run_tables import cost_table, memory_table
from mlops_assets.training.spec import BaseModelSpec, FinetuneSpec
from mlops_assets.training.sweep import TRAINED_BY_SWEEP
from mlops_assets.training.template_fidelity import check_fidelity

OWNERS = ["team:ml-platform"]
SHOWN = 20  # rows that a failed check lists


class BaseModelConfig(BaseModelSpec, dg.Config):
    """Settings of the asset `base_model`."""


class FinetuneConfig(FinetuneSpec, dg.Config):
    """Settings of the asset `lora_adapter`."""


@dg.asset(
    group_name="training",
    kinds={"huggingface", "pytorch"},
    owners=OWNERS,
    code_version=code_digest(base_models.__name__),
)
def base_model(
    context: dg.AssetExecutionContext,
    config: BaseModelConfig,
    workspace: Workspace,
    dataset_splits: SplitsRef,
) -> dg.MaterializeResult[BaseModelRef]:
    """The causal language model that is fine-tuned: a hub model at a pinned commit, a local
    directory, or by default a Llama of a million parameters that is built here, with its own
    tokenizer, and pretrained on the texts of the train split. The tiny one knows the chat
    format and the label words but not the task. Only safetensors are taken; pickle weights
    and code from model directories are refused.
    """
    with workspace.stage(context) as store:
        ref = base_models.provide(store, dataset_splits, config)
        files = sorted(path.name for path in store.path(ref.artifact).iterdir())
    return dg.MaterializeResult(
        value=ref,
        data_version=dg.DataVersion(ref.artifact.digest),
        metadata={
            "from_store": ref.artifact.reused,
            "name": ref.name,
            "parameters": ref.parameters,
            **(ref.versions.by_name() if ref.versions else {}),
            "digest": ref.artifact.digest[:SHORT],
            "directory": dg.MetadataValue.path(str(store.path(ref.artifact))),
            "files": dg.MetadataValue.md("\n".join(f"- `{name}`" for name in files)),
            **_pretraining(ref.artifact.summary),
        },
    )


@dg.asset(
    group_name="training",
    kinds={"huggingface", "pytorch", "mlflow"},
    owners=OWNERS,
    code_version=code_digest(finetuning.__name__),
    pool="training",
)
def lora_adapter(
    context: dg.AssetExecutionContext,
    config: FinetuneConfig,
    workspace: Workspace,
    tracking: Tracking,
    cost: Cost,
    dataset_splits: SplitsRef,
    base_model: BaseModelRef,
) -> dg.MaterializeResult[AdapterRef]:
    """What teaches the base model the task: an adapter, or all its weights anew. TRL trains it
    by SFT, DPO, ORPO or KTO, loss on the answers only, everything seeded. Settings, losses by
    step, tokens per second and the loss curve go to MLflow. The same inputs and settings are
    found in the artifact store instead of being trained again; the MLflow run shown is then
    the one that trained them.
    """
    with workspace.stage(context) as store:
        ref = finetuning.finetune(
            store,
            dataset_splits,
            base_model,
            config,
            attach=lambda: tracking.attach(context),
            dagster_run=context.run.run_id,
            rates=cost.rates,
        )
        directory = store.path(ref.artifact)
    summary = ref.artifact.summary
    picture = base64.b64encode((directory / finetuning.CURVE).read_bytes()).decode()
    return dg.MaterializeResult(
        value=ref,
        data_version=dg.DataVersion(ref.artifact.digest),
        metadata={
            "from_store": ref.artifact.reused,
            "loss_curve": dg.MetadataValue.md(f"![loss](data:image/png;base64,{picture})"),
            **{name: summary[name] for name in finetuning.FIGURES if name in summary},
            "cost": dg.MetadataValue.md(cost_table(summary, cost.rates)),
            "memory": dg.MetadataValue.md(memory_table(summary)),
            **ref.versions.by_name(),
            **_prompt(ref),
            "digest": ref.artifact.digest[:SHORT],
            "directory": dg.MetadataValue.path(str(directory)),
            "mlflow_run": ref.mlflow_run,
            "mlflow": _mlflow_link(ref),
            "trained_by_run": _trained_by(ref.dagster_run),
        },
    )


@dg.asset_check(
    asset=lora_adapter,
    blocking=True,
    additional_ins={"dataset_splits": dg.AssetIn("dataset_splits")},
)
def template_fidelity(
    workspace: Workspace, lora_adapter: AdapterRef, dataset_splits: SplitsRef
) -> dg.AssetCheckResult:
    """Whether the tokens trained on are those that servers render for the same conversations,
    and whether the end of a turn was learnt; rows of every shape of conversation."""
    try:
        found = check_fidelity(workspace.home.store, dataset_splits, lora_adapter)
    except LineageError as error:
        return dg.AssetCheckResult(passed=False, description=f"No verdict: {error}")
    result = CheckResult(found.passed, str(found))
    digest = adapter_on_base(lora_adapter.base, lora_adapter.artifact)
    record_check(workspace.home.checks, TEMPLATE_FIDELITY, digest, result)
    wrong = [dg.TableRecord(vars(mismatch)) for mismatch in found.mismatches[:SHOWN]]
    return dg.AssetCheckResult(
        passed=found.passed,
        description=str(found),
        metadata={"rows": found.rows} | ({"wrong": dg.MetadataValue.table(wrong)} if wrong else {}),
    )


def _pretraining(summary: Mapping[str, Any]) -> dict[str, Any]:
    figures = ("pretraining_loss", "pretraining_tokens", "tokens_per_second", "seconds")
    return {name: summary[name] for name in (*figures, "revision") if name in summary}


def _prompt(ref: AdapterRef) -> dict[str, Any]:
    if ref.prompt is None:
        return {}
    named = ref.prompt.summary
    return {"prompt": f"{named['name']}, version {named['version']}"}


def _trained_by(run: str) -> dg.MetadataValue[Any]:
    """A link to the run, or the name of the sweep whose winner was found in the store."""
    if run.startswith(TRAINED_BY_SWEEP):
        return dg.MetadataValue.text(run)
    return dg.MetadataValue.dagster_run(run)


def _mlflow_link(ref: AdapterRef) -> dg.MetadataValue[Any]:
    experiment = ref.artifact.summary["mlflow_experiment"]
    return dg.MetadataValue.url(f"{ui_address()}/#/experiments/{experiment}/runs/{ref.mlflow_run}")


defs = dg.Definitions(assets=[base_model, lora_adapter], asset_checks=[template_fidelity])
