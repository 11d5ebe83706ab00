"""Finds what was answered and scored in the evaluation of a version, an alias or an MLflow run.

The records come from the report's artifact in the store, verified byte by byte. Where the store
does not hold it (another machine's, or cleaned up) they come from MLflow: then the list of the
artifact's files must have the digest that the registry's tag or the run's names, and the records
must be the ones on that list.
"""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_assets.artifacts import MANIFEST, SHORT, LineageError, digest_file, read_listing
from mlops_assets.evaluation.records import RECORDS, Record, read_records
from mlops_assets.evaluation.run_log import FOLDER, REPORT
from mlops_assets.home import Home

MEASURED = "tuned"
"""The system that a version's own report measured it as."""


@dataclass(frozen=True)
class Named:
    """What a person named, and the report that measured it."""

    label: str
    """For people, such as ``version 3 (champion)``."""
    report: str
    """Content digest of the report's artifact."""
    run: str | None = None
    """The MLflow run, where one was named."""


@dataclass(frozen=True)
class Recorded:
    """The records of one side of a comparison."""

    label: str
    report: str
    source: str
    """``store``, or the MLflow run that they were downloaded from."""
    records: tuple[Record, ...]
    """Of the system that was measured, the others left out."""


def find_recorded(home: Home, name: str, model: str | None) -> Recorded:
    """The records of a version's number, an alias of ``model`` or an MLflow run's id.

    Raises LineageError when there is no such thing, when it was never measured, when nobody has
    its records any more, and when they are not those that were registered.
    """
    if home.mlflow_is_local and not home.mlflow_database.is_file():
        raise LineageError(f"There is no registry in {home.root}.", "Run the job `lineage` first.")
    with _mlflow(home, name) as client:
        named = _resolve(client, name, model)
    stored = home.store.find_content("eval_report", named.report)
    if stored is not None:
        records = _read(home.store.path(stored) / RECORDS, named.label)
        return Recorded(named.label, named.report, "store", records)
    with _mlflow(home, name) as client, tempfile.TemporaryDirectory() as scratch:
        run = named.run or _run_of(client, named)
        path = _download(client, run, named, Path(scratch))
        return Recorded(named.label, named.report, run, _read(path, named.label))


def _resolve(client: Any, name: str, model: str | None) -> Named:
    if re.fullmatch(r"[0-9a-f]{32}", name):
        digest = client.get_run(name).data.tags.get(REPORT)
        if digest is None:
            raise LineageError(
                f"The MLflow run {name} has measured nothing that was recorded.",
                "Name a run that wrote an evaluation report; a report that was found in the store"
                " stays with the run that wrote it.",
            )
        return Named(f"run {name[:SHORT]}", digest, name)
    if model is None:
        raise LineageError("Nothing was registered yet.", "Name the model with --model.")
    number = re.fullmatch(r"[0-9]{1,9}", name)
    get = client.get_model_version if number else client.get_model_version_by_alias
    version = get(model, name)
    alias = "" if number else f" ({name})"
    label = f"version {version.version}{alias}"
    if not (digest := version.tags.get("report_digest")):
        raise LineageError(
            f"{label.capitalize()} of {model} does not name its evaluation report.",
            "Register it again with the job `lineage`.",
        )
    return Named(label, digest)


def _run_of(client: Any, named: Named) -> str:
    """The run that wrote the report."""
    experiments = [item.experiment_id for item in client.search_experiments()]
    runs = client.search_runs(experiments, f"tags.{REPORT} = '{named.report}'", max_results=1)
    if not runs:
        raise LineageError(
            f"Neither the store nor MLflow holds the report {named.report[:SHORT]} of"
            f" {named.label}.",
            "Restore the artifact store that it was made in, or evaluate that version again.",
        )
    return str(runs[0].info.run_id)


def _download(client: Any, run: str, named: Named, scratch: Path) -> Path:
    """The records out of MLflow, held against the report's digest."""
    listing, records = (
        Path(client.download_artifacts(run, f"{FOLDER}/{name}", str(scratch)))
        for name in (MANIFEST, RECORDS)
    )
    try:
        digest, files = read_listing(listing.read_bytes())
    except ValueError:
        digest, files = "", {}
    known = files.get(RECORDS)
    if digest != named.report or known is None or known.sha256 != digest_file(records):
        raise LineageError(
            f"{RECORDS} of the MLflow run {run} is not what was measured for {named.label}.",
            "Somebody changed MLflow's files: restore them, or evaluate that version again.",
        )
    return records


def _read(path: Path, label: str) -> tuple[Record, ...]:
    try:
        found = tuple(read_records(path, MEASURED))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LineageError(
            f"The report of {label} has no {RECORDS} that can be read ({type(error).__name__}).",
            "It is from before every answer was recorded: evaluate that version again.",
        ) from error
    if not found:
        raise LineageError(
            f"The report of {label} recorded no answer of the model that it measured.",
            "Evaluate that version again.",
        )
    return found


@contextmanager
def _mlflow(home: Home, name: str) -> Iterator[Any]:
    from mlflow import MlflowClient
    from mlflow.environment_variables import MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR
    from mlflow.exceptions import MlflowException

    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set(False)
    try:
        yield MlflowClient(home.mlflow_uri)
    except (MlflowException, OSError) as error:
        raise LineageError(
            f"MLflow at {home.mlflow_label} does not give {name!r} ({_reason(error)}).",
            "Name a version's number, an alias such as champion or candidate, or an MLflow run's"
            " id of 32 digits; check --model, and that the server runs.",
        ) from error


def _reason(error: Exception) -> str:
    return str(getattr(error, "error_code", "") or type(error).__name__)
