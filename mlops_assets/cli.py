"""The ``mlops`` command: data in, the state of the lineage, and the development servers."""

import logging
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mlops_assets import approval_commands, release_commands
from mlops_assets.command_line import plain_errors, print_json
from mlops_assets.home import Home
from mlops_assets.monitoring.feedback import feedback_commands
from mlops_assets.monitoring.quality import label_commands
from mlops_assets.profiles import asset_config
from mlops_assets.prune_command import prune
from mlops_assets.reproduction import reproduce as rebuild_version
from mlops_assets.reproduction_table import print_reproduction
from mlops_assets.reproduction_verdict import DIFFERENT
from mlops_assets.servers import run_servers
from mlops_assets.serving import experiment_commands, export_commands, gateway_commands
from mlops_assets.state import read_state
from mlops_assets.summary import print_summary
from mlops_assets.termination import ended_by_sigterm
from mlops_assets.usage_command import usage

INTERRUPTED = 130  # the shell's exit code of a command that Ctrl-C ended

app = typer.Typer(
    help="The lineage of a self-hosted, fine-tuned language model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # breaks the lines of a docstring where the terminal ends
)


@app.callback()
def about() -> None:
    """The lineage of a self-hosted, fine-tuned language model."""


@app.command()
@plain_errors
def status(
    as_json: Annotated[bool, typer.Option("--json", help="For machines: one JSON object.")] = False,
) -> None:
    """Show data, scores, decision and drift of the latest runs, and the champion."""
    from mlops_assets.serving.running_gateway import ask_gateway
    from mlops_assets.serving.serving_home import ServingHome

    home = Home.from_environment()
    state = read_state(home)
    if as_json:
        print_json(state.as_json())
    else:
        print_summary(state, ask_gateway(ServingHome.of(home)))


@app.command()
@plain_errors
def dev(
    dagster_port: Annotated[int, typer.Option(help="Port of the Dagster UI.")] = 3000,
    mlflow_port: Annotated[int, typer.Option(help="Port of the MLflow UI.")] = 5000,
    approvals_port: Annotated[int, typer.Option(help="Port of the approval page.")] = 3001,
) -> None:
    """Run the UIs of Dagster and MLflow and the approval page until Ctrl-C.

    With Dagster's daemon, all of them on loopback.
    """
    run_servers(Home.from_environment(), dagster_port, mlflow_port, approvals_port)


@app.command(name="import")
@plain_errors
def import_data(
    source: Annotated[str, typer.Argument(help="File or directory; docs/data.md lists formats.")],
    format: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="messages, prompt_completion, preference, csv, tsv, parquet, datasets, shards or"
            " labelled_csv, where the source does not tell by itself.",
        ),
    ] = "auto",
    mapping: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="OURS=THEIRS",
            help="Our name of a field, and the source's; may be repeated.",
        ),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD", help="A further field to carry over; may be repeated."),
    ] = None,
    answer_field: Annotated[
        str, typer.Option(help="Field of the answer that a bare label becomes.")
    ] = "label",
    write: Annotated[bool, typer.Option("--write", help="Write the rows; else only show.")] = False,
    output: Annotated[
        Path | None, typer.Option(help="File to write.", show_default="data/raw/NAME.jsonl")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the output.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines: one JSON object.")] = False,
) -> None:
    """Show what a source holds and what would be set aside; with --write, bring it in."""
    from mlops_assets.dataset.import_preview import print_import
    from mlops_assets.dataset.importing import import_source, source_spec

    spec = source_spec(source, format, mapping or ())
    target = output or Path("data/raw") / f"{Path(source).absolute().stem}.jsonl"
    result = import_source(spec, keep or (), answer_field, target if write else None, force=force)
    if as_json:
        print_json(result.as_json())
    else:
        print_import(result)


