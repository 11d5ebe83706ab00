"""The commands of approval: approve, reject, keys, audit, reconcile, approvals, alerts."""

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mlops_assets.approval_requests import OPEN
from mlops_assets.approvers import (
    EMAIL,
    LONGEST_EMAIL,
    MACHINE,
    NAME,
    Approver,
    Approvers,
    add_approver,
    approvers_file,
    is_under_review,
    read_approvers,
    render,
)
from mlops_assets.artifacts import LineageError
from mlops_assets.command_line import plain_errors, print_json
from mlops_assets.home import Home
from mlops_assets.signing import load_key, new_key, public_key
from mlops_assets.statements import stamp

keys = typer.Typer(help="Keys that sign approvals, and the list of who may approve.")

Version = Annotated[int, typer.Argument(min=1, help="Number of the registered version.")]
As = Annotated[str, typer.Option("--as", metavar="NAME", help="Your name on the list.")]
Reason = Annotated[str, typer.Option(help="Why; it is signed and kept for good.")]
Key = Annotated[
    Path | None,
    typer.Option(
        help="Your private key; default: what MLOPS_SIGNING_KEY holds or names, else"
        " MLOPS_HOME/keys/NAME.pem."
    ),
]
Model = Annotated[str | None, typer.Option(help="Name of the model, if several have this version.")]
AsJson = Annotated[bool, typer.Option("--json", help="For machines: one JSON object.")]


def register(app: typer.Typer) -> None:
    """Add the commands to ``mlops``."""
    for command in (approve, reject, audit, reconcile, approvals, alerts):
        app.command()(plain_errors(command))
    app.add_typer(keys, name="keys")


def approve(
    version: Version,
    name: As,
    reason: Reason,
    key: Key = None,
    model: Model = None,
    as_json: AsJson = False,
) -> None:
    """Approve a version that waits; the last approval needed makes it the champion."""
    from mlops_assets.promotion import approval

    _answer(approval.approve, version, name, reason, key, model, as_json)


def reject(
    version: Version,
    name: As,
    reason: Reason,
    key: Key = None,
    model: Model = None,
    as_json: AsJson = False,
) -> None:
    """Refuse a version that waits; its request is closed."""
    from mlops_assets.promotion import approval

    _answer(approval.reject, version, name, reason, key, model, as_json)


def approvals(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any free one.")] = 3001,
) -> None:
    """Serve the page on which people decide by personal link, until Ctrl-C.

    It shows the evidence of every request, on loopback; MLOPS_APPROVAL_URL is its address behind
    a TLS proxy.
    """
    from mlops_assets.promotion.approval_server import serve

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    serve(Home.from_environment(), port)


def alerts() -> None:
    """Send the alerts of open requests that no webhook has taken yet.

    The sensor `approval_alerts` does the same every half minute. Exit code 1 if some still wait.
    """
    from mlops_assets.promotion.approval_alerts import send_alerts

    delivery = send_alerts(Home.from_environment())
    typer.echo(str(delivery))
    if delivery.waiting:
        raise typer.Exit(1)


def _answer(
    act: Callable[..., Any],
    version: int,
    name: str,
    reason: str,
    key: Path | None,
    model: str | None,
    as_json: bool,
) -> None:
    home = Home.from_environment()
    answer = act(home, version, name, reason, load_key(key, key_file(home, name)), model=model)
    decided = answer.entry.decision
    if as_json:
        print_json(answer.as_json())
        return
    what = f"{decided.model} version {version}"
    typer.echo(f"{what}: {decided.outcome} by {name} (ledger entry {answer.entry.entry}).")
    if answer.promoted:
        aliases = ", ".join(f"{alias} {number}" for alias, number in sorted(answer.aliases.items()))
        typer.echo(f"{what} is the champion (ledger entry {answer.promoted.entry}); {aliases}.")
    elif answer.standing.state != OPEN:
        typer.echo(f"Its request is closed: {answer.standing.reason}.")
    elif missing := answer.standing.missing:
        more = "1 more approval is" if missing == 1 else f"{missing} more approvals are"
        until = stamp(answer.standing.request.terms.expires)
        typer.echo(f"{more} needed, by {until}.")


def key_file(home: Home, name: str) -> Path:
    """Where the key of this name lies. Raises LineageError for what is no name."""
    if not re.fullmatch(NAME, name):
        raise LineageError(
            f"{name!r} is no name of an approver.",
            "Use lower-case letters, digits, `.`, `_` and `-`, as the list of approvers does.",
        )
    return home.root / "keys" / f"{name}.pem"


