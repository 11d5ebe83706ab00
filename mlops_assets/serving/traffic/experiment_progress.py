"""What the logs say of an experiment: who met which variant, how it fared, and the metric.

Made again from the request log and the votes at any time, or read on. Users are counted when they
first met their variant; of a user's votes on the metric the first counts, because no test can take
back what it has seen.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from mlops_assets.serving.records.log_tail import blocks
from mlops_assets.serving.rollout.release_spec import ReleaseSpec
from mlops_assets.serving.rollout.rollout_progress import (
    REQUESTS,
    VOTES,
    first_segment,
    read_request,
    seconds,
)
from mlops_assets.serving.traffic.experiment_decision import ExperimentTest
from mlops_assets.serving.traffic.experiment_plan import ExperimentPlan
from mlops_assets.serving.traffic.experiment_state import Experiment


class ExperimentProgress:
    """The evidence about one experiment."""

    def __init__(self, serving: Path, experiment: Experiment, guardrails: ReleaseSpec) -> None:
        """``serving`` is the home's directory of that name; the guardrails are the release's."""
        terms = experiment.terms
        plan = ExperimentPlan(terms.baseline, terms.minimum_effect, terms.alpha, terms.power)
        self.terms, self.test = terms, ExperimentTest(plan, guardrails)
        ended = experiment.ended
        self._span = seconds(experiment.started.at), seconds(ended.at) if ended else math.inf
        self._serving = serving
        self._logs = {name: first_segment(serving / name, self._span[0]) for name in TAKES}

    def catch_up(self) -> ExperimentTest:
        """Take in what was appended since the last time."""
        for name, take in TAKES.items():
            for content in self._read(name):
                try:
                    take(self, content)
                except (KeyError, TypeError, ValueError, AttributeError):
                    continue  # no record of ours
        return self.test

    def _read(self, name: str) -> Iterator[dict[str, Any]]:
        """What is new in a log of this experiment; a torn line is passed over."""
        named = orjson.dumps(self.terms.name)
        for lines, position in blocks(self._serving / name, self._logs[name]):
            for line in lines:
                if named not in line:
                    continue
                try:
                    yield orjson.loads(line)
                except orjson.JSONDecodeError:
                    continue
            self._logs[name] = position

    def _request(self, content: dict[str, Any]) -> None:
        variant = content["experiment"].get(self.terms.name)
        if variant is None or not self._is_within(content["timestamp"]):
            return
        record, observation = read_request(content)
        self.test.assign(record.user, variant)
        if observation is not None:
            self.test.observe(variant, observation)

    def _vote(self, content: dict[str, Any]) -> None:
        variant = content["experiment"].get(self.terms.name)
        if variant is None or content["metric"] != self.terms.metric:
            return
        if self._is_within(content["asked"]) and self._is_within(content["timestamp"]):
            self.test.vote(content["user"], variant, float(content["score"]))

    def _is_within(self, stamp: str) -> bool:
        begun, ended = self._span
        return begun <= seconds(stamp) <= ended


TAKES = {REQUESTS: ExperimentProgress._request, VOTES: ExperimentProgress._vote}
"""The logs that are read, in this order."""
