"""A candidate that passed waits for a person: in the UI, in `mlops status`, after a restart."""

import json
from typing import Any

import dagster as dg
import pytest
import time_machine
from pydantic import ValidationError
from typer.testing import CliRunner

from mlops_assets.approval_requests import OPEN
from mlops_assets.approvers import Approver, Approvers, approvers_file, read_approvers, render
from mlops_assets.artifacts import LineageError
from mlops_assets.cli import app
from mlops_assets.home import Home
from mlops_assets.ledger import APPROVED, PROMOTED, REJECTED, REQUESTED
from mlops_assets.promotion import defs, registry
from mlops_assets.promotion.approval import approve, reject
from mlops_assets.promotion.automatic import approve_automatically
from mlops_assets.promotion.request import open_request
from mlops_assets.promotion.spec import PromotionSpec
from mlops_assets.refs import RegisteredModelRef
from mlops_assets.release_check import find_void, verify_approvals
from mlops_assets.resources import RESOURCES
from mlops_assets.signing import public_key
from mlops_assets.verdicts import FAIL, INCONCLUSIVE, PASS
from mlops_assets_tests.promotion_runs import run_promotion
from mlops_assets_tests.releases import MODEL, NOON, enlist, make_bundle, make_gate, request

LOW = {"risk_class": "low", "automatic_for": ["low"]}


@pytest.fixture(autouse=True)
def _no_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "reconcile", lambda home, name: {"candidate": 1})


def materialize(home: Home, verdict: str = PASS, seed: str = "a", **policy: Any) -> dict[str, Any]:
    """Run the asset on a registered version, as a job does; returns its metadata.

    Raises Dagster's error when the asset fails.
    """
    champion, bundle = home.ledger.champion(MODEL), make_bundle(home, seed)
    judged = make_gate(home, bundle, champion.decision.bundle.digest if champion else None, verdict)
    return run_promotion(1, judged, policy)


def outcomes(home: Home) -> list[str]:
    return [row.decision.outcome for row in home.ledger.entries()]


def test_the_ui_shows_what_waits_with_its_evidence(home: Home) -> None:
    first = materialize(home)
    assert (first["state"], first["approvals"], first["from_store"]) == (OPEN, "0 of 1", False)
    assert [row.data["name"] for row in first["criteria"].records] == [
        "floor/exact_match",
        "leakage",
    ]
    assert [row.data["version"] for row in first["pending_approvals"].records] == [1]
    assert f"mlops approve 1 --model {MODEL} --as" in first["approve_with"]
    assert first["report"].endswith("report.html")
    assert first["evidence"]["gate"]["kind"] == "gate_verdict"
    again = materialize(home)
    assert (again["request"], again["from_store"]) == (first["request"], True)
    assert outcomes(home) == [REQUESTED]


def test_the_champion_needs_no_approval(home: Home) -> None:
    materialize(home)
    ada = enlist(home, "ada")
    approve(home, 1, "ada", "fine", ada.key)
    again = materialize(home)
    assert (again["state"], again["ledger_entry"]) == (PROMOTED, 3)
    assert "approve_with" not in again
    assert outcomes(home) == [REQUESTED, APPROVED, PROMOTED]


@pytest.mark.parametrize("verdict", [FAIL, INCONCLUSIVE])
def test_what_did_not_pass_is_asked_of_nobody(home: Home, verdict: str) -> None:
    found = materialize(home, verdict, **LOW)
    assert (found["state"], found["ledger_entry"]) == (verdict.lower(), 0)
    assert outcomes(home) == []


def test_a_rejected_candidate_is_not_asked_about_again(home: Home) -> None:
    materialize(home)
    ada = enlist(home, "ada")
    reject(home, 1, "ada", "wrong tone", ada.key)
    again = materialize(home)
    assert (again["state"], "wrong tone" in again["reason"]) == (REJECTED, True)
    assert outcomes(home) == [REQUESTED, REJECTED]


@pytest.mark.parametrize(
    ("verdict", "seed", "against", "why"),
    [
        (INCONCLUSIVE, "a", None, "verdict on version 1 of support-tickets is INCONCLUSIVE"),
        (PASS, "b", None, "judged another bundle"),
        (PASS, "a", "f" * 64, "champion changed since the gate"),
    ],
)
def test_no_request_without_a_pass_for_this_bundle_against_this_champion(
    home: Home, verdict: str, seed: str, against: str | None, why: str
) -> None:
    judged = make_gate(home, make_bundle(home, seed), against, verdict)
    registered = RegisteredModelRef(MODEL, 1, make_bundle(home), judged.report)
    with pytest.raises(LineageError, match=why):
        open_request(home, registered, judged, PromotionSpec(), "", "run", NOON)
    assert outcomes(home) == []


def test_the_key_of_this_machine_approves_where_the_profile_lets_it(home: Home) -> None:
    found = materialize(home, **LOW)
    assert found["state"] == PROMOTED
    assert outcomes(home) == [REQUESTED, APPROVED, PROMOTED]
    (machine,) = read_approvers(home).approvers
    assert (machine.name, machine.automatic) == ("automatic", True)
    assert (home.root / "keys/automatic.pem").stat().st_mode & 0o777 == 0o600


def test_a_machine_that_lost_its_key_goes_on_with_another(home: Home) -> None:
    """As in a CI service, which keeps the home from run to run, but no private key."""
    for version, seed in ((1, "a"), (2, "b")):
        answer = approve_automatically(home, request(home, version, seed, **LOW), NOON)
        assert answer is not None
        assert answer.promoted
        (home.root / "keys/automatic.pem").unlink()
    known = read_approvers(home)
    signed = [
        verify_approvals(rows, row, known) for rows in [home.ledger.entries()] for row in rows
    ]
    assert [len(names) for names in signed] == [0, 0, 1, 0, 0, 1]
    first, other = known.approvers
    assert (first.name, other.name[:10], other.automatic) == ("automatic", "automatic-", True)
    assert first.public_key != other.public_key


