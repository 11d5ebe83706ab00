"""Profiles: found by name or path, and wrong settings refused before any work."""

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field

from mlops_assets.artifacts import LineageError
from mlops_assets.profiles import PROJECT, check_settings, load_profile, profile_path, restrict


class Spec(BaseModel):
    """Settings of an asset in these tests."""

    model_config = ConfigDict(extra="forbid")
    rate: float = Field(0.1, gt=0, le=1)


def test_the_default_is_tiny() -> None:
    assert profile_path().name == "tiny.yaml"


def test_a_profile_is_named_or_given_by_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLOPS_PROFILE", "banking77")
    assert profile_path() == PROJECT / "profiles" / "banking77.yaml"
    mine = tmp_path / "mine.yaml"
    mine.write_text("ops: {}")
    monkeypatch.setenv("MLOPS_PROFILE", str(mine))
    assert profile_path() == mine


def test_an_unknown_profile_lists_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_PROFILE", "tinny")
    with pytest.raises(LineageError, match=r"'tinny'.*banking77"):
        profile_path()


@pytest.mark.parametrize("content", ["[1, 2]", "opps: {}", "a: : b", "\x00"])
def test_a_file_that_is_no_profile(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(LineageError, match=r"bad\.yaml"):
        load_profile(path)


@pytest.mark.parametrize(
    ("ops", "message"),
    [
        ({"adapter": {"config": {"rat": 0.5}}}, "adapter.rat: unknown key"),
        ({"adapter": {"config": {"rate": 7}}}, "adapter.rate = 7: input should be less than"),
        ({"adaptor": {"config": {}}}, "ops.adaptor: there is no such asset"),
    ],
)
def test_bad_settings_are_named(ops: object, message: str) -> None:
    with pytest.raises(LineageError, match=message):
        check_settings({"ops": ops}, {"adapter": Spec})


def test_every_problem_is_named_at_once() -> None:
    ops = {"adapter": {"config": {"rate": 7, "x": 1}}, "nothing": {}}
    with pytest.raises(LineageError, match=r"rate.*x.*nothing"):
        check_settings({"ops": ops}, {"adapter": Spec})


@pytest.mark.parametrize(
    "path", sorted((PROJECT / "profiles").glob("*.yaml")), ids=lambda p: p.stem
)
def test_the_shipped_profiles_are_valid(path: Path) -> None:
    from mlops_assets.definitions import lineage_assets
    from mlops_assets.resources import settings_of

    check_settings(load_profile(path), settings_of(lineage_assets()))


def test_a_job_gets_the_settings_of_its_own_assets() -> None:
    profile = {"ops": {"a": {}, "b": {}}, "loggers": {"console": {}}}
    assert restrict(profile, ["b", "c"]) == {"ops": {"b": {}}, "loggers": {"console": {}}}
