"""What the request log adds up to, a piece at a time: the segments, and before them what those that
were deleted added."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import orjson

from mlops_assets.artifacts import LineageError
from mlops_assets.retired_segments import RetiredSegment, retired_segments
from mlops_assets.serving.accounting.usage import Charge, Name, Totals, Usage, add_up, charge, merge
from mlops_assets.serving.records.log_tail import BEGINNING, Position, blocks


def counted(
    log: Path, start: Position = BEGINNING, end: Position | None = None
) -> Iterator[tuple[Totals, Position]]:
    """What each piece of the log between two positions adds, with the position behind it.

    Raises LineageError when a position stands in the midst of a segment that was deleted.
    """
    for retired in retired_segments(log, start.segment):
        whole = Position(retired.segment, retired.bytes)
        _check_whole(log, whole, start, end)
        if retired.segment > start.segment and (end is None or retired.segment <= end.segment):
            yield _totals(retired), whole
    for lines, behind in blocks(log, start, end):
        yield add_up(charges(lines)), behind


def sum_of_log(log: Path, start: Position = BEGINNING, end: Position | None = None) -> Totals:
    """The totals that the log itself comes to between two positions."""
    totals: Totals = {}
    for batch, _ in counted(log, start, end):
        merge(totals, batch)
    return totals


def sum_of_segment(path: Path) -> Totals:
    """The totals that one segment comes to."""
    totals: Totals = {}
    end = Position(path.name, path.stat().st_size)
    for lines, _ in blocks(path.parent, Position(path.name, 0), end):
        merge(totals, add_up(charges(lines)))
    return totals


def charges(lines: Iterable[bytes]) -> Iterator[Charge]:
    """What the lines of the request log add up from; a line that is no record adds nothing."""
    for line in lines:
        try:
            fields = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if isinstance(fields, dict) and (found := charge(fields)) is not None:
            yield found


def _check_whole(log: Path, whole: Position, *given: Position | None) -> None:
    for position in given:
        if position and position.segment == whole.segment and position.offset < whole.offset:
            raise LineageError(
                f"The budget ledger beside {log} ends within {whole.segment}, which was deleted"
                " after it had been counted: it is an old copy.",
                "Delete usage.db: it is made again from the log and from what stands for deleted"
                " segments.",
            )


def _totals(retired: RetiredSegment) -> Totals:
    return {Name(*use[:3]): Usage(*use[3:]) for use in retired.usage}
