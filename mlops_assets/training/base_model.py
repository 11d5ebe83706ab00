"""The base model: ours from scratch, a local directory, or a hub repository at a commit.

Whatever the source, the artifact is the same: a plain Hugging Face directory of safetensors,
tokenizer and chat template that ``from_pretrained`` and model servers load offline.
"""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlops_assets.artifacts import Artifact, ArtifactStore, LineageError, Recipe
from mlops_assets.code_digest import code_digest
from mlops_assets.licenses import declared_license
from mlops_assets.refs import BaseModelRef, SplitsRef, Versions, read_rows
from mlops_assets.training.model_files import (
    TAKEN,
    check_directory,
    copy_model,
    files_digest,
    parameter_count,
)
from mlops_assets.training.pretrain import build_tiny
from mlops_assets.training.spec import BaseModelSpec

logger = logging.getLogger(__name__)

KIND = "base_model"
CARD = "README.md"  # its front matter names the licence
TAKING = "mlops_assets.training.model_files"  # decides what is kept of a model that exists


def provide(store: ArtifactStore, splits: SplitsRef, spec: BaseModelSpec) -> BaseModelRef:
    """The base model that ``spec`` asks for. Raises LineageError for an unsafe or absent one."""
    if spec.source == "tiny":
        artifact = _tiny(store, splits, spec)
    elif spec.source == "local":
        artifact = _local(store, spec)
    else:
        artifact = _hub(store, spec)
    return BaseModelRef(
        artifact,
        artifact.summary["name"],
        artifact.summary["parameters"],
        Versions.of(artifact) if "versions" in artifact.summary else None,
        settings={KIND: spec.model_dump(mode="json")},
        license=spec.license or _declared(store, artifact, spec),
    )


def _declared(store: ArtifactStore, artifact: Artifact, spec: BaseModelSpec) -> str:
    """The licence that the model's own files name. Ours, built from scratch, name none."""
    taken = store.root / artifact.kind / artifact.key
    return declared_license(Path(spec.path).expanduser() if spec.source == "local" else taken)


def _tiny(store: ArtifactStore, splits: SplitsRef, spec: BaseModelSpec) -> Artifact:
    def produce(directory: Path) -> Mapping[str, Any]:
        rows = list(read_rows(store.path(splits.artifact) / "train.jsonl"))
        summary = build_tiny(directory, rows, splits.labels, spec)
        named = _summary(directory, f"tiny-llama-{spec.layers}x{spec.hidden_size}")
        return named | summary | {"versions": asdict(splits.versions)}

    recipe = Recipe(
        KIND,
        # The labels' order decides the tokens' numbers, and only the train split is read;
        # the artifact's digest covers both.
        {"splits": splits.artifact.digest},
        spec.read() | {"labels": {name: list(values) for name, values in splits.labels.items()}},
        code_digest(__name__),
        ("torch", "transformers", "tokenizers"),
    )
    return store.build(recipe, produce)


def _local(store: ArtifactStore, spec: BaseModelSpec) -> Artifact:
    source = Path(spec.path).expanduser()
    check_directory(source)

    def produce(directory: Path) -> Mapping[str, Any]:
        copy_model(source, directory)
        return _summary(directory, source.resolve().name)

    # Its content names it, not where it lay.
    recipe = Recipe(KIND, {"files": files_digest(source)}, {"source": "local"}, code_digest(TAKING))
    return store.build(recipe, produce)


def _hub(store: ArtifactStore, spec: BaseModelSpec) -> Artifact:
    def produce(directory: Path) -> Mapping[str, Any]:
        _download(spec, directory)
        check_directory(directory)
        return _summary(directory, spec.repo_id) | {"revision": spec.revision}

    return store.build(Recipe(KIND, {}, spec.read(), code_digest(TAKING)), produce)


def _download(spec: BaseModelSpec, directory: Path) -> None:
    """Fetch the files we take, after a look at what else the repository holds."""
    from huggingface_hub import snapshot_download

    from mlops_assets.training.quiet import quiet_libraries

    logger.info("downloading %s at %s", spec.repo_id, spec.revision[:12])
    try:
        with quiet_libraries():
            snapshot_download(
                spec.repo_id,
                revision=spec.revision,
                local_dir=directory,
                # Files in folders are other formats of the same weights; never fetched.
                allow_patterns=[*TAKEN, CARD],
                ignore_patterns=["*/*"],
            )
    except Exception as error:  # the client raises requests', httpx' and its own errors
        raise LineageError(
            f"The model {spec.repo_id} at {spec.revision[:12]} cannot be fetched from the hub"
            f" ({type(error).__name__}).",
            "Check repo_id, revision, the network and HF_TOKEN; or download it elsewhere and"
            " set source: local.",
        ) from error
    shutil.rmtree(directory / ".cache", ignore_errors=True)


def _summary(directory: Path, name: str) -> dict[str, Any]:
    return {"name": name, "parameters": parameter_count(directory)}