@app.command()
@plain_errors
def regressions(
    of: Annotated[str, typer.Option(help="Whose failures: tuned, champion or base.")] = "tuned",
    fixed: Annotated[
        bool, typer.Option("--fixed", help="Only those that the candidate gets right.")
    ] = False,
    suite: Annotated[str, typer.Option(help="The suite that they belong to.")] = "regressions",
    most: Annotated[int, typer.Option(min=1, max=10_000, help="Most cases to take.")] = 20,
    write: Annotated[bool, typer.Option("--write", help="Add the cases; else only show.")] = False,
) -> None:
    """Show what failed in the latest report; with --write, ask it of every later release."""
    from mlops_assets.evaluation.regressions import (
        find_regressions,
        print_regressions,
        write_regressions,
    )
    from mlops_assets.evaluation.spec import EvaluationSpec

    directory = asset_config("eval_report").get("suites", EvaluationSpec().suites)
    found = find_regressions(Home.from_environment(), directory, suite, of, fixed, most)
    if write:
        write_regressions(found)
    print_regressions(found, written=write)


@app.command()
@plain_errors
def sweep(
    file: Annotated[Path, typer.Argument(help="The sweep, such as profiles/sweeps/tiny.yaml.")],
    trials: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Trials in all, not the file's number.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines: one JSON object.")] = False,
) -> None:
    """Search settings of lora_adapter on the latest splits and base model.

    Stop it with Ctrl-C or otherwise: the same command goes on where it was.
    """
    from mlops_assets.training import sweep_table
    from mlops_assets.training.sweep import run_sweep

    terminal = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        with ended_by_sigterm():
            result = run_sweep(
                Home.from_environment(),
                file,
                trials,
                lambda stands: terminal.print(sweep_table.trial_line(stands), markup=False),
            )
    except (KeyboardInterrupt, SystemExit) as stop:
        terminal.print("\nStopped. The same command goes on where it was.")
        taken_away = isinstance(stop, SystemExit)
        raise typer.Exit(os.EX_TEMPFAIL if taken_away else INTERRUPTED) from None
    if as_json:
        print_json(sweep_table.as_json(result))
    else:
        sweep_table.print_result(result)


@app.command()
@plain_errors
def reproduce(
    version: Annotated[int, typer.Argument(min=1, help="Number of the registered version.")],
    model: Annotated[
        str | None, typer.Option(help="Name of the model; default: the one registered last.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines: one JSON object.")] = False,
) -> None:
    """Train a registered version again, and compare.

    From its commit, data, lock files and settings, in a clean worktree. Exit code 0 if the adapter
    is equal byte for byte, or, on other hardware, its losses agree; 1 otherwise.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    result = rebuild_version(Home.from_environment(), version, model)
    if as_json:
        print_json(result.as_json())
    else:
        print_reproduction(result)
    if result.verdict == DIFFERENT:
        raise typer.Exit(1)


@app.command()
@plain_errors
def diff(
    before: Annotated[
        str, typer.Argument(help="A version's number, an alias, or an MLflow run's id.")
    ],
    after: Annotated[str, typer.Argument(help="What is compared with it: the same kinds of name.")],
    metric: Annotated[
        list[str] | None, typer.Option(help="Only this metric; may be repeated.")
    ] = None,
    examples: Annotated[
        int, typer.Option(min=0, max=100, help="Examples each way for every suite.")
    ] = 3,
    model: Annotated[
        str | None, typer.Option(help="Name of the model; default: the one registered last.")
    ] = None,
    page: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page, too.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines: one JSON object.")] = False,
) -> None:
    """Compare two evaluations item by item: what got better, what got worse, with examples."""
    from mlops_assets.evaluation import diff as diffs
    from mlops_assets.evaluation.diff_page import write_diff_page
    from mlops_assets.evaluation.diff_table import print_diff

    home = Home.from_environment()
    latest = home.latest("registered_model")
    model = model or getattr(latest, "name", None)
    found = diffs.diff(home, before, after, model, metric or (), examples)
    if page is not None:
        write_diff_page(page, found)
    if as_json:
        print_json(found.as_json())
        return
    print_diff(found)
    if page is not None:
        typer.echo(f"\n  Page  {page}")


approval_commands.register(app)
release_commands.register(app)
app.command()(usage)
app.command()(prune)
gateway_commands.register(app)
feedback_commands.register(app)
experiment_commands.register(app)
export_commands.register(app)
label_commands.register(app)


def main() -> None:
    """Entry point of the ``mlops`` command."""
    app()
