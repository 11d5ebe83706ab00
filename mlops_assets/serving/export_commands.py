"""The command `mlops export litellm`: the release in the form of another program."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mlops_assets.artifacts import LineageError
from mlops_assets.command_line import plain_errors
from mlops_assets.home import Home

app = typer.Typer(help="Write the release in the form of other programs.")


def register(commands: typer.Typer) -> None:
    """Add the commands to ``mlops``."""
    app.command()(plain_errors(litellm))
    commands.add_typer(app, name="export")


@app.callback()
def about() -> None:
    """Write the release in the form of other programs."""


def litellm(
    output: Annotated[
        Path, typer.Option(help="Directory for config.yaml, release_routing.py and release.json.")
    ] = Path("litellm-proxy"),
    upstream: Annotated[
        str | None,
        typer.Option(help="The engines' server, up to /v1; default: the profile's engine_url."),
    ] = None,
    served_as: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN",
            help="Name of a release's model there, with {version} or {release}; default: the"
            " profile's engine_model, else {release}.",
        ),
    ] = None,
    key_variable: Annotated[
        str | None,
        typer.Option(help="Environment variable of the proxy with the server's API key."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Name of the model; default: the profile's.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep release.json as the ledger says, until Ctrl-C.")
    ] = False,
) -> None:
    """Write a LiteLLM proxy's configuration and the hook that routes by the release.

    The proxy then serves champion and canary as `mlops serve` does. docs/litellm.md says how.
    """
    from mlops_assets.serving.gateway.lifecycle import Settings
    from mlops_assets.serving.litellm_proxy.litellm_export import Engines, Export
    from mlops_assets.serving.traffic.flags import flags_path

    settings = Settings.of_profile()
    spec = settings.gateway
    if not (address := upstream or spec.engine_url):
        raise LineageError(
            "It is not said where the engines answer.",
            "Give --upstream URL, or set engine_url in the profile.",
        )
    engines = Engines(
        address.rstrip("/"),
        served_as or spec.engine_model or "{release}",
        key_variable or spec.engine_key_variable,
    )
    # Rules of a server's flags cannot be followed: see everybody_is_eligible.
    flags = None if spec.growthbook else flags_path(spec.flags)
    export = Export(Home.from_environment(), output, model or settings.model, engines, flags)
    terminal = Console(highlight=False, soft_wrap=True)
    terminal.print(_told(export.write()), markup=False)
    terminal.print(f"written to {output}: litellm --config {output / 'config.yaml'}", markup=False)
    if watch:
        for state in export.follow():
            terminal.print(_told(state), markup=False)


def _told(state: dict[str, object]) -> str:
    """A line on who gets what."""
    stable, candidate = state["stable"], state["candidate"]
    line = f"{state['model']}: version {stable['version']} is stable"  # type: ignore[index]
    if candidate:
        line += f", {state['percent']}% get version {candidate['version']}"  # type: ignore[index]
    return line
