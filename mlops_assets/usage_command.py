"""``mlops usage``: what keys, users, features and prompts used, beside their limits."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer

from mlops_assets.artifacts import LineageError
from mlops_assets.command_line import plain_errors, print_json
from mlops_assets.home import Home


@plain_errors
def usage(
    day: Annotated[
        str | None,
        typer.Option(metavar="YYYY-MM-DD", help="A day in UTC.", show_default="today"),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compare the budget ledger with the request log.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines: one JSON object.")] = False,
) -> None:
    """Show what keys, users, features and prompts used on a day, beside their limits.

    With --check, exit code 1 if the budget ledger is not the sum of the request log.
    """
    from mlops_assets.serving.accounting.usage_ledger import usage_ledger
    from mlops_assets.serving.accounting.usage_report import differences, print_usage, usage_of
    from mlops_assets.serving.gateway_spec import GatewaySpec, read_settings
    from mlops_assets.serving.serving_home import ServingHome

    ledger = usage_ledger(ServingHome.of(Home.from_environment()))
    if check:
        _report(differences(ledger), as_json)
        return
    spec, chosen = read_settings("gateway", GatewaySpec), _day(day)
    rows = usage_of(ledger, spec, chosen)
    if as_json:
        found = [row.as_json() for row in rows]
        print_json({"day": chosen, "currency": spec.currency, "usage": found})
    else:
        print_usage(rows, spec, chosen)


def _day(given: str | None) -> str:
    if given is None:
        return datetime.now(UTC).date().isoformat()
    try:
        return datetime.strptime(given, "%Y-%m-%d").date().isoformat()
    except ValueError:
        raise LineageError(f"{given!r} is no day.", "Give it as 2026-11-22.") from None


def _report(found: Sequence[object], as_json: bool) -> None:
    if as_json:
        print_json({"differences": [str(each) for each in found]})
    elif not found:
        typer.secho("The budget ledger is the sum of the request log.", fg="green")
    for each in found:
        typer.secho(f"Differs   {each}", fg="red", err=True)
    if found:
        raise typer.Exit(1)
