"""The tags without which no version is registered: the whole lineage of a model."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from mlops_assets.artifacts import ArtifactStore, LineageError
from mlops_assets.promotion.origin import origin_digest
from mlops_assets.promotion.submission import Submission, training_cost, whole_settings
from mlops_assets.provenance import Provenance


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
    prompt_digest: str
    """Of the prompt that is added when serving: the version of the prompt."""
    report_digest: str
    gate_digest: str
    gate_verdict: str
    """``PASS``, ``FAIL`` or ``INCONCLUSIVE``."""
    git_commit: str
    git_dirty: str
    """``true`` or ``false``."""
    author: str
    """Of the change: who may not approve it alone where two have to."""
    lock_file_hash: str
    code_version: str
    origin_digest: str
    """SHA-256 of ``origin.json`` in the registered package: see ``promotion.origin``."""
    config_digest: str
    """SHA-256 of ``config.yaml`` in the registered package: the whole settings."""
    base_license: str
    """SPDX expression, or ``unknown``; so is that of the data."""
    data_license: str
    training_tokens: str
    training_seconds: str
    training_flops: str
    training_energy_kwh: str
    training_energy_source: str
    training_money: str
    training_currency: str

    def __post_init__(self) -> None:
        missing = [name for name, value in asdict(self).items() if not str(value or "").strip()]
        if missing:
            raise LineageError(
                f"The version cannot be registered: nothing is known of {', '.join(missing)}.",
                "Materialise `lora_adapter` and `eval_report` again; a version without its whole"
                " lineage is never registered.",
            )

    @property
    def identity(self) -> dict[str, str]:
        """The tags that make two registrations the same version."""
        return {name: self.as_mapping()[name] for name in IDENTITY}

    def as_mapping(self) -> dict[str, str]:
        """The tags as the registry stores them."""
        return dict(asdict(self))


IDENTITY = ("bundle_digest", "report_digest", "gate_digest")
REQUIRED = tuple(field.name for field in fields(VersionTags))


def complete(tags: Mapping[str, str]) -> bool:
    """Whether no required tag is missing or empty."""
    return all(tags.get(name) for name in REQUIRED)


def make_tags(store: ArtifactStore, submission: Submission, provenance: Provenance) -> VersionTags:
    """The tags of a submission. Raises LineageError when a part of its lineage is not known."""
    adapter, evaluated = submission.adapter, submission.evaluated
    bundle = evaluated.bundle
    return VersionTags(
        mlflow_run=adapter.mlflow_run,
        dagster_run=adapter.dagster_run,
        **bundle.versions.by_name(),
        base_digest=bundle.base.digest,
        adapter_digest=bundle.adapter.digest,
        bundle_digest=bundle.digest,
        prompt_digest=bundle.prompt_digest,
        report_digest=evaluated.artifact.digest,
        gate_digest=submission.gate.artifact.digest,
        gate_verdict=submission.gate.verdict,
        git_commit=provenance.git_commit,
        git_dirty="true" if provenance.git_dirty else "false",
        author=provenance.author,
        lock_file_hash=provenance.lock_file_hash,
        code_version=provenance.code_version,
        origin_digest=origin_digest(adapter),
        config_digest=hashlib.sha256(whole_settings(store, submission)).hexdigest(),
        base_license=submission.base.license,
        data_license=submission.data_license,
        **training_cost(adapter, submission.rates).as_tags(),
    )
