"""The README's tables and commands match the code."""

import re

import pytest

from mlops_assets.profiles import PROJECT

README = (PROJECT / "README.md").read_text()


def rows(header: str) -> list[list[str]]:
    """The cells of the table that begins with this header cell."""
    table = README.split(f"| {header} |", 1)[1].split("\n\n", 1)[0]
    return [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        for line in table.splitlines()[2:]
    ]


def test_the_asset_table_is_the_graph() -> None:
    from mlops_assets.definitions import defs

    graph = defs.resolve_asset_graph()
    told = {asset: group for group, asset, _ in rows("group")}
    real = {key.path[-1]: graph.get(key).group_name for key in graph.get_all_asset_keys()}
    assert told == real


def test_the_job_table_is_the_jobs() -> None:
    from mlops_assets.jobs import DAILY, JOBS

    told = {job: started for job, _, started in rows("job")}
    assert set(told) == {*JOBS, "approve", "reconcile"}
    for job, cron in DAILY.items():
        assert f"{int(cron.split()[1]):02d}:00 UTC" in told[job]


def test_every_profile_is_told_of() -> None:
    told = {cells[0].split("`")[0] for cells in rows("profile")}
    assert told == {path.stem for path in (PROJECT / "profiles").glob("*.yaml")}


def test_every_make_target_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)\b", README)) <= targets


@pytest.mark.parametrize("variable", [cells[0] for cells in rows("variable")])
def test_every_variable_is_read(variable: str) -> None:
    sources = [*PROJECT.glob("mlops_assets/**/*.py"), *PROJECT.glob("profiles/*.yaml")]
    assert any(variable in path.read_text() for path in sources)


def test_the_transcript_is_of_this_code() -> None:
    """The lines of the transcript that name a step name our assets and checks, all of them."""
    from mlops_assets.definitions import defs

    blocks = README.split("```")[1::2]
    transcript = next(block for block in blocks if block.startswith("\nraw_dataset\n"))
    named = re.findall(r"^([a-z_]+)$", transcript, re.MULTILINE)
    graph = defs.resolve_asset_graph()
    assets = {key.path[-1] for key in graph.get_all_asset_keys()}
    checks = {f"{key.asset_key.path[-1]}_{key.name}" for key in graph.asset_check_keys}
    assert set(named) == assets | checks
