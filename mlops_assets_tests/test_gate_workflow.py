"""The workflow for a CI service calls what there is, with no more rights than it needs."""

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from mlops_assets.home import Home
from mlops_assets.jobs import JOBS
from mlops_assets.profiles import PROJECT, find_profile
from mlops_assets.promotion.page_key import page_key
from mlops_assets.signing import new_key

FILE = PROJECT / ".github" / "workflows" / "gate.yml"
TOOLS = {"cat", "echo", "gh", "rm"}  # of the service's machines
# GitHub's word `on` is a boolean in YAML 1.1.
WORKFLOW: dict[Any, Any] = yaml.safe_load(FILE.read_text("utf-8"))
STEPS: list[dict[str, Any]] = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]


def commands() -> Iterator[list[str]]:
    """Every command that a step runs, in words."""
    for step in STEPS:
        for line in step.get("run", "").splitlines():
            yield shlex.split(line)


def test_it_runs_on_pull_requests_and_has_the_least_rights() -> None:
    assert "pull_request" in WORKFLOW[True]
    assert "pull_request_target" not in WORKFLOW[True]  # would give a fork's code our rights
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert "permissions" not in WORKFLOW["jobs"]["gate"]
    assert WORKFLOW["jobs"]["comment"]["permissions"] == {"pull-requests": "write"}
    assert all(job["timeout-minutes"] <= 60 for job in WORKFLOW["jobs"].values())
    assert "secrets." not in FILE.read_text("utf-8")


def test_actions_are_pinned_and_leave_no_token_behind() -> None:
    used = [step["uses"] for step in STEPS if "uses" in step]
    assert len(used) == 5
    for action in used:
        assert re.fullmatch(r"actions/[\w-]+@(v\d+|[0-9a-f]{40})", action), action
    checkout = next(step for step in STEPS if str(step.get("uses")).startswith("actions/checkout"))
    assert checkout["with"]["persist-credentials"] is False


def test_what_can_write_runs_nothing_of_the_pull_request() -> None:
    steps = WORKFLOW["jobs"]["comment"]["steps"]
    assert [step.get("uses", step.get("run", "")).split()[0].split("@")[0] for step in steps] == [
        "actions/download-artifact",
        "gh",
    ]


def test_no_private_key_is_left_where_pull_requests_read(home: Home) -> None:
    """A fork's workflow may read what the main branch cached."""
    page_key(home)
    new_key(home.root / "keys" / "automatic.pem")
    cache = next(step for step in STEPS if str(step.get("uses")).startswith("actions/cache"))
    cached, *kept_back = cache["with"]["path"].split()
    assert cached == ".mlops/*"  # of a directory that matches, everything is taken
    entries = set(home.root.iterdir())
    for pattern in kept_back:
        entries -= set(home.root.glob(pattern.removeprefix("!.mlops/")))
    assert len(list(home.root.rglob("*.pem"))) == 2
    assert not [file for entry in entries for file in (entry, *entry.rglob("*"))
                if file.suffix == ".pem"]  # fmt: skip


def test_no_expression_stands_in_a_command() -> None:
    """A title or a branch name that holds a command would be one."""
    assert not [step["run"] for step in STEPS if "${{" in step.get("run", "")]


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_what_it_runs_is_there(words: list[str]) -> None:
    makefile = (PROJECT / "Makefile").read_text("utf-8").replace("$(VENV)", ".venv")
    if words[0] == "make":
        for target in words[1:]:
            assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), target
    elif words[0] == "dagster":
        assert words[1:5] == ["job", "execute", "-m", "mlops_assets.definitions"]
        assert words[5] == "-j"
        assert words[6] in JOBS
    else:
        assert words[0] in TOOLS


def test_it_judges_and_reads_the_result_where_it_lies() -> None:
    jobs = [words[6] for words in commands() if words[0] == "dagster"]
    assert jobs == ["train", "evaluate"]
    assert find_profile(WORKFLOW["env"]["MLOPS_PROFILE"], "the workflow").is_file()
    assert WORKFLOW["env"]["MLOPS_HOME"].endswith("/.mlops")
    upload = next(step for step in STEPS if str(step.get("uses")).startswith("actions/upload"))
    assert ".mlops/gate/junit.xml" in upload["with"]["path"]
    (comment,) = [words for words in commands() if words[0] == "gh"]
    assert comment[-1] == "summary.md"
