"""The commands of labels: draw, import, status."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from mlops_assets.approval_commands import AsJson
from mlops_assets.approvers import NAME
from mlops_assets.artifacts import LineageError
from mlops_assets.command_line import plain_errors, print_json
from mlops_assets.home import Home
from mlops_assets.monitoring.shown_time import to_the_minute

label = typer.Typer(help="Have people label a random slice of what users ask.")


def register(app: typer.Typer) -> None:
    """Add the commands to ``mlops``."""
    label.command()(plain_errors(draw))
    label.command(name="import")(plain_errors(import_filled_in))
    label.command()(plain_errors(status))
    app.add_typer(label, name="label")


def draw(
    count: Annotated[int, typer.Option(min=1, max=100_000, help="Requests to draw.")],
    out: Annotated[Path, typer.Option(help="File to write, for a person to fill in.")],
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of the draw; default: a new one, which is kept.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="YYYY-MM-DD", help="Only requests from this day on, in UTC."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Draw answered requests at random and write them to a file, without their answers.

    The file is private: it holds what users wrote.
    """
    from mlops_assets.monitoring.quality.labelling import draw_requests, vocabulary_of

    home = Home.from_environment()
    drawn = draw_requests(home, count, seed, _day(since), out)
    if as_json:
        print_json(
            {
                "draw": drawn.id,
                "seed": drawn.seed,
                "requests": len(drawn.requests),
                "population": drawn.population,
                "since": drawn.since,
                "until": drawn.until,
                "file": str(out),
            }
        )
        return
    typer.echo(
        f"Draw {drawn.id}: {len(drawn.requests):,} of {drawn.population:,} answered requests from"
        f" {to_the_minute(drawn.since)} to {to_the_minute(drawn.until)} UTC, seed {drawn.seed}.\n"
        f"Fill in `label` of every line of {out}, also where it is hard:"
    )
    for name, allowed in vocabulary_of(home).items():
        typer.echo(f"  {name}: {', '.join(allowed)}, or null where none fits")
    typer.echo(f"then: mlops label import {out} --as NAME")


def import_filled_in(
    file: Annotated[Path, typer.Argument(help="A file of `mlops label draw`, filled in.")],
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="Who labelled it.")],
    write: Annotated[
        bool, typer.Option("--write", help="Keep the labels; else only show.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a filled-in file holds; with --write, keep its labels for good."""
    from mlops_assets.monitoring.quality.labelling import import_labels

    if not re.match(NAME, name):
        raise LineageError(
            f"{name!r} is no name.", "Use small letters, digits, dots and dashes, up to 64."
        )
    found = import_labels(Home.from_environment(), file, name, write=write)
    if as_json:
        print_json(found.as_json())
        return
    typer.echo(
        f"{_counted(len(found.labels), 'new label')} by {name}, {found.known:,} given before,"
        f" {_counted(found.empty, 'line')} not filled in."
    )
    if found.file:
        typer.echo(f"Kept in {found.file}. The job `monitor` measures answers by them.")
    elif found.labels:
        typer.echo("Nothing is kept yet: --write keeps them.")


def status(as_json: AsJson = False) -> None:
    """Show every draw, and how much of it came back."""
    from mlops_assets.monitoring.quality.label_status import draw_states, print_draws

    found = draw_states(Home.from_environment())
    if as_json:
        print_json([one.as_json() for one in found])
    else:
        print_draws(found)


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _day(given: str | None) -> datetime | None:
    if given is None:
        return None
    try:
        return datetime.strptime(given, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise LineageError(f"{given!r} is no day.", "Give it as 2026-11-22.") from None
