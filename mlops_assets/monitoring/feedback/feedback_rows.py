"""Feedback turned into rows to learn from and cases to ask, a version at a time.

Everything that people said is read again each time, so a vote that is taken back takes its row
back. What the logs no longer hold stays as the version in force has it, and is judged again. All
that comes in is a row, a case, a signal or quarantined with a reason: the counts add up.
"""

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlops_assets.artifacts import Artifact, Recipe, digest_file, digest_json
from mlops_assets.code_digest import code_digest
from mlops_assets.feedback_record import (
    read_feedback,
)
from mlops_assets.home import Home
from mlops_assets.monitoring.feedback.caps import capped
from mlops_assets.monitoring.feedback.feedback_spec import FeedbackSpec
from mlops_assets.monitoring.feedback.lessons import (
    KINDS,
    REGENERATION,
    Given,
    Lesson,
    Signal,
    gather,
    order,
)
from mlops_assets.monitoring.feedback.logged_answers import recent_requests, with_requests
from mlops_assets.monitoring.feedback.overlaps import Known, compare, read_known
from mlops_assets.monitoring.feedback.regenerations import COLUMNS, Regeneration, find_regenerations
from mlops_assets.monitoring.feedback.row_files import read_lessons, write_files
from mlops_assets.monitoring.feedback.screening import Draft, Form, screen
from mlops_assets.monitoring.feedback.versions import (
    feedback_directory,
    publish,
    read_versions,
)
from mlops_assets.monitoring.quality.label_store import labels_directory, read_labels
from mlops_assets.monitoring_refs import FeedbackRowsRef, PredictionLogRef
from mlops_assets.refs import (
    SplitsRef,
    write_jsonl,
)

SIGNALS, SCRATCH = "signals.jsonl", ".scratch"
NOT_MAKING = {"directory", "suites", "regeneration_minutes"}  # settings that change no byte


@dataclass(frozen=True)
class Said:
    """All that people said, joined with the log."""

    lessons: tuple[Lesson, ...]
    taken_back: Mapping[str, int]
    signals: tuple[Signal, ...]


def collect(
    home: Home, log: PredictionLogRef, splits: SplitsRef, spec: FeedbackSpec
) -> FeedbackRowsRef:
    """Make rows of what people said, and put them in force as a version unless they are.

    Raises LineageError for suites or labels that cannot be read, and when the version cannot be
    written.
    """
    directory = feedback_directory(spec.directory)
    said = read_said(home, log, read_lessons(directory), spec)
    artifact = make_rows(home, said, splits, spec)
    return _publish(home, directory, artifact)


def read_said(
    home: Home, log: PredictionLogRef, standing: Sequence[Lesson], spec: FeedbackSpec
) -> Said:
    """What votes, labels and the log say, and what only the standing version still knows."""
    votes = list(read_feedback(home.feedback))
    given = gather(votes, read_labels(labels_directory(home)))
    lessons = with_requests(home.store, log, given.lessons)
    requests = recent_requests(home.store, log, COLUMNS)
    again = [] if requests is None else find_regenerations(requests, spec.regeneration_minutes)
    signals = (*given.signals, *map(_asked_again, again))
    signals = tuple(sorted(signals, key=lambda signal: signal.time))
    return Said(with_standing(lessons, standing, given), given.taken_back, signals)


def with_standing(
    lessons: Sequence[Lesson], standing: Sequence[Lesson], given: Given
) -> tuple[Lesson, ...]:
    """The lessons, with what the standing version knows where the logs know it no more.

    Where votes on a request are still there, they say whether its lesson stands.
    """
    known = {(one.kind, one.request, one.person): one for one in standing}
    found = [lesson if lesson.messages else known.get(_key(lesson), lesson) for lesson in lessons]
    found += [one for one in standing if one.request not in given.requests]
    return tuple(sorted(found, key=order))


