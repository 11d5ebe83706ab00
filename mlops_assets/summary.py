"""The table that ``make run`` and ``mlops status`` end with."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mlops_assets.approval_requests import OPEN, Standing, ways_to_approve
from mlops_assets.artifacts import SHORT
from mlops_assets.ledger import PROMOTED
from mlops_assets.release_state import ReleaseState
from mlops_assets.release_view import release_line
from mlops_assets.state import State
from mlops_assets.statements import stamp

NEXT_COMMANDS = (
    ("make dev", "the Dagster UI on 3000, the MLflow UI on 5000, approvals on 3001"),
    ("mlops status --json", "the same for a machine"),
    ("make run MLOPS_PROFILE=tiny-shifted", "the same on traffic that changed: a drift verdict"),
)
SERVE = ("mlops serve", "the gateway on 8000, which takes the release to its users")
CHAT = ('mlops chat "My router blinks red."', "asks the gateway")
LAST_STEPS = 2
"""Of the release, shown with their reasons."""
MODELS = ("base", "tuned", "champion", "majority", "tfidf")


def print_summary(state: State, gateway: Mapping[str, Any] | None) -> None:
    """Print the state as a table a person can read; ``gateway`` is what the running one says."""
    console = Console(width=max(Console().width, 100))
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _lines(state, gateway):
        table.add_row(name, value)
    console.print()
    console.print(table)
    for name, page in _pages(state):
        # On a line of its own, so that a terminal makes it a link whatever its width.
        console.print(f"  [bold]{name}[/bold]\n    {_short(page)}", soft_wrap=True, highlight=False)
    _waiting(console, state)
    console.print("\n[bold]Next[/bold]")
    for command, what in _next(state, gateway):
        console.print(f"  {_command(command)}\n    [dim]{what}[/dim]", soft_wrap=True)


def _next(state: State, gateway: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    if state.champion is not None:
        yield CHAT if gateway else SERVE
    yield from NEXT_COMMANDS


def _lines(state: State, gateway: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    yield from _data_lines(state)
    yield from _score_lines(state)
    yield from _release_lines(state)
    if state.champion is not None:
        yield "Gateway", escape(_gateway(state.release, gateway))
    if (drift := state.drift) is not None:
        which = f" in {', '.join(drift.columns)}" if drift.columns else ""
        said = f"{drift.verdict.replace('_', ' ')}{which} ({drift.records:,} records)"
        yield "Drift", escape(said)
        if drift.layers:
            yield "", _layers(drift.layers)
    yield from _retraining_lines(state)


def _layers(verdicts: Mapping[str, str]) -> str:
    """Which layers have which verdict."""
    names: dict[str, list[str]] = {}
    for name, verdict in sorted(verdicts.items(), key=lambda item: (item[1] != "drift", item[1])):
        names.setdefault(verdict.replace("_", " "), []).append(name)
    return "; ".join(f"{verdict}: {', '.join(found)}" for verdict, found in names.items())


def _retraining_lines(state: State) -> Iterator[tuple[str, str]]:
    """The last retraining that started by itself, and why none starts now."""
    if not state.retraining:
        return
    last = state.last_retraining
    none = "none started by itself yet"
    yield (
        "Retraining",
        escape(f"by {last.trigger} at {last.at}: {last.reason} (run {last.run[:8]})")
        if last
        else none,
    )
    for note in state.retraining:
        yield "", escape(f"{note.said} ({note.sensor} at {note.at})")


def _gateway(release: ReleaseState, told: Mapping[str, Any] | None) -> str:
    """Where it listens, whether users are answered, every engine, and what a stage waits for."""
    if told is None:
        return "none runs"
    rows = (release.stable, release.candidate, release.previous)
    versions = {row.decision.bundle.digest: row.decision.version for row in rows if row}
    engines = [
        f"version {versions.get(each['release'], each['release'][:SHORT])} {each['state']}"
        for each in told["engines"]
    ]
    held = [told["verdict"]] if told.get("verdict") else []
    return "; ".join([f"{told['status']} on {told['url']}", *engines, *held])


def _data_lines(state: State) -> Iterator[tuple[str, str]]:
    if (validated := state.validated) is None:
        yield "Data", "not validated yet: make run"
        return
    yield "Rows in", f"{validated.rows_in:,}"
    reasons = sorted(validated.quarantined.items(), key=lambda item: -item[1])
    why = ", ".join(f"{reason} {count:,}" for reason, count in reasons)
    yield "Quarantined", f"{sum(validated.quarantined.values()):,}" + (f" ({why})" if why else "")
    if state.splits:
        yield "Splits", ", ".join(f"{name} {rows:,}" for name, rows in state.splits.rows.items())


def _score_lines(state: State) -> Iterator[tuple[str, str]]:
    if state.report is None:
        return
    scores = state.report["exact_match"]
    shown = [f"{name} {scores[name]:.3f}" for name in MODELS if scores.get(name) is not None]
    yield "Exact match", ", ".join(shown) + f"  (test, {state.report['items']:,} rows)"


def _release_lines(state: State) -> Iterator[tuple[str, str]]:
    if (registered := state.registered) is not None:
        bundle = registered.bundle.digest[:SHORT]
        yield "Registered", f"{registered.name} version {registered.version}, bundle {bundle}"
    if (approval := state.approval) is not None:
        yield "Approval", escape(_approval(approval))
    champion = state.champion
    promoted = champion and champion.decision.outcome == PROMOTED
    unsigned = champion and promoted and "request" not in champion.decision.evidence
    nobody = ", from before there were approvals: nobody signed for it" if unsigned else ""
    yield "Champion", f"version {champion.decision.version}{nobody}" if champion else "none yet"
    if state.void:
        yield "", f"[bold red]void: {escape(state.void)}[/bold red]"
    if champion:
        yield "Release", escape(release_line(state.release))
    for step in state.steps[-LAST_STEPS:]:
        said = f"{step['outcome'].replace('_', ' ')} at {step['at']}: {step['reason']}"
        yield "", escape(f"{said} (ledger entry {step['entry']})")


def _approval(found: Standing) -> str:
    """Where the request for the registered version stands."""
    asked, count = found.request.entry.decision, len(found.approvals)
    passed = f"{asked.reason} (ledger entry {found.request.entry.entry})"
    if found.state == OPEN:
        until = stamp(found.request.terms.expires)
        return f"waits, {count} of {found.request.required}, until {until}: {passed}"
    if found.state == PROMOTED:
        names = ", ".join(approval.name for approval in found.approvals)
        machine = any(approval.automatic for approval in found.approvals)
        alone = ", a key of this machine; no person was asked" if machine and count == 1 else ""
        return f"{passed}; approved by {names or 'nobody on the list'}{alone}"
    return f"{found.state}: {found.reason}"


def _waiting(console: Console, state: State) -> None:
    """What waits for a person, and the commands that answer."""
    for found in state.pending:
        asked = found.request.entry.decision
        what = f"Version {asked.version} of {asked.model} waits for approval"
        console.print(f"\n[bold yellow]{escape(what)}[/bold yellow]", soft_wrap=True)
        for problem in found.invalid:
            console.print(f"  [red]does not count: {escape(problem)}[/red]", soft_wrap=True)
        for command in ways_to_approve(found, state.approvers):
            console.print(f"  {_command(command)}", soft_wrap=True, markup=False, highlight=False)


def _command(words: str) -> str:
    """As a person types it here: `make` has the commands in the project's own environment."""
    own = Path(".venv/bin/mlops")
    return words.replace("mlops", str(own), 1) if own.is_file() else words


def _pages(state: State) -> Iterator[tuple[str, Path]]:
    pages = {
        "Eval report": state.report_page,
        "Drift report": state.drift_page,
        "Shadow report": state.shadow_page,
        "Quarantine": state.quarantine_file,
    }
    yield from ((name, page) for name, page in pages.items() if page is not None)


def _short(page: Path) -> str:
    """The path relative to where the person stands, if it lies below."""
    here = Path.cwd()
    return str(page.relative_to(here)) if page.is_relative_to(here) else str(page)
