"""The whole lineage, run by the command that `make run` calls."""

import json
import re
from pathlib import Path
from unittest.mock import ANY

import pytest

from mlops_assets.evaluation.records import RECORDS, TEST, read_records
from mlops_assets.home import Home
from mlops_assets.profiles import PROJECT
from mlops_assets_tests.commands import run_command
from mlops_assets_tests.conftest import LineageRun
from mlops_assets_tests.warm_process import fork_job

pytestmark = pytest.mark.slow

ASSETS = (
    "raw_dataset",
    "validated_dataset",
    "dataset_splits",
    "base_model",
    "lora_adapter",
    "eval_report",
    "gate_verdict",
    "registered_model",
    "promotion_decision",
    "release",
    "gateway",
    "prediction_log",
    "sampled_traces",
    "answer_quality",
    "drift_reference",
    "drift_report",
)


def test_the_status_for_machines(lineage: LineageRun) -> None:
    status = lineage.status
    champion = status["champion"]
    assert set(champion) >= {"version", "bundle", "adapter", "dataset"}
    versions = champion["versions"]
    assert versions["data"] == champion["dataset"]
    assert len(versions["prompts"]) == len(versions["eval_set"]) == 64
    for made in (status["candidate"], status["last_report"]):
        assert made["versions"] == versions
    # Suites measure releases, not production: they are no part of what drift was compared with.
    assert status["drift"]["versions"] == versions | {"eval_set": ANY}
    assert status["candidate"]["bundle"] == champion["bundle"]
    scores = status["last_report"]["exact_match"]
    assert set(scores) == {"base", "tuned", "champion", "majority", "tfidf"}
    assert set(status["last_report"]["slices"]) == {"channel", "product", "language_style"}
    assert status["quarantine"]["total"] == sum(status["quarantine"]["by_reason"].values()) > 0
    assert status["drift"]["verdict"] == "no_drift"
    assert status["ledger_entries"] == 4  # the gate's verdict, request, approval, promotion
    assert status["pending_approvals"] == []
    release = status["release"]  # no gateway ran: what was promoted waits for one
    assert (release["stage"], release["candidate"], release["decisions"]) == ("waiting", None, [])
    assert release["stable"]["bundle"] == champion["bundle"]
    assert champion["void"] is None


def test_fine_tuning_teaches_the_task(lineage: LineageRun) -> None:
    scores = lineage.status["last_report"]["exact_match"]
    assert scores["tuned"] > scores["base"] + 0.3
    assert scores["tuned"] > scores["majority"] + 0.3


def test_the_suites_were_asked_and_every_answer_is_kept(lineage: LineageRun) -> None:
    folder = Path(lineage.status["last_report"]["path"]).parent
    report = json.loads((folder / "report.json").read_bytes())
    records = read_records(folder / RECORDS)
    asked = {name: part for name, part in report["suites"].items() if part["applies"]}
    assert set(report["suites"]) - set(asked) == {"refusals", "tool_calls"}
    for name, part in asked.items():
        ours = [one for one in records if (one.suite, one.system) == (name, "tuned")]
        assert len(ours) == part["items"] >= 10
        for metric, by_system in part["metrics"].items():
            scores = [one.scores[metric] for one in ours]
            assert by_system["tuned"] == pytest.approx(sum(scores) / len(scores))
        leading = next(iter(part["metrics"].values()))
        assert leading["tuned"] > 0.8, name  # on merit: the base fails what it has to learn
    assert asked["golden"]["metrics"]["exact_match"]["base"] < 0.2
    test_rows = [one for one in records if one.suite == TEST]
    assert len(test_rows) == 4 * report["items"]  # base, tuned, commonest answer, TF-IDF
    changes = report["changes"]["suites"]["test"]["metrics"]["exact_match"]
    assert changes["better"] - changes["worse"] == pytest.approx(
        report["items"] * report["differences"]["base"]["difference"]
    )


def test_nothing_is_done_twice(lineage: LineageRun, tmp_path: Path) -> None:
    lineage = lineage.copy(tmp_path)
    before = lineage.status
    again = fork_job("lineage", home=lineage.home)
    assert again.code == 0, again.output
    for kind in ("validated_dataset", "dataset_splits", "base_model", "lora_adapter"):
        assert re.search(rf"{kind}: unchanged, found in the artifact store", again.output), kind
    after = lineage.status
    assert after["champion"] == before["champion"]
    assert after["candidate"] == before["candidate"]
    assert after["ledger_entries"] == before["ledger_entries"]


def test_the_terminal_shows_every_asset_and_no_stack_trace(lineage: LineageRun) -> None:
    for asset in ASSETS:
        assert f"\n{asset}\n" in f"\n{lineage.first.output}", asset
    assert "Traceback" not in lineage.first.output


def test_the_summary_for_people(lineage: LineageRun) -> None:
    shown = run_command("mlops", "status", home=lineage.home).output
    for word in ("Rows in", "Quarantined", "Splits", "Exact match", "Registered", "Approval"):
        assert word in shown
    for word in ("Champion", "Release", "Drift", "Eval report", "Drift report", "make dev"):
        assert word in shown
    assert "none runs" in shown
    assert "mlops serve" in shown.split("Next")[1]


def test_an_empty_home_has_a_status_too(home: Home) -> None:
    status = run_command("mlops", "status", "--json", home=home.root)
    assert status.code == 0
    assert status.json["champion"] is None
    assert status.json["ledger_entries"] == 0
    assert "make run" in run_command("mlops", "status", home=home.root).output


def test_the_home_is_private(lineage: LineageRun) -> None:
    assert lineage.home.stat().st_mode & 0o077 == 0


def test_nothing_stored_is_a_pickle(lineage: LineageRun) -> None:
    suffixes = {path.suffix for path in lineage.home.rglob("*") if path.is_file()}
    assert not suffixes & {".pkl", ".pickle", ".bin", ".pt", ".pth", ".joblib"}


def test_no_raw_address_or_card_number_is_shown(lineage: LineageRun) -> None:
    """Planted e-mail addresses and card numbers reach neither logs, reports nor quarantine."""
    pattern = re.compile(r"[\w.]+@[\w.]+\.(?:com|net|org|example)|\b(?:\d[ -]?){15}\d\b")
    planted = set(pattern.findall((PROJECT / "data" / "raw" / "tickets.jsonl").read_text()))
    assert planted
    pages = [
        *lineage.home.glob("artifacts/*/*/*.jsonl"),
        *lineage.home.glob("artifacts/*/*/*.html"),
    ]
    pages += lineage.home.glob("artifacts/*/*/*.json")
    for page in pages:
        text = page.read_text(errors="replace")
        assert not [value for value in planted if value in text], page
    assert not [value for value in planted if value in lineage.first.output]


def test_the_evaluation_job_alone(lineage: LineageRun, tmp_path: Path) -> None:
    home = lineage.copy(tmp_path).home
    ended = fork_job("evaluate", "-c", "profiles/tiny.yaml", home=home)
    assert ended.code == 0, ended.output


def test_shifted_traffic_drifts(lineage: LineageRun, tmp_path: Path) -> None:
    lineage = lineage.copy(tmp_path)
    ended = fork_job("monitor", home=lineage.home, MLOPS_PROFILE="tiny-shifted")
    assert ended.code == 0, ended.output
    drift = json.loads(json.dumps(lineage.status["drift"]))
    assert drift["verdict"] == "drift"
    assert drift["columns"]
