"""Turns what a release got wrong into regression cases, which every later one is asked again.

The rows are test rows, so their answers are those of the data. Where data is wrong, a failure
is none: look at the cases before they are written, and keep those whose answer is right.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape

from mlops_assets.artifacts import SHORT, LineageError, atomic_write
from mlops_assets.evaluation.records import RECORDS, TEST, Record, input_hash, read_records
from mlops_assets.evaluation.report import TEST_FILE, read_report
from mlops_assets.evaluation.suite_format import Item
from mlops_assets.evaluation.suites import read_suite_spec, suite_folder
from mlops_assets.home import Home
from mlops_assets.metrics import parse_object
from mlops_assets.privacy import excerpt
from mlops_assets.refs import EvalReportRef, Row, SplitsRef, read_rows

METRIC = "exact_match"
CANDIDATE = "tuned"
RELEASES = {CANDIDATE: "candidate", "champion": "champion"}  # where the report has the digest


@dataclass(frozen=True)
class Regressions:
    """The cases that were found, and where they belong."""

    file: Path
    new: tuple[Item, ...]
    known: int
    """How many failures the file holds already."""


def find_regressions(
    home: Home, directory: str, suite: str, system: str, fixed: bool, most: int
) -> Regressions:
    """The failures of ``system`` in the latest report that ``suite`` does not hold yet.

    With ``fixed`` only those that the candidate of that report gets right. Raises LineageError
    without a report, for a system that it does not know, and without such a suite.
    """
    folder = suite_folder(directory)
    file = folder / read_suite_spec(folder / f"{suite}.yaml").items
    ref, rows = _latest(home)
    records = read_records(home.store.path(ref.artifact) / RECORDS)
    release = read_report(home.store, ref.artifact).get(RELEASES.get(system, ""))
    who = f"{system} {release[:SHORT]}" if release else system
    failed = _failures(records, system, fixed)
    cases = [_case(rows[one.input_hash], one, who) for one in failed if one.input_hash in rows]
    known = _ids(file)
    new = [case for case in cases if case.id not in known]
    return Regressions(file, tuple(new[:most]), len(cases) - len(new))


def write_regressions(found: Regressions) -> None:
    """Append the cases to the suite's items, whole or not at all."""
    before = found.file.read_text("utf-8") if found.file.exists() else ""
    if before and not before.endswith("\n"):  # as some editors leave it
        before += "\n"
    with atomic_write(found.file) as temporary:
        temporary.write_text(before + "".join(_lines(found.new)), "utf-8")
        temporary.chmod(0o644)


def print_regressions(found: Regressions, written: bool) -> None:
    """Show each case as it stands or would stand in the suite, and what to do next."""
    from rich.console import Console

    console = Console(highlight=False)
    for item in found.new:
        console.print(f"[bold]{escape(item.id)}[/]")
        for what, text in (
            ("asked", item.messages[-1].content),
            ("expected", item.reference),
            ("but", item.note),
        ):
            console.print(f"  [dim]{what:<9}[/]{escape(excerpt(text))}", soft_wrap=True)
    said = f"{len(found.new)} new, {found.known} stood there already: {found.file}"
    console.print(said, markup=False, soft_wrap=True)
    if found.new and not written:
        hint = "Nothing is written yet. Read them: where the expected answer is wrong, the data is"
        console.print(f"{hint} at fault. `--write` adds them.", markup=False, soft_wrap=True)


def _latest(home: Home) -> tuple[EvalReportRef, Mapping[str, Row]]:
    """The latest report, and the rows of the test split that it measured, by input hash."""
    report, splits = home.latest("eval_report"), home.latest("dataset_splits")
    if not isinstance(report, EvalReportRef) or not isinstance(splits, SplitsRef):
        raise LineageError(f"There is no report in {home.root} yet.", "Run the job `lineage`.")
    measured = read_report(home.store, report.artifact)["provenance"]["splits"]
    if measured != splits.artifact.digest:
        raise LineageError(
            f"The latest report measured other splits ({measured[:SHORT]}) than the latest.",
            "Run the job `evaluate`, then try again.",
        )
    rows = read_rows(home.store.path(splits.artifact) / TEST_FILE)
    return report, {input_hash(row): row for row in rows}


def _failures(records: Sequence[Record], system: str, fixed: bool) -> list[Record]:
    asked = [one for one in records if one.suite == TEST]
    if system not in {one.system for one in asked}:
        known = ", ".join(dict.fromkeys(one.system for one in asked))
        raise LineageError(
            f"The latest report knows no answers of {system!r}.", f"Choose one of {known}."
        )
    right = {one.item for one in asked if one.system == CANDIDATE and one.scores[METRIC] == 1}
    failed = (one for one in asked if one.system == system and one.scores[METRIC] == 0)
    return [one for one in failed if not fixed or one.item in right]


def _case(row: Row, record: Record, who: str) -> Item:
    return Item(
        id=f"past-{record.input_hash[:16]}",
        messages=[dict(message) for message in row.prompt],
        expected=_expected(row.answer),
        tools=[dict(tool) for tool in row.tools],
        slices=dict(row.slices),
        note=f"{who} answered {excerpt(record.output)}",
    )


def _expected(answer: str) -> str | dict[str, object]:
    found = parse_object(answer)
    return dict(found) if found is not None else answer


def _ids(file: Path) -> set[str]:
    if not file.exists():
        return set()
    lines = (line for line in file.read_text("utf-8").split("\n") if line.strip())
    return {str((parse_object(line) or {}).get("id")) for line in lines}


def _lines(items: Iterable[Item]) -> Iterator[str]:
    for item in items:
        said = item.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
        yield json.dumps(said, ensure_ascii=False) + "\n"
