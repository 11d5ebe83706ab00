"""The chapters in order: the loop closes, then a sabotaged candidate is taken back."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from mlops_assets.home import Home
from mlops_assets.ledger import RELEASED, ROLLED_BACK
from mlops_assets_tests.loop.people import APPROVER, People
from mlops_assets_tests.loop.processes import MARK
from mlops_assets_tests.loop.stage import Stage, first_lineage, set_stage
from mlops_assets_tests.loop.story import Amounts, Story
from mlops_assets_tests.loop.tickets import AFTER, LATER
from mlops_assets_tests.loop.timeline import Timeline, shown
from mlops_assets_tests.loop.waiting import NotSeenError

LABELLERS = tuple(f"labeller-{number}" for number in range(1, 6))
AGENCY = tuple(f"agency-{number}" for number in range(1, 6))
"""Five people of one agency: each stays below what one person may teach."""
SWAPPED = {
    "billing": "account",
    "sales": "returns",
    "account": "billing",
    "returns": "sales",
    "shipping": "technical",
    "technical": "shipping",
}
"""What the agency makes of each queue."""
AMOUNTS = Amounts(requests=340, again=120, look_after=100, labels=300)


def play(home: Home, profile: Path, timeline: Timeline, amounts: Amounts = AMOUNTS) -> None:
    """Show the whole loop on a new home. Raises NotSeenError when a step does not come."""
    clear_away(home.root)
    home.prepare()
    (home.root / MARK).mkdir(mode=0o700)
    timeline.chapter(f"A champion (MLOPS_HOME is {shown(home.root)})")
    first_champion(home, profile, timeline)
    with set_stage(home, profile, timeline) as stage:
        story = Story(stage, amounts)
        timeline.chapter("The world changes, and the loop closes")
        the_loop_closes(story)
        timeline.chapter("The same with a sabotaged candidate")
        sabotage_is_taken_back(story)
        nothing_went_wrong(stage)


def clear_away(folder: Path) -> None:
    """Delete what an earlier show left. Raises NotSeenError for anything else in its place."""
    if folder.exists() and not (folder / MARK).is_dir():
        raise NotSeenError(f"{folder} is no home of an earlier show: name another with --home.")
    shutil.rmtree(folder, ignore_errors=True)


def first_champion(home: Home, profile: Path, timeline: Timeline) -> None:
    """From the raw data to version 1, which a person approves."""
    first_lineage(home, profile, timeline)
    people = People(home.root, profile)
    people.new_key()
    people.approve(1, "the first one")
    timeline.tell("people", f"{APPROVER} approves version 1", key="champion")


def the_loop_closes(story: Story) -> None:
    """Traffic, a shift, drift, labels, a retraining, an approval, a release; then no drift."""
    story.ordinary_traffic()
    story.the_world_changes(AFTER, "new topics, at length, by chat, about cameras and headsets")
    story.people_label(LABELLERS, story.users.known.get)
    version = story.it_retrains("drift")
    story.a_person_approves(version, "it has learnt the new topics")
    expect(RELEASED, story.it_reaches_users())
    story.it_clears()


def sabotage_is_taken_back(story: Story) -> None:
    """The labels are poisoned; gate and person let the candidate pass, its users do not."""
    story.the_world_changes(LATER, "formal letters about bills and offers, through the website")
    story.people_label(AGENCY, poisoned(story.users.known.get))
    version = story.it_retrains("drift")
    story.a_person_approves(version, "the gate has passed it")
    story.users.habits.votes = 1.0
    expect(ROLLED_BACK, story.it_reaches_users())
    story.registry_follows(version - 1)
    story.drift_still_stands()
    story.only_people_teach()


def poisoned(right: Callable[[str], str | None]) -> Callable[[str], str | None]:
    """The same wrong queue for each right one, as the agency labels them."""

    def wrong(text: str) -> str | None:
        answer = right(text)
        if answer is None:
            return None
        labels = json.loads(answer)
        return json.dumps(labels | {"queue": SWAPPED[labels["queue"]]})

    return wrong


def expect(wanted: str, ended: str) -> None:
    """Raises NotSeenError when the release ended otherwise."""
    if ended != wanted:
        raise NotSeenError(f"The release ended {ended}, not {wanted}.")


def nothing_went_wrong(stage: Stage) -> None:
    """Every question of every user was answered."""
    if stage.users.failed:
        raise NotSeenError(f"Users saw errors: {'; '.join(stage.users.failed[:3])}")
    said = f"{stage.users.answered:,} questions, every one answered; {stage.users.voted:,} votes"
    stage.timeline.tell("users", said, key="no errors")
