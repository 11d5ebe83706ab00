"""What every command of ``mlops`` shares: errors in one sentence, and JSON for machines."""

import json
import sys
from collections.abc import Callable
from functools import wraps

import typer

from mlops_assets.artifacts import LineageError


def plain_errors(command: Callable[..., None]) -> Callable[..., None]:
    """End a command with one sentence and exit code 1 instead of a stack trace."""

    @wraps(command)
    def wrapped(*args: object, **options: object) -> None:
        try:
            command(*args, **options)
        except LineageError as error:
            typer.secho(f"Error: {error}", fg="red", err=True)
            raise typer.Exit(1) from error

    return wrapped


def print_json(value: object) -> None:
    """One JSON value on standard output."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")
