"""Experiments on the terminal, and for machines."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlops_assets.home import Home
from mlops_assets.serving.rollout.release_spec import ReleaseSpec
from mlops_assets.serving.serving_home import ServingHome
from mlops_assets.serving.traffic.experiment_decision import ExperimentVerdict
from mlops_assets.serving.traffic.experiment_progress import ExperimentProgress
from mlops_assets.serving.traffic.experiment_state import Experiment, read_experiments
from mlops_assets.serving.traffic.experiments import find
from mlops_assets.verdicts import FAIL, INCONCLUSIVE, PASS

STYLES = {PASS: "green", FAIL: "red"}


@dataclass(frozen=True)
class Seen:
    """An experiment, and what is known of it."""

    experiment: Experiment
    verdict: ExperimentVerdict

    @property
    def stands(self) -> str:
        """Whether it runs, in words."""
        if self.experiment.ended is not None:
            ended = self.experiment.ended
            return f"ended {ended.at}: {ended.decision.reason}"
        return f"halted: {self.experiment.halted}" if self.experiment.halted else "runs"

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            **self.experiment.terms.model_dump(),
            "started": self.experiment.started.at,
            "state": self.stands,
            "winner": self.verdict.winner,
            "verdict": self.verdict.reason,
            "criteria": [asdict(one) for one in self.verdict.criteria],
        }


def look(home: Home, model: str, name: str | None, guardrails: ReleaseSpec) -> list[Seen]:
    """One experiment, or all of a model. Raises LineageError for a name that is none."""
    chosen = [find(home, model, name)] if name else read_experiments(home.ledger.entries(), model)
    serving = ServingHome.of(home).root
    return [
        Seen(one, ExperimentProgress(serving, one, guardrails).catch_up().verdict())
        for one in chosen
    ]


def print_experiments(found: Sequence[Seen]) -> None:
    """Terms, verdict and criteria of each."""
    console = Console(highlight=False)
    if not found:
        console.print("There is no experiment. Begin one: mlops experiment start --help")
    for seen in found:
        terms = seen.experiment.terms
        # As text, not as markup: reasons are what people typed.
        console.print(Text.assemble((terms.name, "bold"), "  ", seen.stands))
        console.print(
            f"  version {terms.version_a} (a) beside version {terms.version_b} (b), by"
            f" {terms.metric}, for {terms.share:.0%} of the users"
            + (f" with the flag {terms.flag}" if terms.flag else ""),
            markup=False,
        )
        console.print(
            f"  looks for {terms.minimum_effect:g} from {terms.baseline:.3g}:"
            f" {terms.users_needed:,} voting users of each",
            markup=False,
        )
        won = seen.verdict.winner
        lead = won if won == INCONCLUSIVE else f"Winner {won}"
        console.print(Text.assemble("  ", (lead, "bold"), "  ", seen.verdict.reason))
        table = Table(box=None, padding=(0, 2), show_header=False)
        for one in seen.verdict.criteria:
            verdict = Text(one.verdict, STYLES.get(one.verdict, ""))
            table.add_row(Text(one.name), verdict, Text(one.detail))
        console.print(table)
