"""The tags without which no version is registered: the whole lineage of a model."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from mlops_assets.artifacts import LineageError
from mlops_assets.promotion.origin import origin_digest
from mlops_assets.provenance import Provenance
from mlops_assets.refs import AdapterRef, EvalReportRef


@dataclass(frozen=True)
class VersionTags:
    """Required tags of a registered version. Making one with an empty value is refused."""

    mlflow_run: str
    """The run that trained the adapter."""
    dagster_run: str
    dataset_hash: str
    """DVC's hash of the raw data that trained the adapter."""
    prompts_hash: str
    eval_set_hash: str
    """Of the rows that measured it: see ``refs.Versions``."""
    base_digest: str
    adapter_digest: str
    bundle_digest: str
    report_digest: str
    git_commit: str
    git_dirty: str
    """``true`` or ``false``."""
    lock_file_hash: str
    code_version: str
    origin_digest: str
    """SHA-256 of ``origin.json`` in the registered package: see ``promotion.origin``."""

    def __post_init__(self) -> None:
        missing = [name for name, value in asdict(self).items() if not str(value or "").strip()]
        if missing:
            raise LineageError(
                f"The version cannot be registered: nothing is known of {', '.join(missing)}.",
                "Materialise `lora_adapter` and `eval_report` again; a version without its whole"
                " lineage is never registered.",
            )

    def as_mapping(self) -> dict[str, str]:
        """The tags as the registry stores them."""
        return dict(asdict(self))


REQUIRED = tuple(field.name for field in fields(VersionTags))


def complete(tags: Mapping[str, str]) -> bool:
    """Whether no required tag is missing or empty."""
    return all(tags.get(name) for name in REQUIRED)


def make_tags(adapter: AdapterRef, evaluated: EvalReportRef, provenance: Provenance) -> VersionTags:
    """The tags of the evaluated bundle. Raises LineageError when the inputs do not agree."""
    bundle = evaluated.bundle
    if bundle.adapter.digest != adapter.artifact.digest:
        raise LineageError(
            "The evaluation report measured another adapter than the latest.",
            "Materialise `eval_report` again.",
        )
    return VersionTags(
        mlflow_run=adapter.mlflow_run,
        dagster_run=adapter.dagster_run,
        **bundle.versions.by_name(),
        base_digest=bundle.base.digest,
        adapter_digest=bundle.adapter.digest,
        bundle_digest=bundle.digest,
        report_digest=evaluated.artifact.digest,
        git_commit=provenance.git_commit,
        git_dirty="true" if provenance.git_dirty else "false",
        lock_file_hash=provenance.lock_file_hash,
        code_version=provenance.code_version,
        origin_digest=origin_digest(adapter),
    )
