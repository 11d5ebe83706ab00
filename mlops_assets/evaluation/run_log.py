"""What an evaluation leaves in its run: scores, the report, and the record of every answer."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlops_assets.artifacts import MANIFEST, canonical_json, list_files
from mlops_assets.evaluation import scoring
from mlops_assets.evaluation.records import RECORDS
from mlops_assets.refs import Versions
from mlops_assets.trackers import TrackedRun

FOLDER = "evaluation"
FILES = ("report.html", "report.json", "plot.png", RECORDS)
REPORT = "eval_report"
"""Tag of the run: the content digest of the report's artifact, which registered versions name."""


def log_evaluation(run: TrackedRun, directory: Path, report: Mapping[str, Any]) -> None:
    """Log the scores, and of the finished ``directory`` what people and `mlops diff` read.

    The list of the directory's files goes with them: whoever knows the report's digest can so
    verify a file that came back from a tracking server.
    """
    listed = list_files(directory)
    run.log_params(Versions(**report["versions"]).by_name())
    run.log_metrics({name: value for name, value in _scores(report) if value is not None})
    run.set_tags({REPORT: listed["digest"]})
    with tempfile.TemporaryDirectory() as scratch:
        manifest = Path(scratch) / MANIFEST
        manifest.write_bytes(canonical_json(listed))
        run.log_files(FOLDER, *(directory / name for name in FILES), manifest)


def _scores(report: Mapping[str, Any]) -> list[tuple[str, float | None]]:
    scores = {f"eval/exact_match/{name}": report["exact_match"][name] for name in scoring.SYSTEMS}
    valid = report.get("valid_json", {})
    scores |= {f"eval/valid_json/{name}": value for name, value in valid.items()}
    for field, values in report["fields"].items():
        scores[f"eval/accuracy/{field}"] = values["accuracy"]["tuned"]
        scores[f"eval/macro_f1/{field}"] = values["macro_f1"]["tuned"]
    for suite, part in report["suites"].items():
        for metric, by_system in part["metrics"].items():
            scores[f"eval/suites/{suite}/{metric}"] = by_system["tuned"]
    scores |= _judge(report.get("judge", {}))
    scores["eval/latency_p95_ms"] = report["latency"]["tuned"]["p95_ms"]
    return list(scores.items())


def _judge(section: Mapping[str, Any]) -> dict[str, float | None]:
    """What the judge said and what it cost; nothing where nobody judged."""
    if not section.get("configured"):
        return {}
    found = {f"eval/judge/{name}": value for name, value in section["scores"].items()}
    found |= {f"eval/judge/spent/{name}": value for name, value in section["spent"].items()}
    if section["preference"]:
        found["eval/judge/preference"] = section["preference"]["mean"]
    if section["agreement"]:
        found["eval/judge/kappa"] = section["agreement"]["kappa"]
    return found
