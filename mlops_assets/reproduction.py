"""`mlops reproduce`: train a registered version again from its commit, and compare.

The registry's tags name the commit, the data, the lock files and the sources; ``origin.json``
in the registered package has the settings and what came out. The lineage runs up to the
adapter in a clean worktree and an empty home. Equal means equal bytes. On a GPU, and where the
processor, the instruction set, the number of threads or torch's build is another, floats are
summed in another order and bytes cannot be equal: then the losses are compared, and the result
says so.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_assets.artifacts import SHORT, LineageError
from mlops_assets.dvc_project import project_of
from mlops_assets.home import Home
from mlops_assets.profiles import PROJECT
from mlops_assets.provenance import hash_lock_files, hash_sources
from mlops_assets.refs import RegisteredModelRef
from mlops_assets.reproduction_verdict import STEPS, Reproduction, judge
from mlops_assets.worktree import Worktree, clean_worktree, python_for, train_again

ORIGIN = "origin.json"
FEEDBACK = "training.jsonl"


@dataclass(frozen=True)
class Version:
    """What the registry knows of a version."""

    model: str
    number: int
    tags: Mapping[str, str]
    origin: Mapping[str, Any]

    @property
    def digests(self) -> dict[str, str]:
        return {"data": self.tags["dataset_hash"], **self.origin["digests"]}


def reproduce(home: Home, number: int, model: str | None, project: Path = PROJECT) -> Reproduction:
    """Train version ``number`` again and compare.

    Raises LineageError when it cannot be tried: no such version, its code or its data are not
    to be had, or the lineage of that commit fails.
    """
    version = read_version(home, number, model or latest_model(home))
    commit = version.tags["git_commit"]
    if not re.fullmatch("[0-9a-f]{40}", commit):
        raise LineageError(
            f"Version {number} of {version.model} was not registered from a git checkout.",
            "Run the lineage in a checkout, and reproduce the version that it registers.",
        )
    with clean_worktree(project, commit) as worktree:
        check_code(worktree, version)
        python = python_for(worktree, project)
        settings = bring_data(worktree, python, version, project)
        share_sources(home, worktree)
        train_again(worktree, python, settings)
        return compare(version, read_rebuilt(worktree.home))


def latest_model(home: Home) -> str:
    """The name of the model that this home registered last."""
    latest = home.latest("registered_model")
    if not isinstance(latest, RegisteredModelRef):
        raise LineageError(
            f"Nothing was registered in {home.root} yet.", "Name the model with --model."
        )
    return latest.name


def read_version(home: Home, number: int, model: str) -> Version:
    """The version's tags and ``origin.json``. Raises LineageError when one is missing."""
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts
    from mlflow.environment_variables import MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR
    from mlflow.exceptions import MlflowException

    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set(False)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    if home.mlflow_is_local and not home.mlflow_database.is_file():
        raise LineageError(f"There is no registry in {home.root}.", "Run the job `lineage` first.")
    with tempfile.TemporaryDirectory() as scratch:
        try:
            client = MlflowClient(home.mlflow_uri)
            tags = dict(client.get_model_version(model, str(number)).tags)
            where = client.get_model_version_download_uri(model, str(number))
            file = download_artifacts(
                f"{where}/{ORIGIN}", dst_path=scratch, tracking_uri=home.mlflow_uri
            )
            content = Path(file).read_bytes()
        except (MlflowException, OSError) as error:
            raise LineageError(
                f"Version {number} of {model} cannot be read from the registry at"
                f" {home.mlflow_label}, or has no {ORIGIN} ({type(error).__name__}).",
                "Check number and --model; versions from before this command can't be reproduced.",
            ) from error
    if hashlib.sha256(content).hexdigest() != tags.get("origin_digest"):
        raise LineageError(
            f"{ORIGIN} of version {number} of {model} is not what was registered.",
            "Somebody changed the registry's files: register the bundle anew.",
        )
    return Version(model, number, tags, json.loads(content))


def check_code(worktree: Worktree, version: Version) -> None:
    """Refuse a version whose sources or lock files the commit does not hold."""
    name = f"Version {version.number} of {version.model}"
    if hash_sources(worktree.tree / "mlops_assets") != version.tags["code_version"]:
        dirty = version.tags["git_dirty"] == "true"
        raise LineageError(
            f"{name} was made with sources that differ from its commit"
            f" {version.tags['git_commit'][:SHORT]}"
            + (" (the checkout had uncommitted changes)." if dirty else "."),
            "Commit the changes, run the lineage, and reproduce the version that it registers.",
        )
    if hash_lock_files(worktree.tree) != version.tags["lock_file_hash"]:
        raise LineageError(
            f"{name} was made with lock files that its commit does not hold.",
            "Commit them, run the lineage, and reproduce the version that it registers.",
        )


