"""The assets of the group ``dataset``."""

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import dagster as dg

from mlops_assets.artifacts import LineageError
from mlops_assets.checks import NO_LEAKAGE, CheckResult, record_check
from mlops_assets.code_digest import code_digest
from mlops_assets.dataset import (
    expectations,
    formats,
    leakage,
    sources,
    splits,
    validation,
    versioning,
)
from mlops_assets.dataset.lines import SHOWN
from mlops_assets.dataset.markdown import balance_picture, label_mix, preview
from mlops_assets.dataset.records import REASONS
from mlops_assets.dataset.spec import RawDatasetSpec
from mlops_assets.home import Home
from mlops_assets.privacy import excerpt
from mlops_assets.profiles import asset_config
from mlops_assets.refs import RawDatasetRef, SplitsRef, ValidatedRef, read_rows
from mlops_assets.resources import Workspace
from mlops_assets.sensor_interval import sensor_seconds

OWNERS = ["team:ml-platform"]
PREVIEW = 5  # rows shown on an asset's page
SLICE_COLUMNS = ("slice", "value", "rows")


class RawDatasetConfig(RawDatasetSpec, dg.Config):
    """Run config of ``raw_dataset``."""


class ValidationConfig(expectations.ValidationSpec, dg.Config):
    """Run config of ``validated_dataset``."""


class SplitConfig(splits.SplitSpec, dg.Config):
    """Run config of ``dataset_splits``."""


@dg.asset(
    group_name="dataset",
    kinds={"dvc"},
    owners=OWNERS,
    code_version=code_digest(sources.__name__),
)
def raw_dataset(
    context: dg.AssetExecutionContext, config: RawDatasetConfig, workspace: Workspace
) -> dg.MaterializeResult[RawDatasetRef]:
    """The DVC-tracked source data, exactly as it lies on disk.

    Its data version is DVC's own hash of the content. Data that DVC has pinned and that is
    missing is pulled from the DVC remote, or rebuilt with `dvc repro`, and compared with the
    pinned hash. A dataset on the Hugging Face hub, in lakeFS or in versioned S3 is taken at a
    pinned commit.
    """
    with workspace.stage(context):
        ref = sources.observe(config)
    return dg.MaterializeResult(
        value=ref, data_version=dg.DataVersion(ref.version), metadata=_raw_metadata(ref)
    )


@dg.asset(
    group_name="dataset",
    kinds={"greatexpectations", "pandas"},
    owners=OWNERS,
    code_version=code_digest(validation.__name__),
)
def validated_dataset(
    context: dg.AssetExecutionContext,
    config: ValidationConfig,
    workspace: Workspace,
    raw_dataset: RawDatasetRef,
) -> dg.MaterializeResult[ValidatedRef]:
    """The rows that are fit to learn from, personal data redacted, flagged or blocked.

    A Great Expectations suite judges every row (form, roles, lengths, times, labels,
    duplicates) and the data as a whole (size, vocabulary coverage, class balance). Bad rows go
    to a quarantine file with line number and reason; too many of them, or a failed expectation
    about the whole, stops the lineage here.
    """
    with workspace.stage(context) as store:
        ref = validation.validate(store, raw_dataset, config)
        directory = store.path(ref.artifact)
    return dg.MaterializeResult(
        value=ref,
        data_version=dg.DataVersion(ref.artifact.digest),
        metadata=_validated_metadata(ref, directory),
    )


@dg.asset(
    group_name="dataset",
    kinds={"python", "jsonl"},
    owners=OWNERS,
    code_version=code_digest(splits.__name__),
)
def dataset_splits(
    context: dg.AssetExecutionContext,
    config: SplitConfig,
    workspace: Workspace,
    validated_dataset: ValidatedRef,
) -> dg.MaterializeResult[SplitsRef]:
    """Train, validation and test rows.

    The split of a row is a stable hash of its group (the customer), so a row never moves when
    data grows, and no customer and no text stands in two splits. Splits that the source fixes
    are kept: its test rows are for measuring only.
    """
    with workspace.stage(context) as store:
        ref = splits.split(store, validated_dataset, config)
        directory = store.path(ref.artifact)
    return dg.MaterializeResult(
        value=ref,
        data_version=dg.DataVersion(ref.artifact.digest),
        metadata=_splits_metadata(ref, directory),
    )


@dg.asset_check(asset=dataset_splits, blocking=True)
def no_leakage(
    context: dg.AssetCheckExecutionContext, workspace: Workspace, dataset_splits: SplitsRef
) -> dg.AssetCheckResult:
    """Whether held-out rows are new to the model: no more of validation and test than tolerated
    stands, word for word or nearly, in an earlier split. The limits are those of the op
    `dataset_splits`. Near duplicates within a split are shown, not judged."""
    with workspace.stage(context) as store:
        found = leakage.report(store, dataset_splits)
    verdict = leakage.judge(found, dataset_splits.artifact.summary["limits"])
    result = CheckResult(verdict.passed, verdict.reason)
    record_check(workspace.home.checks, NO_LEAKAGE, dataset_splits.artifact.digest, result)
    return dg.AssetCheckResult(
        passed=verdict.passed,
        description=verdict.reason,
        metadata={
            "splits": _table(
                [{"split": name} | counts for name, counts in found["splits"].items()]
            ),
            "examples": _table(found["examples"]),
            "similarity": found["similarity"],
        },
    )


