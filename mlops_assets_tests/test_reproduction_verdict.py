"""What `mlops reproduce` concludes from the values it compares, and how it says so."""

import json
import re
from typing import Any

import pytest
from typer.testing import CliRunner

from mlops_assets import cli
from mlops_assets.home import Home
from mlops_assets.reproduction_verdict import (
    DIFFERENT,
    IDENTICAL,
    SIMILAR,
    STEPS,
    Reproduction,
    judge,
)

NAME = "support-tickets"
SAME = {name: (name, name) for name in STEPS}
SAME_GPU = {"cpu": ("a", "a"), "gpu": ("H100", "H100")}
OTHER_CPU = {"cpu": ("a", "b"), "gpu": ("none", "none")}


@pytest.mark.parametrize(
    ("differing", "losses", "hardware", "verdict", "said"),
    [
        ((), (0.5, 0.5), {}, IDENTICAL, "byte for byte"),
        ((), (0.5, 0.5), OTHER_CPU, IDENTICAL, "byte for byte"),
        (("adapter",), (0.5, 0.5), {}, DIFFERENT, "begins with the adapter, on hardware"),
        (("adapter",), (0.5, 0.51), OTHER_CPU, SIMILAR, "another cpu.*every loss within 5%"),
        (("base", "adapter"), (0.5, 0.51), OTHER_CPU, SIMILAR, "begins with the base"),
        (("adapter",), (0.5, 0.6), OTHER_CPU, DIFFERENT, "off by more than 5%: train_loss"),
        (("adapter",), (0.5, float("nan")), OTHER_CPU, DIFFERENT, "off by more than 5%"),
        (("adapter",), (0.5, 0.51), SAME_GPU, SIMILAR, "a GPU, where bytes cannot be equal"),
        (("adapter",), (0.5, 0.6), SAME_GPU, DIFFERENT, "off by more than 5%: train_loss"),
        (("splits", "adapter"), (0.5, 0.5), SAME_GPU, DIFFERENT, "begins with the splits"),
        (("data", "adapter"), (0.5, 0.5), OTHER_CPU, DIFFERENT, "begins with the data"),
        (("splits", "adapter"), (0.5, 0.5), OTHER_CPU, DIFFERENT, "begins with the splits"),
    ],
)
def test_the_verdict(
    differing: tuple[str, ...],
    losses: tuple[float, float],
    hardware: dict[str, tuple[str, str]],
    verdict: str,
    said: str,
) -> None:
    digests = SAME | {name: (name, "other") for name in differing}
    found, reason = judge(digests, {"train_loss": losses}, hardware)
    assert found == verdict
    assert re.search(said, reason)


def outcome(verdict: str) -> Reproduction:
    digests = SAME | ({} if verdict == IDENTICAL else {"adapter": ("a" * 64, "b" * 64)})
    losses = {"train_loss": (0.5, 0.51)}
    return Reproduction(NAME, 3, "c" * 40, verdict, "why", digests, losses, OTHER_CPU, {})


@pytest.mark.parametrize(("verdict", "code"), [(IDENTICAL, 0), (SIMILAR, 0), (DIFFERENT, 1)])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_command_shows_the_verdict_and_ends_with_it(
    monkeypatch: pytest.MonkeyPatch, verdict: str, code: int, options: list[str]
) -> None:
    monkeypatch.setattr(cli, "rebuild_version", lambda *_: outcome(verdict))
    ended = CliRunner().invoke(cli.app, ["reproduce", "3", *options])
    assert ended.exit_code == code
    if options:
        shown: dict[str, Any] = json.loads(ended.stdout)
        assert shown["verdict"] == verdict
        assert shown["metrics"]["train_loss"] == {"registered": 0.5, "rebuilt": 0.51}
    else:
        for part in (f"{verdict}: why", "version 3", "cccccccccccc", "splits", "0.51", "cpu"):
            assert part in ended.stdout


def test_the_command_says_in_a_sentence_what_is_wrong(home: Home) -> None:
    ended = CliRunner().invoke(cli.app, ["reproduce", "1", "--model", NAME])
    assert ended.exit_code == 1
    assert ended.stderr.startswith("Error: There is no registry in")
