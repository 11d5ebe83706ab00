"""Experiments from their start to their end: each a row of the ledger.

Only releases that users have had in full can be compared: what is on its way goes through its own
steps first, and what was rolled back does not come back through an experiment. While one runs the
gateway watches its guardrails, and ends it when variant b is shown to do harm.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mlops_assets.artifacts import LineageError
from mlops_assets.feedback_record import read_feedback
from mlops_assets.home import Home
from mlops_assets.ledger import PROMOTED, RELEASED, ROLLED_BACK, Decision, LedgerEntry
from mlops_assets.release_check import verify_release
from mlops_assets.release_state import read_release
from mlops_assets.serving.rollout.release_spec import ReleaseSpec
from mlops_assets.serving.serving_home import ServingHome
from mlops_assets.serving.traffic.experiment_decision import ExperimentVerdict
from mlops_assets.serving.traffic.experiment_plan import ExperimentPlan
from mlops_assets.serving.traffic.experiment_progress import ExperimentProgress
from mlops_assets.serving.traffic.experiment_state import (
    EXPERIMENT,
    EXPERIMENT_ENDED,
    Experiment,
    Terms,
    end_key,
    read_experiments,
    start_key,
)
from mlops_assets.verdicts import FAIL

logger = logging.getLogger(__name__)

FEWEST_VOTES = 50
"""From which a baseline may be measured."""
LOOK_EVERY = 5.0
"""Seconds between two looks at the guardrails."""


def start(
    home: Home, model: str, name: str, versions: tuple[int, int], plan: dict[str, Any]
) -> Experiment:
    """Begin to compare version a with version b.

    ``plan`` has the other terms: ``metric``, ``minimum_effect``, and where they differ from the
    defaults ``baseline`` (else measured), ``alpha``, ``power``, ``share``, ``salt``, ``flag``.
    Raises LineageError for releases that cannot be compared and for terms that make no sense.
    """
    entries = home.ledger.entries()
    if any(one.terms.name == name for one in read_experiments(entries, model)):
        raise LineageError(
            f"There has been an experiment {name!r} already.", "Choose another name."
        )
    a, b = (_promotion(entries, model, version) for version in versions)
    if a.decision.bundle.digest == b.decision.bundle.digest:
        raise LineageError("Both versions are the same release.", "Compare two releases.")
    for row in (a, b):
        verify_release(home, row)
    if plan.get("baseline") is None:
        plan = {**plan, "baseline": _measured(home, a, plan["metric"])}
    terms = _terms(name, a, b, plan)
    row = home.ledger.append(
        Decision(
            key=start_key(model, name),
            outcome=EXPERIMENT,
            reason=f"{terms.share:.0%} of the eligible users: version {terms.version_a} beside"
            f" version {terms.version_b}, by {terms.metric}",
            model=model,
            version=terms.version_b,
            bundle=b.decision.bundle,
            evidence={"terms": terms.model_dump()},
        )
    )
    return Experiment(terms, row)


def stop(
    home: Home, model: str, name: str, reason: str, guardrails: ReleaseSpec
) -> tuple[Experiment, ExperimentVerdict]:
    """End an experiment; the row keeps what was known. Raises LineageError when it does not run."""
    found = find(home, model, name)
    if found.ended is not None:
        raise LineageError(
            f"The experiment {name!r} ended with ledger entry {found.ended.entry}.",
            "Start another.",
        )
    verdict = ExperimentProgress(ServingHome.of(home).root, found, guardrails).catch_up().verdict()
    row = home.ledger.append(_end(found, reason, verdict))
    return Experiment(found.terms, found.started, row), verdict


def find(home: Home, model: str, name: str) -> Experiment:
    """The experiment of this name. Raises LineageError without any."""
    known = {one.terms.name: one for one in read_experiments(home.ledger.entries(), model)}
    if name not in known:
        remedy = f"Choose one of {', '.join(known)}." if known else "Begin one first."
        raise LineageError(f"{model} has no experiment {name!r}.", remedy)
    return known[name]


async def watch_guardrails(
    home: Home,
    model: str,
    entries: Callable[[], Sequence[LedgerEntry]],
    guardrails: ReleaseSpec,
    every: float = LOOK_EVERY,
) -> None:
    """End every experiment whose variant b does harm, until cancelled. ``every`` is in seconds."""
    progress: dict[int, ExperimentProgress] = {}
    serving = ServingHome.of(home).root
    while True:
        running = [one for one in read_experiments(entries(), model) if one.runs]
        progress = {each: progress[each] for each in progress if each in _starts(running)}
        for one in running:
            entry = one.started.entry
            try:
                if entry not in progress:
                    progress[entry] = ExperimentProgress(serving, one, guardrails)
                await asyncio.to_thread(_guard, home, one, progress[entry])
            except LineageError as error:
                logger.warning("the experiment %s cannot be ended: %s", one.terms.name, error)
            except Exception:
                logger.exception("the guardrails of %s could not be looked at", one.terms.name)
                progress.pop(entry, None)  # it was read half: going on would count some twice
        await asyncio.sleep(every)


def _guard(home: Home, experiment: Experiment, progress: ExperimentProgress) -> None:
    verdict = progress.catch_up().verdict()
    harm = [
        one for one in verdict.criteria if one.verdict == FAIL and one.name.startswith("guardrail/")
    ]
    if harm:
        row = home.ledger.append(_end(experiment, f"{harm[0].name}: {harm[0].detail}", verdict))
        logger.warning("the experiment %s ends: %s", experiment.terms.name, row.decision.reason)


def _starts(running: Sequence[Experiment]) -> set[int]:
    return {one.started.entry for one in running}


def _end(experiment: Experiment, reason: str, verdict: ExperimentVerdict) -> Decision:
    started = experiment.started.decision
    return Decision(
        key=end_key(started.model, experiment.terms.name),
        outcome=EXPERIMENT_ENDED,
        reason=reason,
        model=started.model,
        version=started.version,
        bundle=started.bundle,
        evidence={
            "started": experiment.started.entry,
            "winner": verdict.winner,
            "verdict": verdict.reason,
            "criteria": [asdict(one) for one in verdict.criteria],
        },
    )


def _promotion(entries: Sequence[LedgerEntry], model: str, version: int) -> LedgerEntry:
    """The row that promoted a version which users have had, and which was not taken back."""
    ours = [row for row in entries if row.decision.model == model]
    promoted = [
        row for row in ours if (row.decision.outcome, row.decision.version) == (PROMOTED, version)
    ]
    if not promoted:
        raise LineageError(
            f"Version {version} of {model} was never promoted.",
            "Only what was approved can be served: `mlops audit` lists what is on the ledger.",
        )
    if promoted[-1].decision.bundle.digest not in _served(ours, model):
        raise LineageError(
            f"Version {version} of {model} is not released, or was taken back.",
            "Compare releases that all users have had: a candidate goes through its canary first.",
        )
    return promoted[-1]


def _served(ours: Sequence[LedgerEntry], model: str) -> set[str]:
    """Digests of the bundles that users have had in full and that nobody took back."""
    rows = {row.entry: row for row in ours}
    served: set[str] = set()
    for row in ours:
        digest = row.decision.bundle.digest
        if row.decision.outcome == ROLLED_BACK and row.decision.replaces in rows:
            served.discard(rows[row.decision.replaces].decision.bundle.digest)
        if row.decision.outcome in (RELEASED, ROLLED_BACK):
            served.add(digest)
    stable = read_release(ours, model).stable
    return served | ({stable.decision.bundle.digest} if stable else set())


def _measured(home: Home, a: LedgerEntry, metric: str) -> float:
    """The metric of a release so far."""
    release = a.decision.bundle.digest
    scores = [
        vote.score
        for vote in read_feedback(Path(ServingHome.of(home).feedback))
        if (vote.release, vote.metric) == (release, metric)
    ]
    if len(scores) < FEWEST_VOTES:
        raise LineageError(
            f"Version {a.decision.version} has {len(scores)} votes on {metric!r}, too few to tell"
            " its baseline.",
            "State the value that you expect by --baseline.",
        )
    return sum(scores) / len(scores)


def _terms(name: str, a: LedgerEntry, b: LedgerEntry, plan: dict[str, Any]) -> Terms:
    defaults: dict[str, Any] = {
        "alpha": 0.05,
        "power": 0.8,
        "share": 1.0,
        "salt": secrets.token_hex(8),
    }
    stated = defaults | {key: value for key, value in plan.items() if value is not None}
    wanted = ExperimentPlan(
        stated["baseline"], stated["minimum_effect"], stated["alpha"], stated["power"]
    )
    try:
        return Terms(
            name=name,
            version_a=a.decision.version,
            version_b=b.decision.version,
            release_a=a.decision.bundle.digest,
            release_b=b.decision.bundle.digest,
            promotion_a=a.entry,
            promotion_b=b.entry,
            users_needed=wanted.users_needed,
            **stated,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise LineageError(
            f"The experiment's {first['loc'][0]} cannot be {first['input']!r}:"
            f" {first['msg'].lower()}.",
            "State it otherwise.",
        ) from error
