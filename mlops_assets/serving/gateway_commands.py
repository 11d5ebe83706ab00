"""The commands of serving: serve, chat, gateway-keys."""

import os
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from mlops_assets.artifacts import LineageError
from mlops_assets.command_line import plain_errors, print_json
from mlops_assets.home import Home
from mlops_assets.serving.serving_home import ServingHome

KEY = "MLOPS_API_KEY"

keys = typer.Typer(help="API keys of the gateway: made once, kept as hashes.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to ``mlops``."""
    for command in (serve, chat):
        app.command()(plain_errors(command))
    app.add_typer(keys, name="gateway-keys")


def serve(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any free one.")] = 8000,
    host: Annotated[
        str | None,
        typer.Option(help="Address; default: the setting `host` of `gateway`, loopback."),
    ] = None,
) -> None:
    """Serve what was approved on an OpenAI-compatible gateway, until Ctrl-C."""
    from mlops_assets.serving.gateway.server import serve as run

    run(Home.from_environment(), port, host)


def chat(
    text: Annotated[str | None, typer.Argument(help="One question; without it a talk.")] = None,
    url: Annotated[
        str | None, typer.Option(help="The gateway; default: the one of this home.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Name of the model; default: the one served.")
    ] = None,
) -> None:
    """Ask the gateway, and print the answer as it comes.

    The key is what MLOPS_API_KEY holds, else the one that the first `mlops serve` made.
    """
    from mlops_assets.serving.gateway.terminal_chat import Conversation
    from mlops_assets.serving.running_gateway import ask_gateway

    files = ServingHome.of(Home.from_environment())
    address = url or str((ask_gateway(files) or {}).get("url", ""))
    if not address:
        raise LineageError(
            "No gateway of this home runs.", "Start one with `mlops serve`, or give its --url."
        )
    conversation = Conversation(address, _key(files), model)
    if text is not None:
        conversation.ask(text)
        return
    conversation.talk()


@keys.command()
@plain_errors
def new(
    name: Annotated[str, typer.Argument(help="Whom logs and budgets name: a team, a product.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help="chat, feedback, metrics or admin; may be repeated.  [default: chat]"),
    ] = None,
    days: Annotated[
        float | None, typer.Option(min=0.0, max=36_500, help="Days until it expires.")
    ] = None,
    requests_per_minute: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, help="Most requests a minute.")
    ] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option(min=1, max=1_000_000_000, help="Most tokens a minute.")
    ] = None,
) -> None:
    """Make a key. It is printed once, and nobody can show it again."""
    from mlops_assets.serving.gateway import api_keys

    files = ServingHome.of(Home.from_environment())
    files.prepare()
    key, token = api_keys.new_key(
        files.keys,
        name,
        scope or [api_keys.CHAT],
        days=days,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
    )
    typer.echo(f"{key.name} may use {', '.join(sorted(key.scopes))}.", err=True)
    typer.echo(token)


@keys.command(name="list")
@plain_errors
def list_keys(
    as_json: Annotated[bool, typer.Option("--json", help="For machines: one JSON object.")] = False,
) -> None:
    """Show every key's name, scopes, limits and state; never a key."""
    from mlops_assets.serving.gateway import api_keys

    files = ServingHome.of(Home.from_environment())
    known = api_keys.read_keys(files.keys)
    now = datetime.now(UTC)
    if as_json:
        shown = [
            {**key.model_dump(mode="json", exclude={"sha256"}), "state": key.state(now)}
            for key in known
        ]
        print_json({"file": str(files.keys), "keys": shown})
        return
    if not known:
        typer.echo(f"{files.keys}: no keys yet")
        return
    table = Table(box=None, padding=(0, 2))
    for heading in ("name", "id", "scopes", "a minute", "expires", "state"):
        table.add_column(heading, overflow="fold")
    for key in known:
        expires = key.expires.strftime("%Y-%m-%d %H:%M UTC") if key.expires else ""
        limits = _limits(key.requests_per_minute, key.tokens_per_minute)
        scopes = ", ".join(sorted(key.scopes))
        table.add_row(key.name, key.id, scopes, limits, expires, key.state(now))
    Console(width=max(Console().width, 100), highlight=False).print(table)


@keys.command()
@plain_errors
def revoke(
    name: Annotated[str, typer.Argument(help="Name or id of the key.")],
) -> None:
    """Refuse a key from its next request on."""
    from mlops_assets.serving.gateway import api_keys

    api_keys.revoke(ServingHome.of(Home.from_environment()).keys, name)
    typer.echo(f"{name} is revoked.")


def _key(files: ServingHome) -> str:
    if given := os.environ.get(KEY, "").strip():
        return given
    try:
        return files.first_key.read_text(encoding="utf-8").strip()
    except OSError:
        raise LineageError(
            "There is no API key to ask with.",
            f"Put one into {KEY}; `mlops gateway-keys new NAME` makes one.",
        ) from None


def _limits(requests: int | None, tokens: int | None) -> str:
    parts = [f"{requests:,} requests"] if requests else []
    parts += [f"{tokens:,} tokens"] if tokens else []
    return ", ".join(parts)
