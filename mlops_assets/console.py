"""What a run says on the terminal: one line for each step, one sentence for an error.

Dagster's own console shows every internal event and whole stack traces. Those stay in the
event log, which the UI shows; a person at a terminal reads this instead.
"""

import logging
import os
import re
import sys
import time
from types import TracebackType

import click
import dagster as dg
from dagster._core.events import JobFailureData, RunFailureReason
from dagster._core.execution.plan.objects import ErrorSource

from mlops_assets.artifacts import LineageError

INTERRUPTED = os.EX_TEMPFAIL
"""Exit code of a run that SIGTERM or Ctrl-C ended: 75, "try again" in sysexits.h."""
INDENT = "    "
PLAIN = logging.Formatter("%(message)s")


class ConsoleHandler(logging.Handler):
    """Writes Dagster's events and the stages' own log lines to standard error."""

    def __init__(self) -> None:
        super().__init__()
        self._started: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        line = self._line(record)
        if line is not None:
            click.echo(line, err=True)

    def _line(self, record: logging.LogRecord) -> str | None:
        meta = getattr(record, "dagster_meta", {})
        event, step = meta.get("dagster_event"), str(meta.get("step_key"))
        if event is None:
            return self._own_line(record, meta)
        if event.event_type_value == "STEP_START":
            self._started[step] = time.monotonic()
            return click.style(f"{step}", bold=True)
        if event.event_type_value == "STEP_SUCCESS":
            seconds = time.monotonic() - self._started.get(step, time.monotonic())
            return click.style(f"{INDENT}done in {seconds:.1f} s", fg="green")
        if event.event_type_value == "STEP_FAILURE":
            if event.step_failure_data.error_source == ErrorSource.INTERRUPT:
                again = "interrupted: run the same command again to go on"
                return click.style(f"{INDENT}{again}", fg="yellow")
            return click.style(f"{INDENT}failed: {_reason(event)}", fg="red")
        if event.event_type == dg.DagsterEventType.RUN_FAILURE and _was_interrupted(event):
            exit_as_interrupted()
        if event.event_type_value == "ASSET_CHECK_EVALUATION":
            return _check_line(event.event_specific_data)
        return None

    def _own_line(self, record: logging.LogRecord, meta: dict[str, object]) -> str | None:
        if record.levelno < logging.INFO:
            return None
        text = str(meta.get("orig_message") or record.getMessage())
        if text.startswith("Dependencies for step"):
            return None  # what did not run because of a failure that was named already
        colour = "yellow" if record.levelno >= logging.WARNING else None
        return click.style(f"{INDENT}{text}", fg=colour)


def _was_interrupted(event: dg.DagsterEvent) -> bool:
    data = event.event_specific_data
    unexpected = RunFailureReason.UNEXPECTED_TERMINATION
    return isinstance(data, JobFailureData) and data.failure_reason == unexpected


def exit_as_interrupted() -> None:
    """Let the ``dagster`` command, which ends failed runs with 1, end with ``INTERRUPTED``.

    It raises a ClickException in both cases, and does not let us choose which.
    """
    click.ClickException.exit_code = INTERRUPTED


def _reason(event: dg.DagsterEvent) -> str:
    """The innermost cause: the sentence that names the thing and the remedy."""
    error = event.step_failure_data.error
    while error is not None and error.cause is not None and error.cls_name != "Failure":
        error = error.cause
    if error is None:
        return "no reason was given"
    # Dagster writes the error's class, with its module, before the message.
    return re.sub(rf"^([\w.]+\.)?{error.cls_name}: ", "", error.message.strip())


def _check_line(check: object) -> str:
    passed = bool(getattr(check, "passed", False))
    name = getattr(check, "check_name", "check")
    described = getattr(check, "description", None) or ""
    verdict = "passed" if passed else "failed"
    colour = "green" if passed else "red"
    return click.style(f"{INDENT}check {name} {verdict} {described}".rstrip(), fg=colour)


@dg.logger({}, description="One line for each step on the terminal; details are in the event log.")
def console(_context: dg.InitLoggerContext) -> logging.Logger:
    """Dagster's logger ``console``; profiles switch it on."""
    logger = logging.Logger("console", level=logging.DEBUG)
    logger.addHandler(ConsoleHandler())
    return logger


def say_errors_plainly() -> None:
    """Let the ``dagster`` command end with our sentence instead of a stack trace.

    Bad settings are found while Dagster plans the run, outside any step: its command would
    print forty lines of its own frames before the one that matters.
    """
    previous = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        expected = _expected_error(error)
        if expected is None:
            previous(kind, error, trace)
        else:
            click.echo(click.style(f"Error: {expected}", fg="red"), err=True)

    sys.excepthook = hook


def _expected_error(error: BaseException | None) -> str | None:
    while error is not None:
        if isinstance(error, LineageError):
            return str(error)
        if isinstance(error, dg.DagsterInvalidConfigError):
            problems = "; ".join(str(item.message) for item in error.errors)
            return f"The run's settings are not valid: {problems} Correct the profile."
        error = error.__cause__ or error.__context__
    return None
