"""The command that takes a release back: rollback."""

import typer

from mlops_assets.approval_commands import As, AsJson, Key, Model, Reason, key_file
from mlops_assets.artifacts import LineageError
from mlops_assets.command_line import plain_errors, print_json
from mlops_assets.home import Home
from mlops_assets.signing import load_key


def register(app: typer.Typer) -> None:
    """Add the command to ``mlops``."""
    app.command()(plain_errors(rollback))


def rollback(
    name: As,
    reason: Reason,
    key: Key = None,
    model: Model = None,
    as_json: AsJson = False,
) -> None:
    """Take the champion back, on its way or released; what was in force before is restored.

    Works whether a gateway runs or not; a running one follows within a second.
    """
    from mlops_assets.promotion.registry import reconcile
    from mlops_assets.serving.rollout.rollback import roll_back

    home = Home.from_environment()
    done = roll_back(home, name, reason, load_key(key, key_file(home, name)), model=model)
    decided = done.entry.decision
    if as_json:
        print_json(done.as_json())
    else:
        typer.echo(
            f"{decided.model}: version {done.undone} is taken back, version {decided.version} is"
            f" the champion again (ledger entry {done.entry.entry})."
        )
    try:
        reconcile(home, decided.model)
    except LineageError as error:
        raise LineageError(
            f"The rollback stands on the ledger, but the registry's aliases do not follow yet:"
            f" {error.problem}",
            "Nothing is lost: run `mlops reconcile` when it is back.",
        ) from error