@keys.command()
@plain_errors
def new(
    name: Annotated[str, typer.Argument(help="Your name, in lower case.")],
    email: Annotated[
        str | None, typer.Option(help="As in your commits: the author of a change is known by it.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="File of the key.", show_default="MLOPS_HOME/keys/NAME.pem")
    ] = None,
    add: Annotated[
        bool | None,
        typer.Option(
            "--add/--no-add",
            help="Add the public key to the list of approvers; default: only to the list that"
            " MLOPS_HOME keeps.",
        ),
    ] = None,
) -> None:
    """Make an Ed25519 key; encrypted if MLOPS_SIGNING_KEY_PASSPHRASE is set."""
    home = Home.from_environment()
    home.prepare()
    path = output or key_file(home, name)
    if (listed := read_approvers(home).find(name)) is not None:
        raise LineageError(
            f"{listed.name} stands on {approvers_file(home)} already.",
            "Choose another name, or take that entry off the list first.",
        )
    key_file(home, name)  # a name of ours, wherever the key goes
    if name == MACHINE:
        raise LineageError(
            f"{name} is the name of a machine's own key, which it makes itself.",
            "Choose another name.",
        )
    if email and not (re.fullmatch(EMAIL, email) and len(email) <= LONGEST_EMAIL):
        raise LineageError(f"{email!r} is no e-mail address.", "Give it as NAME@HOST.")
    if email and (owner := read_approvers(home).of_author(email)):
        raise LineageError(
            f"{email} stands on {approvers_file(home)} as that of {owner} already.",
            "Give your own, or take that entry off the list first.",
        )
    key = new_key(path)
    approver = Approver(name=name, public_key=public_key(key), email=email)
    typer.echo(f"Private key  {path} (mode 0600: keep it to yourself)")
    typer.echo(f"Public key   {approver.public_key}")
    if not is_under_review(home) if add is None else add:
        typer.echo(f"Added to     {add_approver(home, approver)}")
    else:
        typer.echo(f"\nFor {approvers_file(home)}, in a change that somebody reviews:\n")
        typer.echo(render(Approvers(approvers=(approver,))).partition("\n")[2])


@keys.command(name="list")
@plain_errors
def list_keys(as_json: AsJson = False) -> None:
    """Show who may approve, and which private keys lie in this home."""
    home = Home.from_environment()
    listed = read_approvers(home).approvers
    if as_json:
        entries = [approver.model_dump(mode="json") for approver in listed]
        print_json({"file": str(approvers_file(home)), "approvers": entries})
        return
    table = Table(box=None, padding=(0, 2))
    for heading in ("name", "e-mail", "public key", "until", "key here"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "public key")
    for approver in listed:
        until = stamp(approver.until) if approver.until else ""
        here = "yes" if key_file(home, approver.name).exists() else ""
        email = "(a machine)" if approver.automatic else approver.email or ""
        table.add_row(approver.name, email, approver.public_key, until, here)
    console = Console(width=max(Console().width, 110), highlight=False)
    console.print(f"{approvers_file(home)}" + ("" if listed else ": nobody yet"), soft_wrap=True)
    if listed:
        console.print(table)


def audit(
    head: Annotated[
        str | None,
        typer.Option(metavar="HASH", help="The head that an earlier audit printed: is it there?"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Verify the ledger's chain and signatures, and replay it.

    Exit code 1 if anything is wrong.
    """
    from mlops_assets.promotion.audit import audit as verify

    found = verify(Home.from_environment(), head)
    if as_json:
        print_json(found.as_json())
    else:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(found.outcomes.items()))
        typer.echo(f"Rows       {found.rows:,}" + (f" ({counts})" if counts else ""))
        typer.echo(f"Head       {found.head}")
        for model, version in found.champions.items():
            typer.echo(f"Champion   {model} version {version}")
        for entry in found.unsigned:
            typer.echo(f"Unsigned   entry {entry}: promoted before there were approvals")
        for problem in found.problems:
            typer.secho(f"Problem    {problem}", fg="red", err=True)
        if not found.problems:
            which = "every other" if found.unsigned else "every"
            typer.secho(f"The chain holds, and {which} promotion has its approvals.", fg="green")
    if found.problems:
        raise typer.Exit(1)


def reconcile(as_json: AsJson = False) -> None:
    """Complete what a crash or an unreachable registry left: promotions, then aliases."""
    from mlops_assets.promotion.approval import reconcile as complete

    aliases = complete(Home.from_environment())
    if as_json:
        print_json({model: dict(found) for model, found in aliases.items()})
        return
    for model, found in aliases.items():
        shown = ", ".join(f"{alias} {number}" for alias, number in sorted(found.items()))
        typer.echo(f"{model}: {shown or 'no aliases'}")
    if not aliases:
        typer.echo("No model has a champion yet.")
