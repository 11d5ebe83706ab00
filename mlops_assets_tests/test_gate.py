"""The gate as an artifact and as a job: what CI services read, the ledger, the exit codes."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from junitparser import Error, Failure, JUnitXml, Skipped

from mlops_assets.artifacts import Artifact, LineageError, Recipe
from mlops_assets.checks import (
    NO_LEAKAGE,
    TEMPLATE_FIDELITY,
    CheckResult,
    adapter_on_base,
    record_check,
)
from mlops_assets.evaluation.gate import decide_gate, record_verdict
from mlops_assets.evaluation.gate_spec import GateSpec
from mlops_assets.evaluation.gate_summary import publish_result, render_summary, withdraw_result
from mlops_assets.evaluation.records import RECORDS, write_records
from mlops_assets.home import Home
from mlops_assets.ledger import FAILED, PASSED, PROMOTED, Decision
from mlops_assets.ledger import INCONCLUSIVE as UNDECIDED
from mlops_assets.profiles import PROJECT
from mlops_assets.ref_json import dump_ref
from mlops_assets.refs import EvalReportRef, ReleaseBundle
from mlops_assets.resources import Workspace
from mlops_assets.verdicts import (
    FAIL,
    INCONCLUSIVE,
    JUNIT,
    PASS,
    SUMMARY,
    Criterion,
    Gate,
    read_gate,
)
from mlops_assets_tests.conftest import VERSIONS
from mlops_assets_tests.gate_reports import make_case, rights
from mlops_assets_tests.small_lineage import SETTINGS, build_all, ticket, write_tickets

# Libraries speaking of each other: peft to transformers, torch to torch.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning"),
    # The command is the contract with CI services for as long as Dagster has it.
    pytest.mark.filterwarnings("ignore:Function `job_execute_command` is superseded"),
]
PIECE = Artifact("base_model", "k" * 64, "d" * 64)
BUNDLE = ReleaseBundle(PIECE, PIECE, "t" * 64, "p" * 64, {}, VERSIONS)
SPLITS = "s" * 64
FAST = GateSpec(resamples=1000)


def store_report(home: Home, name: str = "a", **case: Any) -> EvalReportRef:
    """A report of ``make_case`` in the store, and both checks green."""
    report, records = make_case(**case)
    report |= {"candidate": BUNDLE.digest, "provenance": {"splits": SPLITS}}

    def produce(directory: Path) -> dict[str, Any]:
        (directory / "report.json").write_text(json.dumps(report))
        write_records(directory / RECORDS, records)
        return {}

    artifact = home.store.build(Recipe("eval_report", {}, {"name": name}, "1"), produce)
    green = CheckResult(True, "clean")
    record_check(home.checks, NO_LEAKAGE, SPLITS, green)
    record_check(home.checks, TEMPLATE_FIDELITY, adapter_on_base(PIECE, PIECE), green)
    return EvalReportRef(artifact, BUNDLE, report["champion"])


# --- the artifact and the ledger -------------------------------------------------------------


def test_the_same_evidence_is_the_same_artifact_and_the_same_row(home: Home) -> None:
    report = store_report(home)
    first = decide_gate(home.store, home.checks, report, FAST)
    again = decide_gate(home.store, home.checks, report, FAST)
    assert (first.verdict, again.artifact.reused, again) == (PASS, True, first)
    rows = [record_verdict(home.ledger, "m", ref, read_gate(home.store, ref))
            for ref in (first, again)]  # fmt: skip
    assert rows[0] == rows[1]
    (row,) = home.ledger.entries()
    assert (row.decision.outcome, row.decision.version) == (PASSED, 0)
    assert row.decision.bundle == BUNDLE
    assert "all 11 criteria pass" in row.decision.reason
    assert home.ledger.champion() is None


@pytest.mark.parametrize(
    ("case", "settings", "verdict", "outcome", "said"),
    [
        ({"tuned": rights(60)}, {}, FAIL, FAILED, "floor/majority"),
        ({}, {"minimum_items": 1000}, INCONCLUSIVE, UNDECIDED, "test/items"),
        ({"tuned": rights(60)}, {"minimum_items": 1000}, FAIL, FAILED, "floor/majority"),
    ],
)
def test_every_verdict_is_a_row(
    home: Home,
    case: dict[str, Any],
    settings: dict[str, Any],
    verdict: str,
    outcome: str,
    said: str,
) -> None:
    spec = GateSpec(**FAST.model_dump() | settings)
    ref = decide_gate(home.store, home.checks, store_report(home, **case), spec)
    record_verdict(home.ledger, "m", ref, read_gate(home.store, ref))
    (row,) = home.ledger.entries()
    assert (ref.verdict, row.decision.outcome) == (verdict, outcome)
    assert said in row.decision.evidence["not_passed"]
    assert row.decision.reason.startswith(verdict)


def test_a_check_that_changes_its_mind_is_another_gate(home: Home) -> None:
    report = store_report(home)
    assert decide_gate(home.store, home.checks, report, FAST).verdict == PASS
    record_check(home.checks, NO_LEAKAGE, SPLITS, CheckResult(False, "3 rows leak"))
    assert decide_gate(home.store, home.checks, report, FAST).verdict == FAIL
    shutil.rmtree(home.checks)
    assert decide_gate(home.store, home.checks, report, FAST).verdict == INCONCLUSIVE


def test_a_changed_report_is_refused(home: Home) -> None:
    report = store_report(home)
    path = home.store.path(report.artifact) / RECORDS
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(LineageError, match="was changed"):
        decide_gate(home.store, home.checks, report, FAST)


@pytest.mark.parametrize("other", [{"champion": "e" * 64},
                                   {"bundle": replace(BUNDLE, prompt="q" * 64)}])  # fmt: skip
def test_a_report_of_another_bundle_is_refused(home: Home, other: dict[str, Any]) -> None:
    with pytest.raises(LineageError, match="another candidate or champion"):
        decide_gate(home.store, home.checks, replace(store_report(home), **other), FAST)


def test_a_champion_that_still_passes_gets_no_row(home: Home) -> None:
    ref = decide_gate(home.store, home.checks, store_report(home), FAST)
    gate = replace(read_gate(home.store, ref), champion=BUNDLE.digest)
    assert record_verdict(home.ledger, "m", ref, gate) is None
    assert home.ledger.entries() == []
    failed = replace(gate, verdict=FAIL)
    assert record_verdict(home.ledger, "m", ref, failed) is not None


# --- what people and CI services read --------------------------------------------------------

EVIL = "x|y\n<img src=a>@all [a](b) `c` https://e.example ![d](e) #4 \x00 _f_ $g$ \u202eh"
CRITERIA = (
    Criterion("floor/exact_match", PASS, "93.9%, at least 60.0% is needed"),
    Criterion(f"slice/channel={EVIL}", FAIL, "70.0% against 90.0%"),
    Criterion("judge", INCONCLUSIVE, "the judge timed out"),
)


def make_gate(*criteria: Criterion, allow: bool = False) -> Gate:
    spec = GateSpec(allow_inconclusive=allow).model_dump(mode="json")
    return Gate(FAIL, "c" * 64, "r" * 64, None, criteria, spec, ("A suite was not run.",))


def test_the_summary_is_fit_for_a_pull_request() -> None:
    text = render_summary(make_gate(*CRITERIA), 508)
    head, _, passed = text.partition("<details>")
    assert text.startswith("## \N{CROSS MARK} Gate: FAIL\n")
    assert "3 criteria: 1 PASS, 1 FAIL, 1 INCONCLUSIVE" in head
    assert "508 test rows" in head
    assert "no champion yet" in head
    assert head.index("70.0% against 90.0%") < head.index("the judge timed out")
    assert "floor/exact_match" in passed
    assert "> A suite was not run." in head
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {4}


def test_names_from_the_data_cannot_be_markup() -> None:
    text = render_summary(make_gate(*CRITERIA), 508)
    (row,) = [line for line in text.splitlines() if "channel=" in line]
    for markup in ("<img", "@all", "[a]", "`c`", "https://", "![d]", "#4", "\x00", "_f_",
                   "$g$", "\u202e"):  # fmt: skip
        assert markup not in row, markup


def test_a_long_gate_stays_within_a_comment() -> None:
    many = [Criterion(f"slice/d={i}", FAIL, "<" * 5000) for i in range(3000)]
    text = render_summary(make_gate(*many), 508)
    assert len(text) < 65_536
    assert "more are in gate.json" in text


@pytest.mark.parametrize(("allow", "kind"), [(False, Error), (True, Skipped)])
def test_the_junit_file_is_read_back(home: Home, allow: bool, kind: type) -> None:
    from mlops_assets.evaluation.gate_summary import write_junit

    write_junit(home.root, make_gate(*CRITERIA, allow=allow))
    first = (home.root / JUNIT).read_bytes()
    read = JUnitXml.fromfile(str(home.root / JUNIT))
    (suite,) = list(read)
    cases = {case.name: case for case in suite}
    assert (suite.tests, suite.failures) == (3, 1)
    assert cases["floor/exact_match"].is_passed
    assert cases["floor/exact_match"].classname == "gate.floor"
    (failed,) = [case for case in suite if case.is_failure]
    assert isinstance(failed.result[0], Failure)
    assert failed.result[0].message == "70.0% against 90.0%"
    assert isinstance(cases["judge"].result[0], kind)
    write_junit(home.root, make_gate(*CRITERIA, allow=allow))
    assert (home.root / JUNIT).read_bytes() == first


def test_the_latest_result_lies_where_it_is_looked_for(home: Home) -> None:
    ref = decide_gate(home.store, home.checks, store_report(home), FAST)
    publish_result(home.store, ref, home.gate)
    built = home.store.path(ref.artifact)
    for name in (SUMMARY, JUNIT):
        assert (home.gate / name).read_bytes() == (built / name).read_bytes()
    withdraw_result(home.gate)
    assert list(home.gate.iterdir()) == []
    withdraw_result(home.root / "never")


# --- the job ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Path:
    """A home in which a small model was trained and is the champion, its checks green."""
    home = Home(tmp_path_factory.mktemp("gate") / "home")
    home.prepare()
    shutil.copyfile(migrated_database, home.mlflow_database)
    data = write_tickets(home.root.parent / "data.jsonl", [ticket(i) for i in range(150)])
    made = build_all(home.root / "artifacts", data, eval_report={"suites": ""})
    for asset, ref in made.items():
        home.write_ref(asset, "earlier", dump_ref(ref))
    bundle = made["eval_report"].bundle
    green = CheckResult(True, "clean")
    record_check(home.checks, NO_LEAKAGE, made["dataset_splits"].artifact.digest, green)
    adapter = adapter_on_base(bundle.base, bundle.adapter)
    record_check(home.checks, TEMPLATE_FIDELITY, adapter, green)
    model = Workspace().model
    home.ledger.append(Decision("k", PROMOTED, "first", model, 1, bundle, {}, replaces=0))
    (home.root / "dagster").mkdir()
    shutil.copyfile(PROJECT / "dagster.yaml", home.root / "dagster" / "dagster.yaml")
    return home.root


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "code", "verdict"),
    [
        ({}, 0, PASS),
        ({"minimum_exact_match": 1.0, "allow_inconclusive": True}, 1, FAIL),
        ({"minimum_items": 1000}, 1, INCONCLUSIVE),
        ({"minimum_items": 1000, "allow_inconclusive": True}, 0, INCONCLUSIVE),
    ],
)
def test_the_exit_code_of_the_job(
    measured: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    code: int,
    verdict: str,
) -> None:
    """``dagster job execute -j evaluate``, the command itself, in this process."""
    from dagster._cli.job import job_execute_command

    monkeypatch.setenv("MLOPS_HOME", str(measured))
    monkeypatch.setenv("DAGSTER_HOME", str(measured / "dagster"))
    gate = {"minimum_items": 20, "beat_majority": False} | settings
    config = SETTINGS["eval_report"] | {"suites": ""}
    ops = {"eval_report": {"config": config}, "gate_verdict": {"config": gate}}
    profile = tmp_path / "profile.yaml"
    one_process = {"execution": {"config": {"in_process": {}}}, "loggers": {"console": {}}}
    profile.write_text(yaml.safe_dump({"ops": ops, **one_process}))
    words = ["-m", "mlops_assets.definitions", "-j", "evaluate", "-c", str(profile)]
    with pytest.raises(SystemExit) as ended:
        job_execute_command(words)
    assert ended.value.code == code
    home = Home(measured)
    ref = home.latest("gate_verdict")
    assert ref.verdict == verdict  # type: ignore[union-attr]
    sign = (home.gate / SUMMARY).read_text("utf-8").splitlines()[0]
    assert sign.endswith(f"Gate: {verdict}")
    assert JUnitXml.fromfile(str(home.gate / JUNIT)).tests > 5
