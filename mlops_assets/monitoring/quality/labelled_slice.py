"""Whether the recorded answers are right, by labels of a random slice of the requests.

A draw is a simple random sample of what was asked, so the share of right answers among it stands
for all of them, whoever asked how often. That holds only as far as the draw came back: those who
label leave out what is hard. So a draw decides only where enough of it did, and says how much.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from mlops_assets.metrics import field_value, is_exact, is_same_text, mean, wilson
from mlops_assets.monitoring.drift.findings import CONCEPT, Finding, too_few
from mlops_assets.monitoring.quality.label_store import Draw, Label
from mlops_assets.monitoring.quality.quality_spec import QualitySpec
from mlops_assets.monitoring.quality.release_in_force import TestScores
from mlops_assets.monitoring.quality.worsening import p_worse

EXACT = "exact_match"
NOT_DRAWN = "no answer of this release was drawn for labels: `mlops label draw`"
Judge = Callable[[str, str], bool]
"""Whether an answer is right by a label."""


@dataclass(frozen=True)
class LabelledSlice:
    """What came back of one draw, for one release."""

    draw: str
    until: str
    """Time of the newest request that could be drawn."""
    population: int
    drawn: int
    """Requests that the release answered."""
    labelled: int
    gone: int
    """Labelled ones whose answer the log has no more."""
    disputed: int
    """Those that two people labelled differently: such an answer is right in part."""
    people: int
    scores: Mapping[str, Sequence[float]]
    """By metric, how right each answer is: the share of its labels that agree with it."""

    @property
    def usable(self) -> int:
        """Labelled requests whose answer is known."""
        return self.labelled - self.gone

    @property
    def response(self) -> float:
        """The share of the draw that can be judged."""
        return self.usable / self.drawn if self.drawn else 0.0

    def why_not(self, spec: QualitySpec, now: datetime) -> str:
        """Why it decides nothing, whatever the labels say; empty where it does."""
        if datetime.fromisoformat(self.until) < now - timedelta(days=spec.label_days):
            return f"the last labelled slice is older than {spec.label_days} days"
        if self.response < spec.min_response:
            came = f"{self.usable:,} of {self.drawn:,} drawn requests are labelled"
            return f"{came} ({self.response:.0%}), {spec.min_response:.0%} are needed"
        return too_few(self.usable, spec.min_labels, "labels")

    def shown(self) -> dict[str, object]:
        """The slice in ``quality.json``: each metric with Wilson's 95% interval."""
        measured = {
            name: {"mean": mean(scores), "interval": wilson(round(sum(scores)), len(scores))}
            for name, scores in self.scores.items()
        }
        names = ("draw", "until", "population", "drawn", "labelled", "gone", "disputed", "people")
        facts = {name: getattr(self, name) for name in names}
        return facts | {"response": self.response, "metrics": measured}


def slice_of(
    draw: Draw,
    labels: Sequence[Label],
    answers: Mapping[str, str],
    releases: Collection[str] | None,
    fields: Sequence[str],
) -> LabelledSlice:
    """What the labels say of a draw's answers by these releases; None stands for all.

    A label counts for every draw that its request is in. ``answers`` are the recorded ones by
    request; without ``fields`` they are free text.
    """
    drawn = [one.request for one in draw.requests if releases is None or one.release in releases]
    given: dict[str, list[Label]] = {request: [] for request in drawn}
    for label in labels:
        given.get(label.request, []).append(label)
    labelled = {request: found for request, found in given.items() if found}
    known = [request for request in labelled if request in answers]
    return LabelledSlice(
        draw=draw.id,
        until=draw.until,
        population=draw.population,
        drawn=len(drawn),
        labelled=len(labelled),
        gone=len(labelled) - len(known),
        disputed=sum(len({label.label for label in found}) > 1 for found in labelled.values()),
        people=len({label.person for found in labelled.values() for label in found}),
        scores={
            name: [
                sum(judge(one.label, answers[request]) for one in labelled[request])
                / len(labelled[request])
                for request in known
            ]
            for name, judge in _judges(fields).items()
        },
    )


def deciding(
    slices: Sequence[LabelledSlice], spec: QualitySpec, now: datetime
) -> tuple[LabelledSlice | None, str]:
    """The newest slice that decides, or None and why the newest of all does not."""
    asked = [one for one in slices if one.drawn]
    for one in reversed(asked):
        if not one.why_not(spec, now):
            return one, ""
    return None, asked[-1].why_not(spec, now) if asked else NOT_DRAWN


def compare_with_report(
    slices: Sequence[LabelledSlice], measured: TestScores, spec: QualitySpec, now: datetime
) -> list[Finding]:
    """Whether the answers are right less often than the release's evaluation report promised."""
    one, why = deciding(slices, spec, now)
    names = tuple(measured.shares) or (EXACT,)
    return [_compare(name, one, why, measured, spec) for name in names]


def values_beside_report(
    slices: Sequence[LabelledSlice], measured: TestScores, spec: QualitySpec, now: datetime
) -> dict[str, dict[str, float | None]]:
    """What the deciding slice says, and what the report promised, by finding."""
    one, _ = deciding(slices, spec, now)
    return {
        f"labelled/{name}": {
            "current": mean(one.scores[name]) if one else None,
            "baseline": promised,
        }
        for name, promised in measured.shares.items()
    }


def _compare(
    name: str, one: LabelledSlice | None, why: str, measured: TestScores, spec: QualitySpec
) -> Finding:
    promised = measured.shares.get(name)
    if promised is None:
        why = why or "the release's evaluation report is not in the store"
    scores = one.scores[name] if one else ()
    finding = Finding(
        name=f"labelled/{name}",
        layer=CONCEPT,
        kind="rate",
        effect=0.0,
        min_effect=spec.quality_margin,
        p=1.0,
        reference_n=measured.items,
        current_n=len(scores),
        left_out=why,
    )
    if why or promised is None:
        return finding
    right = round(promised * measured.items)
    baseline = [("", 0.0)] * right + [("", 1.0)] * (measured.items - right)
    found = sum(scores) / len(scores)
    detail = f"{found:.1%} of {len(scores):,} labelled answers, {promised:.1%} in the report"
    return replace(
        finding,
        effect=max(0.0, promised - found),
        p=p_worse([("", 1 - score) for score in scores], baseline, spec.seed),
        detail=detail,
    )


def _judges(fields: Sequence[str]) -> dict[str, Judge]:
    """How an answer is compared with a label, by metric."""

    def of(name: str) -> Judge:
        def judge(label: str, answer: str) -> bool:
            wanted = field_value(label, name)
            return wanted is not None and wanted == field_value(answer, name)

        return judge

    exact = is_exact if fields else is_same_text
    return {EXACT: exact, **{f"accuracy/{name}": of(name) for name in fields}}
