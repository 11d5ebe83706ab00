"""What `mlops export litellm` writes; the real proxy runs it in test_litellm_proxy."""

import ast
import json
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from mlops_assets.artifacts import LineageError
from mlops_assets.cli import app
from mlops_assets.home import Home
from mlops_assets.release_state import read_release
from mlops_assets.serving.litellm_proxy.litellm_export import (
    CONFIG,
    HOOK,
    STATE,
    Engines,
    Export,
    everybody_is_eligible,
)
from mlops_assets.serving.rollout.release_steps import advance, begin, release_first, roll_back
from mlops_assets_tests.releases import MODEL
from mlops_assets_tests.served_homes import promote

URL = "http://127.0.0.1:9/v1"
ON = {"state": "ENABLED", "variants": {"in": True, "out": False}, "defaultVariant": "in"}
RULE = {"if": [{"==": [{"var": "tenant"}, "staff"]}, "in", "out"]}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """One release that is served."""
    home = Home(tmp_path / "home")
    home.prepare()
    home.ledger.append(release_first(promote(home, 1, "a")))
    return home


def write_flags(path: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump({"flags": {"canary": ON | changes}}))
    return path


def run(*words: str, home: Home) -> tuple[int, str]:
    environment = {"MLOPS_HOME": str(home.root)}
    result = CliRunner().invoke(app, ["export", "litellm", *words], env=environment)
    return result.exit_code, " ".join(result.output.split())


def test_the_command_writes_private_files_that_need_nothing_of_ours(
    home: Home, tmp_path: Path
) -> None:
    folder = tmp_path / "proxy"
    code, output = run("--output", str(folder), "--upstream", URL, home=home)
    assert code == 0, output
    assert f"{MODEL}: version 1 is stable" in output
    assert {path.name for path in folder.iterdir()} == {CONFIG, HOOK, STATE}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert {
        item["model_name"] for item in yaml.safe_load((folder / CONFIG).read_text())["model_list"]
    } == {MODEL, "release/*"}
    assert not any(name.startswith("mlops_assets") for name in imported(folder / HOOK))


def imported(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {item.name for node in nodes if isinstance(node, ast.Import) for item in node.names}
    return plain | {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ((), "It is not said where the engines answer."),
        (("--upstream", URL, "--model", "other"), "No release of 'other' is on the ledger"),
    ],
)
def test_what_cannot_be_exported_is_said(
    home: Home, tmp_path: Path, words: tuple[str, ...], problem: str
) -> None:
    code, output = run("--output", str(tmp_path / "proxy"), *words, home=home)
    assert code == 1
    assert problem in output
    assert not (tmp_path / "proxy").exists()


def test_the_state_follows_the_ledger_and_the_flags(home: Home, tmp_path: Path) -> None:
    flags = write_flags(tmp_path / "flags.yaml")
    export = Export(home, tmp_path / "proxy", MODEL, Engines(URL, "{release}"), flags)
    states = export.follow(look_again=0.01)

    def told() -> tuple[Any, ...]:
        state = next(states)
        assert state == json.loads((export.directory / STATE).read_text())
        candidate = state["candidate"] and state["candidate"]["version"]
        return state["stable"]["version"], candidate, state["percent"]

    assert told() == (1, None, 0)
    second = promote(home, 2, "b")
    home.ledger.append(begin(second, 5))
    assert told() == (1, 2, 5)
    home.ledger.append(advance(second, 25, "fine", {}))
    assert told() == (1, 2, 25)
    write_flags(flags, targeting=RULE)
    assert told() == (1, 2, 0)
    home.ledger.append(roll_back(read_release(home.ledger.entries(), MODEL), "worse", {}))
    assert told() == (1, None, 0)


def test_a_release_whose_bytes_changed_is_not_exported(home: Home, tmp_path: Path) -> None:
    export = Export(home, tmp_path / "proxy", MODEL, Engines(URL, "{release}"), None)
    before = export.write()
    second = promote(home, 2, "b")
    home.ledger.append(begin(second, 5))
    adapter = home.store.path(second.decision.bundle.adapter)
    (adapter / "adapter_model.safetensors").write_text("weights x")
    with pytest.raises(LineageError, match="is void"):
        export.write()
    assert json.loads((export.directory / STATE).read_text()) == before


@pytest.mark.parametrize(
    ("changes", "everybody"),
    [
        ({}, True),
        ({"state": "DISABLED"}, False),
        ({"defaultVariant": "out"}, False),
        ({"targeting": RULE}, False),
        ({"variants": None}, False),
    ],
)
def test_a_rule_that_the_hook_cannot_follow_keeps_users_out(
    tmp_path: Path, changes: dict[str, Any], everybody: bool
) -> None:
    assert everybody_is_eligible(write_flags(tmp_path / "flags.yaml", **changes)) == everybody


def test_without_a_file_of_flags_nobody_is_eligible(tmp_path: Path) -> None:
    assert not everybody_is_eligible(tmp_path / "missing.yaml")
    assert not everybody_is_eligible(None)
