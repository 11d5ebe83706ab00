"""Measures a candidate beside its base, the champion and the baselines, and writes it down.

``report.json`` is what machines read, ``report.html`` what people read, ``records.parquet``
what each system answered to every item, of the test split and of the suites, and how that
scored.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

from mlops_assets.artifacts import Artifact, ArtifactStore, LineageError, Recipe, digest_json
from mlops_assets.code_digest import code_digest
from mlops_assets.evaluation import generation, page, ragas_metrics, scoring
from mlops_assets.evaluation.changes import summarise_changes
from mlops_assets.evaluation.comparison import compare_records
from mlops_assets.evaluation.feedback_suites import read_feedback_suites
from mlops_assets.evaluation.judge import Judgement
from mlops_assets.evaluation.measuring import Candidate, judge, measure, read_answers, subjects
from mlops_assets.evaluation.records import RECORDS, TEST, Record, make_records, write_records
from mlops_assets.evaluation.report_facts import facts
from mlops_assets.evaluation.spec import EvaluationSpec
from mlops_assets.evaluation.suite_scores import answer_suites, count_learnt, summarise_suites
from mlops_assets.evaluation.suites import Suite, eval_set_version, read_suites
from mlops_assets.prompts import EMPTY
from mlops_assets.refs import (
    AdapterRef,
    BaseModelRef,
    EvalReportRef,
    ReleaseBundle,
    SplitsRef,
    read_rows,
)
from mlops_assets.release_check import template_digest

TEST_FILE, TRAIN_FILE = "test.jsonl", "train.jsonl"
ASKED_FOR_TOOLS = 1000  # rows; data offers tools in most rows or in none

Publish = Callable[[Path, Mapping[str, Any]], None]
"""Called with the finished directory and its report, before the artifact is sealed."""


def evaluate(
    store: ArtifactStore,
    splits: SplitsRef,
    base: BaseModelRef,
    adapter: AdapterRef,
    champion: ReleaseBundle | None,
    spec: EvaluationSpec,
    publish: Publish,
) -> EvalReportRef:
    """Measure the adapter on the test split and the suites; nothing is computed twice.

    Raises LineageError when an artifact is missing or changed, when the adapter belongs to
    another base, or when the split or a suite cannot be scored. A model that fails, fails the
    stage.
    """
    if adapter.base.digest != base.artifact.digest:
        raise LineageError(
            f"The adapter {adapter.artifact.key[:12]} was trained on another base model.",
            "Materialise `lora_adapter` again.",
        )
    suites = _suites(store, splits, spec)
    bundle = _bundle(store, splits, base, adapter, suites, spec)
    candidate = Candidate(splits, base, adapter, bundle, champion, suites)
    judgement = judge(store, candidate, store.path(splits.artifact) / TEST_FILE, spec)
    recipe = Recipe(
        "eval_report",
        {
            "candidate": bundle.digest,
            "champion": champion.digest if champion else "",
            "splits": splits.artifact.digest,
            "versions": digest_json(asdict(bundle.versions)),
            "labels": digest_json(splits.labels),
            "suites": digest_json([[suite.name, suite.digest, suite.unfit] for suite in suites]),
            "judgement": judgement.digest,
        },
        spec.model_dump(mode="json"),
        code_digest(__name__),
        (*generation.LIBRARIES, *ragas_metrics.LIBRARIES, "scikit-learn", "jsonschema"),
    )

    def produce(directory: Path) -> dict[str, Any]:
        report = _write_report(store, candidate, judgement, spec, directory)
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


def _suites(store: ArtifactStore, splits: SplitsRef, spec: EvaluationSpec) -> list[Suite]:
    rows = read_rows(store.path(splits.artifact) / TEST_FILE)
    tools = any(row.tools for row in islice(rows, ASKED_FOR_TOOLS))
    fields = tuple(splits.labels)
    suites = read_suites(spec.suites, fields, tools)
    train = store.path(splits.artifact) / TRAIN_FILE
    return [*suites, *read_feedback_suites(spec, fields, tools, train, suites)]


def _bundle(
    store: ArtifactStore,
    splits: SplitsRef,
    base: BaseModelRef,
    adapter: AdapterRef,
    suites: Sequence[Suite],
    spec: EvaluationSpec,
) -> ReleaseBundle:
    measured_on = eval_set_version(splits.versions.eval_set, suites)
    return ReleaseBundle(
        base=base.artifact,
        adapter=adapter.artifact,
        chat_template=template_digest(store.path(base.artifact)),
        prompt=adapter.prompt or EMPTY,
        generation={"max_new_tokens": spec.max_new_tokens, "do_sample": False},
        versions=replace(adapter.versions, eval_set=measured_on),
    )


def _write_report(
    store: ArtifactStore,
    candidate: Candidate,
    judgement: Judgement,
    spec: EvaluationSpec,
    directory: Path,
) -> dict[str, Any]:
    split = store.path(candidate.splits.artifact) / TEST_FILE
    rows = list(read_rows(split))
    fields = tuple(candidate.splits.labels)
    expected = scoring.references(rows, fields)
    measured = measure(store, candidate, split, rows, spec)
    answers = read_answers(store, measured)
    systems = {
        name: scoring.compare(rows, fields, [answer.text for answer in found])
        for name, found in answers.items()
    }
    scores = {name: scoring.row_scores(expected, one) for name, one in systems.items()}
    asked = answer_suites(store, candidate.suites, subjects(store, candidate), spec)
    learnt = count_learnt(candidate.suites, split.with_name(TRAIN_FILE))
    records = [*judgement.add_to(make_records(TEST, rows, answers, scores)), *asked]
    write_records(directory / RECORDS, records)
    report = scoring.score(rows, expected, systems) | facts(candidate, measured, spec)
    rival = page.rival_of(report)
    compared = compare_records(_of(records, rival), _of(records, "tuned"))
    report |= {
        "judge": dict(judgement.section),
        "suites": summarise_suites(candidate.suites, asked, learnt),
        "changes": {"against": rival, "suites": summarise_changes(compared)},
    }
    text = json.dumps(report, allow_nan=False, ensure_ascii=False, indent=1)
    (directory / "report.json").write_text(text, "utf-8")
    page.write_page(directory, report, rows, expected, systems, compared)
    return report


def _of(records: Sequence[Record], system: str) -> list[Record]:
    return [record for record in records if record.system == system]
