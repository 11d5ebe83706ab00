"""Measures a candidate beside its base, the champion and the baselines, and writes it down.

``report.json`` is what machines read, ``report.html`` what people read, ``correct.jsonl`` the
outcome of every row for paired tests, ``predictions.jsonl`` what each system answered. What
is costly below (answers, baselines, ragas) are artifacts of their own: a report that only
has to be compared with another champion is written from what lies in the store.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mlops_assets.artifacts import Artifact, ArtifactStore, LineageError, Recipe, digest_json
from mlops_assets.code_digest import code_digest
from mlops_assets.evaluation import baselines, generation, page, ragas_metrics, scoring
from mlops_assets.evaluation.generation import Subject
from mlops_assets.evaluation.spec import EvaluationSpec
from mlops_assets.prompts import EMPTY, system_text
from mlops_assets.refs import (
    AdapterRef,
    BaseModelRef,
    EvalReportRef,
    ReleaseBundle,
    Row,
    SplitsRef,
    read_rows,
)
from mlops_assets.release_check import template_digest

FLOORS = {"minimum_exact_match", "minimum_valid_json", "beat_majority"}
TEXT_FLOORS = {"minimum_exact_match"}  # free text is no JSON and has no commonest answer

Publish = Callable[[Path, Mapping[str, Any]], None]
"""Called with the finished directory and its report, before the artifact is sealed."""


@dataclass(frozen=True)
class Candidate:
    """What is measured, on what, and against whom."""

    splits: SplitsRef
    base: BaseModelRef
    adapter: AdapterRef
    bundle: ReleaseBundle
    champion: ReleaseBundle | None


@dataclass(frozen=True)
class Measured:
    """Everything that was run: artifacts of answers and ragas scores by system."""

    predictions: Mapping[str, Artifact]
    ragas: Mapping[str, Artifact]
    baselines: Artifact | None
    """None for free text, which has no classes to learn."""


def evaluate(
    store: ArtifactStore,
    splits: SplitsRef,
    base: BaseModelRef,
    adapter: AdapterRef,
    champion: ReleaseBundle | None,
    spec: EvaluationSpec,
    publish: Publish,
) -> EvalReportRef:
    """Measure the adapter on the test split; nothing is computed twice.

    Raises LineageError when an artifact is missing or changed, when the adapter belongs to
    another base, or when the split cannot be scored. A model that fails, fails the stage.
    """
    if adapter.base.digest != base.artifact.digest:
        raise LineageError(
            f"The adapter {adapter.artifact.key[:12]} was trained on another base model.",
            "Materialise `lora_adapter` again.",
        )
    _check_floors_apply(splits, spec)
    bundle = _bundle(store, splits, base, adapter, spec)
    candidate = Candidate(splits, base, adapter, bundle, champion)
    recipe = Recipe(
        "eval_report",
        {
            "candidate": bundle.digest,
            "champion": champion.digest if champion else "",
            "splits": splits.artifact.digest,
            "versions": digest_json(asdict(bundle.versions)),
            "labels": digest_json(splits.labels),
        },
        spec.model_dump(mode="json"),
        code_digest(__name__),
        (*generation.LIBRARIES, *ragas_metrics.LIBRARIES, "scikit-learn"),
    )

    def produce(directory: Path) -> dict[str, Any]:
        report = _write_report(store, candidate, spec, directory)
        publish(directory, report)
        scores = {name: report[name] for name in ("exact_match", "valid_json") if name in report}
        return scores | {"versions": report["versions"]}

    return EvalReportRef(
        store.build(recipe, produce), bundle, champion.digest if champion else None
    )


def read_report(store: ArtifactStore, report: Artifact) -> dict[str, Any]:
    """``report.json``, after every file of the artifact was verified.

    Raises LineageError when it is missing, was changed or is no JSON.
    """
    path = store.path(report) / "report.json"
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise LineageError(
            f"{path} cannot be read.", "Delete its directory and materialise `eval_report` again."
        ) from error
    return content


def _check_floors_apply(splits: SplitsRef, spec: EvaluationSpec) -> None:
    if not splits.labels and spec.minimum_valid_json:
        raise LineageError(
            "The answers are free text, which is not meant to be JSON.",
            "Set eval_report's minimum_valid_json to 0.",
        )


def _bundle(
    store: ArtifactStore,
    splits: SplitsRef,
    base: BaseModelRef,
    adapter: AdapterRef,
    spec: EvaluationSpec,
) -> ReleaseBundle:
    return ReleaseBundle(
        base=base.artifact,
        adapter=adapter.artifact,
        chat_template=template_digest(store.path(base.artifact)),
        prompt=adapter.prompt or EMPTY,
        generation={"max_new_tokens": spec.max_new_tokens, "do_sample": False},
        versions=replace(adapter.versions, eval_set=splits.versions.eval_set),
    )


def _write_report(
    store: ArtifactStore, candidate: Candidate, spec: EvaluationSpec, directory: Path
) -> dict[str, Any]:
    split = store.path(candidate.splits.artifact) / "test.jsonl"
    rows = list(read_rows(split))
    fields = tuple(candidate.splits.labels)
    expected = scoring.references(rows, fields)
    measured = _measure(store, candidate, split, rows, spec)
    outputs = _outputs(store, measured)
    systems = {name: scoring.compare(rows, fields, texts) for name, texts in outputs.items()}
    report = scoring.score(rows, expected, systems) | _facts(candidate, measured, spec)
    _write_lines(directory / "correct.jsonl", _outcomes(rows, systems))
    _write_lines(directory / "predictions.jsonl", _answers(rows, outputs))
    text = json.dumps(report, allow_nan=False, ensure_ascii=False, indent=1)
    (directory / "report.json").write_text(text, "utf-8")
    page.write_page(directory, report, rows, expected, systems)
    return report


def _measure(
    store: ArtifactStore,
    candidate: Candidate,
    split: Path,
    rows: Sequence[Row],
    spec: EvaluationSpec,
) -> Measured:
    answers = {
        subject.name: generation.predict(store, subject, split, rows, spec)
        for subject in _subjects(store, candidate)
    }
    references = [row.answer for row in rows]
    ragas = {
        name: ragas_metrics.score_with_ragas(store, predictions, references, spec)
        for name, predictions in answers.items()
    }
    classes = bool(candidate.splits.labels)
    fitted = baselines.answer_with_baselines(store, candidate.splits) if classes else None
    return Measured(answers, ragas, fitted)


def _subjects(store: ArtifactStore, candidate: Candidate) -> list[Subject]:
    """The models to run, each with its release's prompt; the base with the candidate's.

    A champion that is the candidate is found in the store.
    """
    bundle, champion = candidate.bundle, candidate.champion
    budget = int(bundle.generation["max_new_tokens"])
    system = system_text(store, bundle.prompt)
    subjects = [
        Subject("base", bundle.base, None, budget, system),
        Subject("tuned", bundle.base, bundle.adapter, budget, system),
    ]
    if champion:
        budget = int(champion.generation["max_new_tokens"])
        system = system_text(store, champion.prompt)
        subjects.append(Subject("champion", champion.base, champion.adapter, budget, system))
    return subjects


def _outputs(store: ArtifactStore, measured: Measured) -> dict[str, list[str]]:
    texts = {
        name: [item.text for item in generation.read_predictions(store, artifact)]
        for name, artifact in measured.predictions.items()
    }
    if measured.baselines is None:
        return texts
    answers = baselines.read_baselines(store, measured.baselines)
    return texts | {
        "majority": [item.majority for item in answers],
        "tfidf": [item.tfidf for item in answers],
    }


def _facts(candidate: Candidate, measured: Measured, spec: EvaluationSpec) -> dict[str, Any]:
    """What the report says beside the scores: ragas, cost, floors and provenance."""
    settings = spec.model_dump(mode="json")
    floors = FLOORS if candidate.splits.labels else TEXT_FLOORS
    timings = {name: artifact.summary for name, artifact in measured.predictions.items()}
    return {
        "ragas": _ragas(measured.ragas),
        "latency": {name: _part(timings.get(name), "latency_") for name in scoring.MODELS},
        "tokens": {name: _part(timings.get(name), "", "latency_") for name in scoring.MODELS},
        "answers": "json" if candidate.splits.labels else "text",
        "floors": {name: settings[name] for name in sorted(floors)},
        "settings": {name: value for name, value in settings.items() if name not in FLOORS},
        "candidate": candidate.bundle.digest,
        "champion": candidate.champion.digest if candidate.champion else None,
        "versions": asdict(candidate.bundle.versions),
        "correct": "correct.jsonl",
        "provenance": {
            "base_name": candidate.base.name,
            "base_parameters": candidate.base.parameters,
            "base": candidate.bundle.base.digest,
            "adapter": candidate.bundle.adapter.digest,
            "chat_template": candidate.bundle.chat_template,
            "prompt": candidate.bundle.prompt_digest,
            "splits": candidate.splits.artifact.digest,
            "trained_by_mlflow_run": candidate.adapter.mlflow_run,
            "trained_by_dagster_run": candidate.adapter.dagster_run,
        },
    }


def _ragas(scored: Mapping[str, Artifact]) -> dict[str, Any]:
    summaries = {name: artifact.summary for name, artifact in scored.items()}
    return {
        "rows": summaries["tuned"]["rows"],
        "metrics": {
            metric: {
                name: summaries[name]["scores"][metric] if name in summaries else None
                for name in scoring.MODELS
            }
            for metric in summaries["tuned"]["scores"]
        },
    }


def _part(
    summary: Mapping[str, Any] | None, prefix: str, without: str = "-"
) -> dict[str, Any] | None:
    """The entries whose names start with ``prefix`` and not with ``without``."""
    if summary is None:
        return None
    return {
        name.removeprefix(prefix): value
        for name, value in summary.items()
        if name.startswith(prefix) and not name.startswith(without)
    }


def _outcomes(rows: Sequence[Row], systems: Mapping[str, scoring.Scored]) -> list[dict[str, Any]]:
    return [
        {"id": row.id}
        | {name: systems[name].correct[i] if name in systems else None for name in scoring.MODELS}
        for i, row in enumerate(rows)
    ]


def _answers(rows: Sequence[Row], outputs: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    return [
        {"id": row.id, "reference": row.answer}
        | {name: texts[i] for name, texts in outputs.items()}
        for i, row in enumerate(rows)
    ]


def _write_lines(path: Path, items: Sequence[Mapping[str, Any]]) -> None:
    lines = (json.dumps(item, ensure_ascii=False, allow_nan=False) + "\n" for item in items)
    path.write_text("".join(lines), "utf-8")