@pytest.mark.parametrize(
    "policy",
    [
        {},
        {"automatic_for": ["low"]},
        {"risk_class": "low"},
        {"risk_class": "high", "automatic_for": ["low", "limited"]},
    ],
)
def test_otherwise_a_person_is_asked(home: Home, policy: dict[str, Any]) -> None:
    assert materialize(home, **policy)["state"] == OPEN
    assert outcomes(home) == [REQUESTED]
    assert not (home.root / "keys").exists()


def test_one_machine_is_not_two_people(home: Home) -> None:
    policy = {**LOW, "required_approvals": 2}
    assert materialize(home, **policy)["approvals"] == "1 of 2"
    assert materialize(home, **policy)["approvals"] == "1 of 2"
    ada = enlist(home, "ada")
    assert approve(home, 1, "ada", "fine", ada.key).promoted


def test_a_list_under_review_decides_whether_the_machine_may(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request(home, **LOW)
    monkeypatch.setenv("MLOPS_APPROVERS", str(home.root / "reviewed.yaml"))
    approvers_file(home).write_text("approvers: []\n")
    assert approve_automatically(home, asked, NOON) is None
    assert outcomes(home) == [REQUESTED]
    assert approvers_file(home).read_text() == "approvers: []\n"


def status(*options: str) -> str:
    ended = CliRunner().invoke(app, ["status", *options])
    assert ended.exit_code == 0, ended.output
    return ended.output


def test_the_status_shows_what_waits_and_how_to_answer(home: Home) -> None:
    materialize(home, required_approvals=2)
    ada = enlist(home, "ada")
    approve(home, 1, "ada", "fine", ada.key)
    enlist(home, "bob")
    (waiting,) = json.loads(status("--json"))["pending_approvals"]
    assert (waiting["version"], waiting["model"]) == (1, MODEL)
    assert [(one["name"], one["reason"]) for one in waiting["approvals"]] == [("ada", "fine")]
    assert [one["verdict"] for one in waiting["criteria"]] == [PASS, PASS]
    assert waiting["approve_with"] == [f'mlops approve 1 --model {MODEL} --as bob --reason "..."']
    shown = status()
    assert f"Version 1 of {MODEL} waits for approval" in shown
    assert "approve 1 --model support-tickets --as bob" in shown


def test_without_anybody_on_the_list_two_commands_are_shown(home: Home) -> None:
    materialize(home)
    (waiting,) = json.loads(status("--json"))["pending_approvals"]
    first, second = waiting["approve_with"]
    assert first.startswith("mlops keys new ")
    assert second.startswith(f"mlops approve 1 --model {MODEL} --as {first.split()[-1]} ")


def test_what_expired_does_not_wait(home: Home) -> None:
    materialize(home, request_hours=1)
    with time_machine.travel("2126-01-01T00:00:00+00:00"):
        assert json.loads(status("--json"))["pending_approvals"] == []


def test_the_status_says_when_the_champion_is_void(home: Home) -> None:
    materialize(home, **LOW)
    champion = home.ledger.champion(MODEL)
    assert champion is not None
    assert json.loads(status("--json"))["champion"]["void"] is None
    adapter = champion.decision.bundle.adapter
    (home.store.path(adapter) / "adapter_model.safetensors").write_text("weights b")
    assert "adapter_model.safetensors" in json.loads(status("--json"))["champion"]["void"]
    assert "void: " in status()


def run_job(**config: Any) -> dg.ExecuteInProcessResult:
    return defs.approve_job.execute_in_process(
        run_config={"ops": {"approve_version": {"config": config}}},
        resources=RESOURCES,
        raise_on_error=False,
    )


def test_the_job_approves_as_the_command_does(home: Home) -> None:
    materialize(home)
    enlist(home, "ada")
    refused = run_job(version=1, name="bob", reason="fine")
    assert not refused.success
    assert "mlops keys new bob" in str(refused.failure_data_for_node("approve_version"))
    done = run_job(version=1, name="ada", reason="fine")
    assert done.success
    (seen,) = done.get_asset_observation_events()
    metadata = seen.asset_observation_data.asset_observation.metadata
    assert metadata["state"].value == PROMOTED
    assert metadata["pending_approvals"].value.records == []
    assert outcomes(home) == [REQUESTED, APPROVED, PROMOTED]


def test_a_champion_whose_approval_is_void_is_asked_about_anew(home: Home) -> None:
    materialize(home)
    ada, bob = enlist(home, "ada"), enlist(home, "bob")
    approve(home, 1, "ada", "fine", ada.key)
    assert materialize(home)["state"] == "promoted"
    approvers_file(home).write_text(
        render(Approvers(approvers=(Approver(name="bob", public_key=public_key(bob.key)),)))
    )
    assert materialize(home)["state"] == "open"
    approve(home, 1, "bob", "fine, too", bob.key)
    champion = home.ledger.champion(MODEL)
    assert champion is not None
    assert find_void(home, champion) is None


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"approvers": ["Ada"]}, "Ada: no name of an approver"),
        ({"approvers": ["ada", "ada"], "required_approvals": 2}, "fewer than required"),
        ({"automatic_for": ["none"]}, "none: no risk class"),
    ],
)
def test_a_policy_that_nobody_can_meet_is_refused(policy: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        PromotionSpec(**policy)
