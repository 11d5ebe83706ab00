"""What ``mlops import`` shows of a source: its rows as conversations, and its bad lines."""

from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from mlops_assets.dataset.formats import FORMATS
from mlops_assets.dataset.importing import Import, next_commands
from mlops_assets.dataset.records import REASONS, hint
from mlops_assets.dataset.sources import Candidate
from mlops_assets.privacy import excerpt
from mlops_assets.refs import Message

COLOURS = {"system": "dim", "user": "cyan", "assistant": "green", "tool": "magenta"}


def print_import(result: Import) -> None:
    """Print the import as a person reads it."""
    console = Console(width=max(Console().width, 80), highlight=False)
    console.print(_heading(result))
    if result.samples:
        console.print(_conversations(result.samples))
    if result.reasons:
        console.print(_reasons(result))
        console.print(_examples(result))
    console.print(_verdict(result))
    for command, why in next_commands(result):
        console.print(f"  {escape(command)}\n    [dim]{why}[/dim]", soft_wrap=True)


def _heading(result: Import) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    source = result.source
    table.add_row("Source", _plain(source.path))
    table.add_row("Format", f"{source.format}: {FORMATS[source.format].replace('`', '')}")
    for name, column in source.mapping.items():
        table.add_row("Mapping", _plain(f"{name} is {column}"))
    if result.unused:
        unused = excerpt(", ".join(result.unused))
        table.add_row("Not kept", _plain(f"{unused} (carry over with --keep FIELD)"))
    if result.redacted:
        kinds = ", ".join(f"{kind} {rows:,}" for kind, rows in result.redacted.most_common())
        table.add_row("Redacted", f"{kinds} (rows)")
    return table


def _conversations(rows: list[Candidate]) -> Table:
    table = Table(title="The first rows", title_justify="left", show_lines=True, expand=True)
    table.add_column("line", justify="right", no_wrap=True)
    table.add_column("id", overflow="fold", max_width=20)
    table.add_column("conversation", overflow="fold", ratio=1)
    for row in rows:
        table.add_row(str(row.line), _plain(str(row.id)), Text("\n").join(_turns(row)))
    return table


def _turns(row: Candidate) -> Iterator[Text]:
    if row.tools:
        names = ", ".join(str(tool["function"]["name"]) for tool in row.tools)
        yield _turn("tools", names, "dim")
    for message in row.messages or ():
        yield _turn(message["role"], _said(message), COLOURS.get(message["role"], "yellow"))
    if row.rejected:
        yield _turn("rejected", _said(row.rejected), "red")


def _said(message: Message) -> str:
    calls = [
        f"{call['function']['name']}({call['function']['arguments']})"
        for call in message.get("tool_calls", ())
    ]
    return " ".join([excerpt(message["content"]), *map(excerpt, calls)]).strip()


def _turn(who: str, said: str, colour: str) -> Text:
    return Text.assemble((f"{_visible(who)}: ", f"bold {colour}"), _visible(said))


def _reasons(result: Import) -> Table:
    table = Table(title="What would be set aside", title_justify="left", expand=True)
    if result.output:
        table.title = "What was set aside"
    for name in ("reason", "lines", "meaning", "the first"):
        table.add_column(name, justify="right" if name == "lines" else "left", overflow="fold")
    for reason, count in result.reasons.most_common():
        first = ", ".join(map(str, result.lines[reason]))
        more = ", …" if count > len(result.lines[reason]) else ""
        table.add_row(reason, f"{count:,}", REASONS[reason], f"{first}{more}")
    return table


def _examples(result: Import) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="yellow", no_wrap=True)
    table.add_column(overflow="fold", style="dim")
    for bad in result.examples:
        place = f"{bad.file}:{bad.line}" if len(result.source.files) > 1 else f"line {bad.line}"
        table.add_row(_plain(place), bad.reason, _plain(bad.excerpt))
    return table


def _verdict(result: Import) -> str:
    total = result.accepted + result.quarantined
    counts = (
        f"[bold green]{result.accepted:,} accepted[/], [bold yellow]{result.quarantined:,}"
        f" quarantined[/] of {total:,} lines.{hint(result.reasons)}"
    )
    if result.output is None:
        return f"{counts}\nNothing was written. Add [bold]--write[/] to write the accepted rows."
    wrote = escape(f"{result.output} and {result.quarantine}")
    return f"{counts}\nWrote {wrote}.\n\n[bold]Next[/]"


def _plain(text: str) -> Text:
    return Text(_visible(text))


def _visible(text: str) -> str:
    """Without line ends and the control characters by which a file could write on a terminal."""
    return "".join(sign if sign.isprintable() else "·" for sign in " ".join(text.split()))
