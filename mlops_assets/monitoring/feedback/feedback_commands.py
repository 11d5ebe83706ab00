"""The commands of feedback: what there is, its versions, and bringing one back."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from mlops_assets.approval_commands import AsJson
from mlops_assets.artifacts import SHORT, LineageError
from mlops_assets.command_line import plain_errors, print_json
from mlops_assets.home import Home
from mlops_assets.monitoring.feedback.feedback_spec import FeedbackSpec
from mlops_assets.monitoring_refs import FeedbackRowsRef
from mlops_assets.profiles import asset_config

feedback = typer.Typer(help="What people said of answers, and what became of it.")


def register(app: typer.Typer) -> None:
    """Add the commands to ``mlops``."""
    feedback.callback(invoke_without_command=True)(plain_errors(show))
    for command in (versions, restore):
        feedback.command()(plain_errors(command))
    app.add_typer(feedback, name="feedback")


def show(context: typer.Context, as_json: AsJson = False) -> None:
    """Show what people said of answers, what became of it, and why the rest is set aside."""
    from mlops_assets.monitoring.feedback import feedback_table
    from mlops_assets.monitoring.feedback.versions import read_versions

    if context.invoked_subcommand:
        return
    latest = Home.from_environment().latest("feedback_rows")
    found = read_versions(_directory())
    summary = latest.artifact.summary if isinstance(latest, FeedbackRowsRef) else None
    if as_json:
        print_json(feedback_table.as_json(summary, found))
    elif summary is None:
        raise LineageError("Nobody has looked at feedback yet.", "Run the job `monitor`.")
    else:
        feedback_table.print_feedback(summary, found, str(_directory()))


def versions(as_json: AsJson = False) -> None:
    """List the versions of feedback's rows and cases, the newest first."""
    from mlops_assets.monitoring.feedback import feedback_table
    from mlops_assets.monitoring.feedback.versions import read_versions

    found = read_versions(_directory())
    if as_json:
        print_json(feedback_table.as_json(None, found)["versions"])
    else:
        feedback_table.print_versions(found)


def restore(
    version: Annotated[
        str,
        typer.Argument(help="Its name, or the hash of its rows or cases; the beginning will do."),
    ],
) -> None:
    """Bring back a version, from DVC's cache or its remote.

    It is in force until `feedback_rows` runs again. That reads all feedback anew, but of those
    whom its setting `excluded` names.
    """
    from mlops_assets.monitoring.feedback.versions import restore as bring_back

    now = datetime.now(UTC).isoformat(timespec="seconds")
    found = bring_back(_directory(), version, now)
    typer.echo(
        f"In force: version {found.version[:SHORT]}, {found.training.rows} rows to learn from,"
        f" {found.cases.rows} cases."
    )


def _directory() -> Path:
    from mlops_assets.monitoring.feedback.versions import feedback_directory

    return feedback_directory(FeedbackSpec(**asset_config("feedback_rows")).directory)