def _raw_metadata(ref: RawDatasetRef) -> dict[str, Any]:
    records = islice(formats.read(Path(ref.path), ref.format), 3)
    lines = "\n".join(excerpt(record.source[:SHOWN].rstrip()) for record in records)
    files = [{"file": name, "bytes": size} for name, size in ref.files.items()]
    return {
        "dvc_hash": ref.version,
        **_feedback_metadata(ref),
        "committed": ref.committed,
        **({"source": ref.source} if ref.source else {}),
        "path": dg.MetadataValue.path(ref.path),
        "format": ref.format,
        "mapping": dg.MetadataValue.json(dict(ref.mapping)),
        "files": _table(files),
        "bytes": sum(ref.files.values()),
        "first_lines": dg.MetadataValue.md(f"```\n{lines}\n```"),
    }


def _feedback_metadata(ref: RawDatasetRef) -> dict[str, Any]:
    """Both versions, where feedback stands after the source; else nothing."""
    source, feedback = versioning.parts(ref.version)
    if not feedback:
        return {}
    with Path(ref.feedback).open("rb") as stream:
        rows = sum(1 for _ in stream)
    return {
        "source_version": source,
        "feedback_version": feedback,
        "feedback_rows": rows,
        "feedback_path": dg.MetadataValue.path(ref.feedback),
    }


def _validated_metadata(ref: ValidatedRef, directory: Path) -> dict[str, Any]:
    reasons = [
        {"reason": reason, "rows": rows, "meaning": REASONS.get(reason, "")}
        for reason, rows in ref.quarantined.items()
    ]
    with (directory / validation.QUARANTINE).open(encoding="utf-8") as stream:
        examples = [json.loads(line) for line in islice(stream, PREVIEW)]
    rows = list(islice(read_rows(directory / validation.ROWS), PREVIEW))
    slices = ref.artifact.summary["slices"]
    docs = directory / validation.DATA_DOCS / "index.html"
    return {
        "rows_in": ref.rows_in,
        "rows": ref.rows,
        "quarantined": ref.rows_in - ref.rows,
        "quarantined_share": round((ref.rows_in - ref.rows) / max(ref.rows_in, 1), 4),
        "quarantine_by_reason": _table(reasons),
        "quarantine_examples": _table(examples),
        "quarantine_file": dg.MetadataValue.path(directory / validation.QUARANTINE),
        "redacted_rows": dg.MetadataValue.json(dict(ref.artifact.summary["redacted_rows"])),
        **_flagged(ref, directory),
        "data_docs": dg.MetadataValue.path(docs),
        "class_balance": dg.MetadataValue.md(balance_picture(directory / validation.CLASS_BALANCE)),
        "contradicted_rows": ref.artifact.summary["contradicted"],
        "slices": _table([dict(zip(SLICE_COLUMNS, found, strict=True)) for found in slices]),
        "preview": dg.MetadataValue.md(preview(rows)),
        "from_store": ref.artifact.reused,
    }


def _flagged(ref: ValidatedRef, directory: Path) -> dict[str, Any]:
    """How many rows hold what the policy only flags, and where they stand; else nothing."""
    file = directory / validation.FLAGGED
    if not file.is_file():
        return {}
    rows = dict(ref.artifact.summary["flagged_rows"])
    return {
        "flagged_rows": dg.MetadataValue.json(rows),
        "flagged_file": dg.MetadataValue.path(file),
    }


def _splits_metadata(ref: SplitsRef, directory: Path) -> dict[str, Any]:
    total, groups = sum(ref.rows.values()), ref.artifact.summary["groups"]
    sizes = [
        {
            "split": name,
            "rows": rows,
            "share": round(rows / total, 4),
            "groups": groups[name],
        }
        for name, rows in ref.rows.items()
    ]
    train = islice(read_rows(directory / "train.jsonl"), PREVIEW)
    return {
        "rows": total,
        "splits": _table(sizes),
        **ref.versions.by_name(),
        "label_mix": dg.MetadataValue.md(label_mix(ref)),
        "labels": dg.MetadataValue.json({name: list(v) for name, v in ref.labels.items()}),
        "preview": dg.MetadataValue.md(preview(list(train))),
        "path": dg.MetadataValue.path(directory),
        "from_store": ref.artifact.reused,
    }


def _table(records: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """A table for the asset's page; one line saying so when there is nothing to show."""
    return dg.MetadataValue.table(
        [dg.TableRecord(dict(record)) for record in records or [{"rows": "none"}]]
    )


@dg.sensor(
    job_name="retrain",
    minimum_interval_seconds=sensor_seconds(30),
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts the job retrain when DVC's hash of the data changes, once for each.",
)
def data_change_sensor(_context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Compares the data on disk with the version that the latest run read."""
    try:
        version = versioning.current_version(RawDatasetConfig(**asset_config("raw_dataset")).path)
    except LineageError as error:
        return dg.SkipReason(str(error))
    latest = Home.from_environment().latest("raw_dataset")
    # Of the source alone: new feedback is for the sensor of feedback.
    read = latest.version if isinstance(latest, RawDatasetRef) else "nothing"
    seen, _ = versioning.parts(read)
    if version == seen:
        return dg.SkipReason(f"The data is still {version}.")
    return dg.RunRequest(
        run_key=f"data:{version}",
        tags={"mlops/trigger": "data", "mlops/reason": f"DVC hash {seen} became {version}"},
    )


defs = dg.Definitions(
    assets=[raw_dataset, validated_dataset, dataset_splits],
    asset_checks=[no_leakage],
    sensors=[data_change_sensor],
)
