"""``mlops prune``: what a home may lose."""

from datetime import datetime
from typing import Annotated

import typer

from mlops_assets.command_line import plain_errors, print_json
from mlops_assets.home import Home
from mlops_assets.prunable import Decisions


@plain_errors
def prune(
    delete: Annotated[bool, typer.Option("--delete", help="Delete; else only show.")] = False,
    keep_newest: Annotated[
        int,
        typer.Option(
            min=0, max=100_000, help="Newest artifacts of each kind, and versions, that stay."
        ),
    ] = 5,
    keep_days: Annotated[
        int, typer.Option(min=0, max=36_500, help="Days for which everything stays.")
    ] = 30,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show every single thing that stays, and why.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines: one JSON object.")] = False,
) -> None:
    """Show what may be deleted and why the rest stays; with --delete, delete it.

    Never what the ledger's decisions in force, the latest run or an alias names, nor what that was
    made from. A closed segment of the request log goes when its records are in the store and
    nobody reads it any more.
    """
    from mlops_assets.promotion.prune_table import print_pruned
    from mlops_assets.promotion.pruning import prune as prune_home
    from mlops_assets.promotion.spec import RetentionSpec
    from mlops_assets.serving.gateway_spec import GatewaySpec, read_settings
    from mlops_assets.serving.records.log_retention import decide_segments

    home, spec = (
        Home.from_environment(),
        RetentionSpec(keep_newest=keep_newest, keep_days=keep_days),
    )
    vote_days = read_settings("gateway", GatewaySpec).feedback_days

    def segments(now: datetime) -> Decisions:
        return decide_segments(home, keep_days, vote_days, now)

    pruned = prune_home(home, spec, delete=delete, others=segments)
    if as_json:
        print_json(pruned.as_json())
    else:
        print_pruned(pruned, verbose=verbose)
