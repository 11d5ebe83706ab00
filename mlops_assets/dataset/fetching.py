"""Brings source data that is missing to where the lineage reads it.

A pinned source is downloaded. What DVC has pinned is pulled from its remote if there is one,
and built again with `dvc repro` if a pipeline makes it. Data that is there is never touched,
and what arrives is compared with the pinned hash before anybody reads it.
"""

import logging
import re
import shutil
from pathlib import Path

from mlops_assets.artifacts import LineageError
from mlops_assets.dataset import downloads, pinned_sources
from mlops_assets.dataset.versioning import (
    LOCK,
    PIPELINE,
    Pin,
    dvc_hash,
    fill,
    missing,
    pin,
    pinned_outputs,
    resolve,
)
from mlops_assets.dvc_project import has_remote, one_at_a_time, project_of, run_dvc
from mlops_assets.home import Home

logger = logging.getLogger(__name__)

CREDENTIALS = re.compile(r"credential|access denied|forbidden|signature|InvalidAccessKey", re.I)
NOT_INSTALLED = re.compile(r"is supported, but requires")


def locate(path: str) -> Path:
    """The absolute path of the source data, which is there afterwards.

    Raises LineageError when it is neither there nor to be had: the message says why.
    """
    if source := pinned_sources.parse(fill(path)):
        return downloads.fetch(Home.from_environment().store, source)
    place = resolve(path)
    fetch_missing(place)
    return place


def fetch_missing(path: Path) -> None:
    """Pull or rebuild ``path``, and whatever else its pipeline makes that is missing.

    Raises LineageError when nothing can bring ``path``, when DVC fails, or when the result is
    not what is pinned.
    """
    pinned = pin(path)
    if pinned is None:
        if not path.exists():
            raise missing(path)
        return
    outputs = pinned_outputs(pinned.lock.parent) if pinned.stage else [(path, pinned)]
    if all(out.exists() for out, _ in outputs):
        return
    with one_at_a_time(project_of(pinned.lock.parent)):
        if not pinned.stage:
            if not path.exists():
                _pull(path, pinned)
            return
        lost = {item.stage: (out, item) for out, item in outputs if not out.exists()}
        for out, item in lost.values():
            _restore(out, item)


def _restore(out: Path, pinned: Pin) -> None:
    """Bring back what a pipeline makes: the remote is quicker than doing the work again."""
    if has_remote(project_of(pinned.lock.parent)):
        try:
            _pull(out, pinned)
            return
        except LineageError as error:
            logger.warning("%s Rebuilding it instead.", error.problem)
    logger.info("%s is missing: rebuilding it with `dvc repro`", _name(out, pinned))
    _reproduce(out, pinned)


def _pull(out: Path, pinned: Pin) -> None:
    logger.info("%s is missing: fetching it with `dvc pull`", _name(out, pinned))
    root = project_of(pinned.lock.parent)
    result = run_dvc(root, "pull", _target(pinned))
    if result.returncode != 0 or not out.exists():
        _remove(out)
        raise _no_pull(out, pinned, root, result.stdout + result.stderr)
    if (version := dvc_hash(out)) != pinned.version:
        _remove(out)
        raise LineageError(
            f"The remote gave {out} with the hash {version}, but {pinned.lock} pins"
            f" {pinned.version}.",
            "Somebody changed the remote's files: `dvc push` from a checkout that has the data.",
        )


def _no_pull(out: Path, pinned: Pin, root: Path, said: str) -> LineageError:
    """Why DVC could not pull. Its own words are not shown: they may hold keys."""
    if not has_remote(root):
        return LineageError(
            f"{out} is not here, and DVC has no default remote to fetch it from.",
            "Name one with `dvc remote add -d NAME URL`, or put the data there.",
        )
    if NOT_INSTALLED.search(said):
        return LineageError(
            f"{out} cannot be fetched: DVC's support for the remote is not installed.",
            "For S3: pip install 'mlops-assets[s3]'; for others DVC's own package of that name.",
        )
    if CREDENTIALS.search(said):
        return LineageError(
            f"{out} cannot be fetched: the DVC remote refused, or there are no credentials.",
            "For S3 set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE.",
        )
    if "failed to connect" in said:
        return LineageError(
            f"{out} cannot be fetched: the DVC remote cannot be reached.",
            "Check the network and `dvc remote list`, then run again.",
        )
    if "Missing cache files" in said:
        return LineageError(
            f"{out} cannot be fetched: the DVC remote does not hold {pinned.version}.",
            "Run `dvc push` in a checkout that has the data, and check `dvc remote list`.",
        )
    return LineageError(f"`dvc pull` could not fetch {out}.", f"Run `dvc pull {out}` to see why.")


def _reproduce(out: Path, pinned: Pin) -> None:
    lock = pinned.lock.read_bytes()
    result = run_dvc(project_of(pinned.lock.parent), "repro", _target(pinned))
    if result.returncode != 0 or not out.exists():
        said = re.search(r"^ERROR: .*", result.stderr, re.MULTILINE)
        detail = said.group() if said else f"exit code {result.returncode}"
        raise LineageError(
            f"`dvc repro` could not rebuild {out} ({detail}).",
            f"Run `dvc repro {pinned.lock.with_name(PIPELINE)}` to see why.",
        )
    if (version := dvc_hash(out)) != pinned.version:
        _remove(out)
        pinned.lock.write_bytes(lock)
        raise LineageError(
            f"The rebuilt {out} has the hash {version}, but {pinned.lock} pins {pinned.version}.",
            "If its generator was changed on purpose, run `dvc repro"
            f" {pinned.lock.with_name(PIPELINE)}` and commit the new {LOCK}.",
        )


def _target(pinned: Pin) -> str:
    """What DVC's commands call the output's stage: its pointer, or its place in the pipeline."""
    return f"{pinned.lock.parent / PIPELINE}:{pinned.stage}" if pinned.stage else str(pinned.lock)


def _remove(out: Path) -> None:
    if out.is_dir():
        shutil.rmtree(out)
    else:
        out.unlink(missing_ok=True)


def _name(out: Path, pinned: Pin) -> str:
    """What people know it by: its path in the project."""
    root = project_of(pinned.lock.parent)
    return str(out.relative_to(root) if out.is_relative_to(root) else out)
