"""The stage on which the loop is shown: one home, its processes, its people and its users."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mlops_assets.home import Home
from mlops_assets.serving.gateway import api_keys
from mlops_assets.serving.serving_home import ServingHome
from mlops_assets_tests.commands import execute_job
from mlops_assets_tests.loop.people import People
from mlops_assets_tests.loop.processes import Processes
from mlops_assets_tests.loop.real_state import RealState
from mlops_assets_tests.loop.timeline import Timeline
from mlops_assets_tests.loop.users import Users
from mlops_assets_tests.loop.waiting import NotSeenError, wait_for

MODEL = "support-tickets"
SEED = 20_261_122
PATIENCE_S = 240.0
"""For what takes ten seconds to a minute on two cores that do nothing else."""
Found = TypeVar("Found")


@dataclass(frozen=True)
class Stage:
    """Everything that a chapter of the story works with."""

    home: Home
    state: RealState
    processes: Processes
    people: People
    users: Users
    timeline: Timeline

    def wait(self, what: str, look: Callable[[], Found | None]) -> Found:
        """Until it is there. Raises NotSeenError with the last state and what processes said."""

        def instead() -> str:
            failed = self.users.failed[-3:]
            users = [f"Users: {self.users.answered:,} answers", *failed]
            return "\n".join([self.state.tell(), *users, self.processes.tails()])

        return wait_for(what, look, PATIENCE_S, instead, self.processes.check)


def first_lineage(home: Home, profile: Path, timeline: Timeline) -> None:
    """The job `lineage`, as `make run` runs it. Raises NotSeenError when it fails."""
    timeline.tell("retrain", "`dagster job execute -j lineage`: from the raw data to a request")
    ended = execute_job("lineage", home=home.root, MLOPS_PROFILE=str(profile))
    if ended.code:
        raise NotSeenError(f"The job `lineage` ended with {ended.code}.\n{ended.output[-3000:]}")


@contextmanager
def set_stage(home: Home, profile: Path, timeline: Timeline) -> Iterator[Stage]:
    """Gateway, daemon and users on a home whose first version is approved, until the block ends.

    Raises NotSeenError when they do not come up.
    """
    state = RealState(home, MODEL)
    files = ServingHome.of(home)
    files.prepare()
    _, key = api_keys.new_key(files.keys, "users", (api_keys.CHAT, api_keys.FEEDBACK))
    with Processes(home.root, profile) as processes:
        processes.start_gateway()
        processes.start_daemon()
        address = wait_for(
            "the gateway to serve version 1",
            lambda: _ready(state),
            PATIENCE_S,
            lambda: f"{state.tell()}\n{processes.tails()}",
            processes.check,
        )
        timeline.tell("gateway", f"serves version {state.stable} on {address}", key="serving")
        people = People(home.root, profile)
        with Users(f"{address}/v1", key, SEED) as users:
            yield Stage(home, state, processes, people, users, timeline)


def _ready(state: RealState) -> str | None:
    told = state.gateway()
    return str(told["url"]) if told.get("status") == "ok" and state.stable else None
