"""The commands of experiments: start, status, stop."""

from typing import Annotated, Any

import typer

from mlops_assets.approval_commands import AsJson
from mlops_assets.command_line import plain_errors, print_json
from mlops_assets.home import Home

experiment = typer.Typer(help="Compare two releases by what users say of their answers.")

Name = Annotated[str, typer.Argument(help="Name of the experiment.")]


def register(app: typer.Typer) -> None:
    """Add the commands to ``mlops``."""
    for command in (start, status, stop):
        experiment.command()(plain_errors(command))
    app.add_typer(experiment, name="experiment")


def start(
    name: Name,
    a: Annotated[int, typer.Argument(min=1, help="Version that there is.")],
    b: Annotated[int, typer.Argument(min=1, help="Version that is tried.")],
    mde: Annotated[
        float, typer.Option(help="Smallest difference of the metric that is worth finding.")
    ],
    metric: Annotated[
        str, typer.Option(help="Metric of the feedback; its mean is to get better.")
    ] = "rating",
    baseline: Annotated[
        float | None, typer.Option(help="The metric now; default: as measured for version a.")
    ] = None,
    share: Annotated[float, typer.Option(help="Of the eligible users, who take part.")] = 1.0,
    flag: Annotated[str, typer.Option(help="Flag that says who is eligible.")] = "",
    alpha: Annotated[float, typer.Option(help="Probability of a false difference.")] = 0.05,
    power: Annotated[float, typer.Option(help="Probability to find a real one.")] = 0.8,
    salt: Annotated[
        str | None, typer.Option(help="Of the assignment's hash; default: a new one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Begin to compare two releases; the terms are on the ledger before the first user is.

    Says how many voting users of each variant it takes to find the smallest difference.
    """
    from mlops_assets.serving.traffic import experiments

    plan: dict[str, Any] = {"metric": metric, "minimum_effect": mde, "baseline": baseline}
    plan |= {"share": share, "flag": flag, "alpha": alpha, "power": power, "salt": salt}
    begun = experiments.start(Home.from_environment(), _model(), name, (a, b), plan)
    terms = begun.terms
    if as_json:
        print_json({"entry": begun.started.entry, **terms.model_dump()})
        return
    typer.echo(
        f"{name}: version {a} beside version {b} for {share:.0%} of the eligible users (ledger"
        f" entry {begun.started.entry}).\nTo find a difference of {mde:g} from {terms.baseline:.3g}"
        f" it takes {terms.users_needed:,} voting users of each variant."
    )


def status(
    name: Annotated[str | None, typer.Argument(help="Name of an experiment; all without.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what experiments have found so far; looking costs nothing, however often."""
    from mlops_assets.serving.traffic import experiment_table

    home, model = Home.from_environment(), _model()
    found = experiment_table.look(home, model, name, _guardrails())
    if as_json:
        print_json([one.as_json() for one in found])
    else:
        experiment_table.print_experiments(found)


def stop(
    name: Name,
    reason: Annotated[str, typer.Option(help="Why; it is kept for good.")],
    as_json: AsJson = False,
) -> None:
    """End an experiment: all users get the stable release again."""
    from mlops_assets.serving.traffic import experiment_table, experiments

    home, model = Home.from_environment(), _model()
    ended, verdict = experiments.stop(home, model, name, reason, _guardrails())
    seen = experiment_table.Seen(ended, verdict)
    if as_json:
        print_json(seen.as_json())
    else:
        experiment_table.print_experiments([seen])


def _model() -> str:
    from mlops_assets.serving.gateway.lifecycle import Settings

    return Settings.of_profile().model


def _guardrails() -> Any:
    from mlops_assets.serving.gateway.lifecycle import Settings

    return Settings.of_profile().release
