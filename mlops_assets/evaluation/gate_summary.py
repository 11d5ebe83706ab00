"""The gate's result as a comment for a pull request, and as JUnit XML for a CI service.

Names of slices come from the data: in the comment they are text, whatever they hold, and cannot
be a link, a mention or a tag.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from mlops_assets.artifacts import SHORT, ArtifactStore, atomic_write
from mlops_assets.refs import GateRef
from mlops_assets.verdicts import FAIL, INCONCLUSIVE, JUNIT, PASS, SUMMARY, Criterion, Gate

SIGNS = {
    PASS: "\N{WHITE HEAVY CHECK MARK}",
    FAIL: "\N{CROSS MARK}",
    INCONCLUSIVE: "\N{WARNING SIGN}",
}
LONGEST = 300  # characters of a cell
ROOM = 28_000  # characters of each of two tables: GitHub takes comments of 65,536
MARKUP = re.compile(r"[\\`*\[\]<>|&@#~$]|:(?=//)|(?<=www)\.|(?<![^\W_])_|_(?![^\W_])")
TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")  # the direction of what follows
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_summary(directory: Path, gate: Gate, items: int) -> None:
    """Write ``summary.md``."""
    (directory / SUMMARY).write_text(render_summary(gate, items), "utf-8")


def render_summary(gate: Gate, items: int) -> str:
    """The result in GitHub's Markdown; ``items`` is the number of test rows."""
    by_verdict = {
        verdict: [item for item in gate.criteria if item.verdict == verdict] for verdict in SIGNS
    }
    against = f"the champion `{gate.champion[:SHORT]}`" if gate.champion else "no champion yet"
    counts = ", ".join(f"{len(found)} {name}" for name, found in by_verdict.items() if found)
    lines = [
        f"## {SIGNS[gate.verdict]} Gate: {gate.verdict}",
        "",
        f"Candidate `{gate.candidate[:SHORT]}` against {against}, {items:,} test rows."
        f" {len(gate.criteria)} criteria: {counts}.",
        "",
    ]
    undecided = [*by_verdict[FAIL], *by_verdict[INCONCLUSIVE]]
    if undecided:
        lines += [*_table(undecided), ""]
    lines += [f"> {_text(note)}" for note in gate.notes]
    lines += [
        "",
        f"<details><summary>{len(by_verdict[PASS])} passed</summary>",
        "",
        *_table(by_verdict[PASS]),
        "",
        "</details>",
        "",
        f"Report `{gate.report[:SHORT]}`, {gate.spec['objective'].replace('_', '-')} on"
        f" {_text(gate.spec['metric'])} at alpha {gate.spec['alpha']:g}.",
        "",
    ]
    return "\n".join(lines)


def write_junit(directory: Path, gate: Gate) -> None:
    """Write ``junit.xml``: a failure for FAIL; for INCONCLUSIVE an error, or a skipped test where
    that is allowed. Times are left out: the same result is the same bytes."""
    from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

    undecided = Skipped if gate.spec["allow_inconclusive"] else Error
    suite = TestSuite("gate")
    for item in gate.criteria:
        group, _, _ = item.name.partition("/")
        case = TestCase(_xml(item.name), f"gate.{group}", 0)
        if item.verdict == FAIL:
            case.result = [Failure(_xml(item.detail), item.verdict)]
        elif item.verdict != PASS:
            case.result = [undecided(_xml(item.detail), item.verdict)]
        else:
            case.system_out = _xml(item.detail)
        suite.add_testcase(case)
    document = JUnitXml("gate")
    document.add_testsuite(suite)
    document.write(str(directory / JUNIT), pretty=True)


def withdraw_result(directory: Path) -> None:
    """Delete the latest result for CI services: a run that ends before its gate has none."""
    for name in (SUMMARY, JUNIT):
        (directory / name).unlink(missing_ok=True)


def publish_result(store: ArtifactStore, ref: GateRef, directory: Path) -> None:
    """Put summary and JUnit XML where a CI service finds them whatever the gate's digest."""
    source = store.path(ref.artifact)
    for name in (SUMMARY, JUNIT):
        with atomic_write(directory / name) as temporary:
            temporary.write_bytes((source / name).read_bytes())


def _table(criteria: Sequence[Criterion]) -> list[str]:
    rows: list[str] = []
    room = ROOM
    for item in criteria:
        row = (
            f"| {SIGNS[item.verdict]} {item.verdict} | {_text(item.name)} | {_text(item.detail)} |"
        )
        room -= len(row)
        if room < 0:
            rows.append(f"| | | {len(criteria) - len(rows)} more are in gate.json |")
            break
        rows.append(row)
    return ["| verdict | criterion | what decided |", "|---|---|---|", *rows]


def _text(text: str) -> str:
    """Any text as what GitHub's Markdown shows as just that, in one line."""
    shown = TURNING.sub("\N{REPLACEMENT CHARACTER}", " ".join(_xml(text).split()))
    shown = shown if len(shown) <= LONGEST else shown[: LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return MARKUP.sub(lambda found: f"&#{ord(found[0])};", shown)


def _xml(text: str) -> str:
    """The text without characters that XML cannot hold."""
    return NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