def bring_data(
    worktree: Worktree, python: Path, version: Version, project: Path
) -> dict[str, dict[str, Any]]:
    """The settings for the worktree, after the data was put where they look for it.

    Data that the commit pins is left to the lineage, which pulls or rebuilds it, unless the
    very same lies here. Raises LineageError when what lies here is not the version's data.
    """
    settings: dict[str, dict[str, Any]] = json.loads(json.dumps(version.origin["settings"]))
    base = settings["base_model"]
    if base.get("source") == "local":
        base["path"] = str(_here(base["path"], project))
    private = project / ".dvc" / "config.local"
    if private.is_file():  # the remote's private settings, which git does not carry
        shutil.copy(private, worktree.tree / ".dvc" / private.name)
    source, _, feedback = version.tags["dataset_hash"].partition("+")
    if named := settings["raw_dataset"].get("feedback"):
        place = bring_feedback(
            worktree, _here(os.path.expandvars(Home.fill(named)), project), feedback
        )
        settings["raw_dataset"]["feedback"] = place
    path = settings["raw_dataset"]["path"]
    if "://" in path:
        return settings
    present = _here(os.path.expandvars(path), project)
    same = present.exists() and _dvc_hash(worktree, python, present) == source
    if Path(path).is_absolute() or "$" in path:
        if not same:
            raise LineageError(
                f"The data at {present} is not {source}, from which version"
                f" {version.number} was made.",
                "Put that data there again, then run the command again.",
            )
    elif same and not (target := worktree.tree / path).exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if present.is_dir() else shutil.copyfile)(present, target)
    return settings


def bring_feedback(worktree: Worktree, directory: Path, md5: str) -> str:
    """The directory in the worktree's home with the feedback rows of this hash; empty for none.

    They are taken as they lie in ``directory`` if they are the very same, else out of its DVC
    cache. Raises LineageError when they are in neither.
    """
    if not md5:
        return ""
    cache = project_of(directory) / ".dvc" / "cache" / "files" / "md5"
    for place in (directory / FEEDBACK, cache / md5[:2] / md5[2:]):
        if place.is_file() and _md5(place) == md5:
            (target := worktree.home.root / "feedback").mkdir(parents=True)
            shutil.copyfile(place, target / FEEDBACK)
            return str(target)
    raise LineageError(
        f"The feedback rows {md5} are neither in {directory} nor in its DVC cache.",
        f"Run `mlops feedback restore {md5}` where its DVC remote is known, then try again.",
    )


def _md5(path: Path) -> str:
    """As DVC hashes a file."""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def share_sources(home: Home, worktree: Worktree) -> None:
    """Let the worktree find what was downloaded from pinned sources before.

    An address names its content, and every read compares it with its manifest.
    """
    downloaded, wanted = (place.store.root / "source" for place in (home, worktree.home))
    if downloaded.is_dir():
        wanted.parent.mkdir(parents=True)
        wanted.symlink_to(downloaded)


def _here(path: str, project: Path) -> Path:
    """Where a relative path leads to here: as in a run, the working directory comes first."""
    place = Path(path).expanduser()
    return place.absolute() if place.exists() else project / place


def _dvc_hash(worktree: Worktree, python: Path, path: Path) -> str:
    """DVC's hash of data here, as the version's own code computes it."""
    program = (
        "import sys; from pathlib import Path; from mlops_assets.dataset import versioning;"
        " print(versioning.dvc_hash(Path(sys.argv[1])))"
    )
    done = subprocess.run(
        [str(python), "-c", program, str(path)],
        cwd=worktree.tree,
        env=os.environ | {"PYTHONPATH": str(worktree.tree)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def read_rebuilt(home: Home) -> dict[str, Any]:
    """Digests, losses and hardware of what the worktree's run made.

    Read as plain JSON: that commit's refs may have other fields than ours.
    """
    raw, splits, adapter = (
        json.loads(home.read_ref(asset))
        for asset in ("raw_dataset", "dataset_splits", "lora_adapter")
    )
    summary = adapter["artifact"]["summary"]
    return {
        "digests": {
            "data": raw["version"],
            "splits": splits["artifact"]["digest"],
            "base": adapter["base"]["digest"],
            "adapter": adapter["artifact"]["digest"],
        },
        "metrics": summary,
        "hardware": summary["hardware"],
        "libraries": summary["libraries"],
    }


def compare(version: Version, rebuilt: Mapping[str, Any]) -> Reproduction:
    """The verdict on a rebuilt version."""
    origin = version.origin
    digests = {name: (version.digests[name], rebuilt["digests"][name]) for name in STEPS}
    metrics = {name: (old, rebuilt["metrics"][name]) for name, old in origin["metrics"].items()}
    hardware, libraries = (
        {name: (old, rebuilt[part].get(name, "unknown")) for name, old in origin[part].items()}
        for part in ("hardware", "libraries")
    )
    verdict, reason = judge(digests, metrics, hardware)
    if other := [name for name, (old, new) in libraries.items() if old != new]:
        reason += f"; other versions of {', '.join(other)} are installed"
    return Reproduction(
        version.model,
        version.number,
        version.tags["git_commit"],
        verdict,
        reason,
        digests,
        metrics,
        hardware,
        libraries,
    )