def make_rows(home: Home, said: Said, splits: SplitsRef, spec: FeedbackSpec) -> Artifact:
    """The files of a version, and the quarantine, as an artifact."""
    form = Form.of(splits)
    suites = feedback_directory(spec.suites) if spec.suites else None
    recipe = Recipe(
        "feedback_rows",
        {
            "said": digest_json(asdict(said)),
            "splits": splits.artifact.digest,
            "suites": _digest_of(suites),
            "detector": form.detector.version,
        },
        spec.model_dump(mode="json", exclude=NOT_MAKING),
        code_digest(__name__),
        ("rensa", "numpy"),
    )

    def produce(folder: Path) -> dict[str, Any]:
        drafts = [
            screen(lesson, form, spec.excluded, spec.regression_share) for lesson in said.lessons
        ]
        if drafts:  # a home without feedback needs no suites
            ours = frozenset(draft.id for draft in drafts)
            known = read_known(home.store, splits, suites, ours)
            (scratch := folder / SCRATCH).mkdir()
            drafts = apply_caps(compare(drafts, known, scratch), known, spec)
            shutil.rmtree(scratch)
        write_files(folder, drafts, splits.labels)
        write_jsonl(folder / SIGNALS, said.signals)
        return count(drafts, said)

    return home.store.build(recipe, produce)


def apply_caps(drafts: Sequence[Draft], known: Known, spec: FeedbackSpec) -> list[Draft]:
    """The drafts, with a reason for those that are too many of one person or tenant."""
    found = list(drafts)
    for case, beside in ((False, known.train), (True, known.held_out)):
        places = [
            place for place, draft in enumerate(drafts) if not draft.reason and draft.case is case
        ]
        dropped = capped(
            [drafts[place].lesson for place in places],
            lambda lesson: lesson.person,
            lambda lesson: lesson.tenant,
            spec.max_rows_per_person,
            spec.max_person_share,
            spec.max_tenant_share,
            len(beside),
        )
        for number, reason in dropped.items():
            found[places[number]] = replace(drafts[places[number]], reason=reason)
    return found


def count(drafts: Sequence[Draft], said: Said) -> dict[str, Any]:
    """What became of everything, by kind: ``received`` is the sum of the others."""
    kinds = {kind: _count_kind(kind, drafts, said) for kind in KINDS}
    totals = {name: sum(kind[name] for kind in kinds.values()) for name in ("training", "cases")}
    return {"kinds": kinds, "people": _people(drafts), **totals}


def _count_kind(kind: str, drafts: Sequence[Draft], said: Said) -> dict[str, Any]:
    ours = [draft for draft in drafts if draft.lesson.kind == kind]
    reasons = Counter(draft.reason for draft in ours if draft.reason)
    reasons += Counter({"taken_back": said.taken_back.get(kind, 0)})
    accepted = [draft for draft in ours if not draft.reason]
    signals = sum(signal.kind == kind for signal in said.signals)
    return {
        "received": len(accepted) + signals + reasons.total(),
        "training": sum(not draft.case for draft in accepted),
        "cases": sum(draft.case for draft in accepted),
        "signals": signals,
        "quarantined": dict(sorted(reasons.items())),
    }


def _people(drafts: Sequence[Draft]) -> int:
    return len({draft.lesson.person for draft in drafts if not draft.reason})


def _publish(home: Home, directory: Path, artifact: Artifact) -> FeedbackRowsRef:
    training, cases = artifact.summary["training"], artifact.summary["cases"]
    if not (training or cases or read_versions(directory)):
        return FeedbackRowsRef(artifact, 0, 0, "")
    time = datetime.now(UTC).isoformat(timespec="seconds")
    version = publish(directory, home.store.path(artifact), time, "feedback_rows")
    return FeedbackRowsRef(artifact, training, cases, version.version)


def _asked_again(found: Regeneration) -> Signal:
    person, said = f"{found.tenant}/{found.user}", (found.time, found.first, found.release)
    return Signal(REGENERATION, person, *said, again=found.second)


def _key(lesson: Lesson) -> tuple[str, str, str]:
    return lesson.kind, lesson.request, lesson.person


def _digest_of(suites: Path | None) -> str:
    files = sorted(suites.glob("*.*")) if suites and suites.is_dir() else []
    return digest_json({path.name: digest_file(path) for path in files if path.is_file()})
