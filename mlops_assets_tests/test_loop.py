"""The loop from end to end: real gateway, engine, daemon, sensors, runs and HTTP; scripted people.

As `make loop` shows it, on the lineage that other tests made, with a thousand tickets and the
base model that is there already.
"""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import yaml

from mlops_assets.dataset.sources import observe
from mlops_assets.dataset.spec import RawDatasetSpec
from mlops_assets.home import Home
from mlops_assets.ledger import RELEASED, ROLLED_BACK
from mlops_assets.profiles import PROJECT, load_profile
from mlops_assets.ref_json import dump_ref
from mlops_assets.refs import BaseModelRef, RawDatasetRef
from mlops_assets_tests.conftest import LineageRun
from mlops_assets_tests.loop.chapters import AGENCY, LABELLERS, poisoned
from mlops_assets_tests.loop.stage import Stage, set_stage
from mlops_assets_tests.loop.story import Amounts, Story
from mlops_assets_tests.loop.tickets import AFTER
from mlops_assets_tests.loop.timeline import Timeline

TICKETS = 1200
WINDOW = 460
LABELS = {"honest": 300, "poisoned": 440}
NEW_ROWS = 300
"""Rows that start a retraining by themselves: what the agency gives, and more than others gave."""
AGENTS = (*AGENCY, "agency-6", "agency-7")


@pytest.fixture(scope="module")
def stage(lineage: LineageRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Version 1 is served to users, and the daemon looks after the rest."""
    folder = tmp_path_factory.mktemp("loop")
    home = Home(lineage.copy(folder).home)
    profile = write_profile(home, folder)
    with set_stage(home, profile, Timeline()) as stage:
        stage.people.new_key()
        yield stage
        stage.timeline.write(folder / "timeline.json")


def write_profile(home: Home, folder: Path) -> Path:
    """The profile `loop`, on less data and on the base model of the lineage."""
    data, tickets = home.latest("raw_dataset"), folder / "tickets.jsonl"
    base = home.latest("base_model")
    assert isinstance(data, RawDatasetRef)
    assert isinstance(base, BaseModelRef)
    with Path(data.path).open() as lines:
        tickets.write_text("".join(islice(lines, TICKETS)))
    content = load_profile(PROJECT / "profiles/loop.yaml")
    ops = {asset: given["config"] for asset, given in content["ops"].items()}
    ops["raw_dataset"] |= {"path": str(tickets)}
    ops["base_model"] = {"source": "local", "path": str(home.store.path(base.artifact))}
    ops["lora_adapter"] |= {"epochs": 3}
    ops["eval_report"] |= {"suites": "", "ragas_rows": 1, "latency_requests": 1}
    ops["gate_verdict"] = {"objective": "non_inferiority", "non_inferiority_margin": 0.3}
    ops["gate_verdict"] |= {
        "minimum_items": 50,
        "slice_margin": 0.5,
        "maximum_latency_ratio": 100.0,
    }
    ops["prediction_log"] |= {"max_records": WINDOW}
    ops["drift_report"] |= {"retrain_feedback_rows": NEW_ROWS}
    content["ops"] = {asset: {"config": given} for asset, given in ops.items()}
    path = folder / "profile.yaml"
    path.write_text(yaml.safe_dump(content))
    # As if a run had read these tickets: otherwise they are new data, which is trained on at once.
    read = observe(RawDatasetSpec(path=str(tickets), format="messages"))
    home.write_ref("raw_dataset", "a-run", dump_ref(read))
    return path


def story(stage: Stage, labels: str) -> Story:
    return Story(stage, Amounts(WINDOW + 20, again=120, look_after=100, labels=LABELS[labels]))


@pytest.mark.slow
@pytest.mark.timeout(
    1200
)  # it waits for a daemon that looks every five seconds, six runs, two trainings
def test_the_loop_closes_and_takes_a_sabotaged_candidate_back(stage: Stage) -> None:
    """A shift, its verdict, labels, a retraining, a request, an approval, a release, no drift; then
    poisoned labels pass the gate and a person, and the votes of the canary's users do not."""
    the_loop_closes(stage, story(stage, "honest"))
    sabotage_is_taken_back(stage, story(stage, "poisoned"))
    assert stage.users.failed == []


def the_loop_closes(stage: Stage, loop: Story) -> None:
    loop.the_world_changes(AFTER, "the shipped shift")
    loop.people_label(LABELLERS, loop.users.known.get)
    version = loop.it_retrains("drift")
    loop.a_person_approves(version, "it has learnt the new topics")
    assert loop.it_reaches_users() == RELEASED
    loop.it_clears()
    assert [key for key in stage.timeline.happened() if key != "canary"] == [
        *("serving", "shift", "drift", "nothing to learn", "labels", "retrain", "gate", "request"),
        *("approval", "shadow", "released", "clear"),
    ]


def sabotage_is_taken_back(stage: Stage, loop: Story) -> None:
    before = stage.state.stable
    loop.people_label(AGENTS, poisoned(loop.users.known.get))
    version = loop.it_retrains("feedback")
    loop.a_person_approves(version, "the gate has passed it")
    loop.users.habits.votes = 1.0
    assert loop.it_reaches_users() == ROLLED_BACK
    (row,) = [row for row in stage.state.steps(0) if row.decision.outcome == ROLLED_BACK]
    assert "quality" in json.dumps(row.decision.evidence)
    loop.registry_follows(before)
    loop.only_people_teach()
