"""Who is eligible: flags of a file, reloaded when it changes, and "no" whenever they fail."""

import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from openfeature import api

from mlops_assets.profiles import PROJECT
from mlops_assets.serving.traffic import flags as flag_names
from mlops_assets.serving.traffic.flag_file import FlagFile
from mlops_assets.serving.traffic.flags import Flags, make_flags
from mlops_assets_tests.waiting import wait_until

ALL = "flags: {canary: {state: ENABLED, variants: {in: true, out: false}, defaultVariant: in}}"
NONE = ALL.replace("defaultVariant: in", "defaultVariant: out")
TARGETED = {
    "flags": {
        "canary": {
            "state": "ENABLED",
            "variants": {"in": True, "out": False},
            "defaultVariant": "out",
            "targeting": {"if": [{"in": [{"var": "tenant"}, ["acme"]]}, "in", "out"]},
        },
        "staff": {
            "state": "ENABLED",
            "variants": {"in": True, "out": False},
            "defaultVariant": "out",
            "targeting": {"if": [{"==": [{"var": "beta"}, True]}, "in", "out"]},
        },
        "off": {"state": "DISABLED", "variants": {"in": True}, "defaultVariant": "in"},
        "colour": {"state": "ENABLED", "variants": {"in": "red"}, "defaultVariant": "in"},
        "broken": {
            "state": "ENABLED",
            "variants": {"in": True},
            "defaultVariant": "in",
            "targeting": {"if": [{"==": [{"var": "tenant"}, "acme"]}, "nowhere", "in"]},
        },
    }
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "flags.yaml"


@pytest.fixture
def watch() -> Iterator[Callable[[Path], Flags]]:
    opened: list[Flags] = []

    def start(path: Path) -> Flags:
        opened.append(Flags(FlagFile(path, look_every=0.02)))
        return opened[-1]

    yield start
    for each in opened:
        each.close()
    api.clear_providers()


@pytest.mark.parametrize(
    ("flag", "attributes", "expected"),
    [
        ("canary", {"tenant": "acme"}, True),
        ("canary", {"tenant": "umbrella"}, False),
        ("canary", {}, False),
        ("staff", {"beta": True}, True),
        ("staff", {"beta": "true"}, False),
        ("staff", {"beta": ["no", "attribute"]}, False),
        ("off", {}, False),
        ("colour", {}, False),  # no boolean
        ("broken", {"tenant": "acme"}, False),  # a rule that fails for some
        ("broken", {"tenant": "umbrella"}, True),
        ("unknown", {}, False),
    ],
)
def test_a_flag_is_on_or_the_user_is_not_eligible(
    watch: Callable[[Path], Flags],
    tmp_path: Path,
    flag: str,
    attributes: dict[str, object],
    expected: bool,
) -> None:
    file = tmp_path / "flags.json"
    file.write_text(json.dumps(TARGETED))
    flags = watch(file)
    assert flags.eligible(flag, "user", attributes) is expected
    assert flags.eligible(flag, "user", attributes) is expected  # as remembered


def test_values_that_python_holds_for_equal_are_remembered_apart(
    watch: Callable[[Path], Flags], file: Path
) -> None:
    rule = TARGETED["flags"]["staff"] | {
        "targeting": {"if": [{"==": [{"cat": [{"var": "beta"}, ""]}, "1"]}, "in", "out"]}
    }
    file.write_text(json.dumps({"flags": {"staff": rule}}))
    flags = watch(file)
    answers = [flags.eligible("staff", "user", {"beta": beta}) for beta in (1, True)]
    assert answers == [True, False]


def test_a_changed_file_counts_and_a_broken_one_does_not(
    watch: Callable[[Path], Flags], file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text(ALL)
    flags = watch(file)
    assert flags.eligible("canary", "user", {})
    file.write_text(NONE)
    wait_until(lambda: not flags.eligible("canary", "user", {}))
    file.write_text(ALL + "}")
    wait_until(lambda: "the last good flags stay in force" in caplog.text)
    assert not flags.eligible("canary", "another", {})
    assert flags.problem is not None
    file.unlink()
    wait_until(lambda: "no such file" in caplog.text)
    caplog.set_level(logging.INFO)
    file.write_text(ALL)
    wait_until(lambda: flags.eligible("canary", "third", {}))
    assert "are sound again" in caplog.text
    assert flags.problem is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("flags: [", "flow"),
        ("- 1", "no mapping `flags`"),
        ("flags: {canary: 1}", "no mapping `flags`"),
        ("flags: {canary: {variants: {in: true}}}", "state"),
        ("flags: {canary: {state: ENABLED, variants: {}}}", "variants"),
        ("flags: {canary: {state: ENABLED, variants: {in: true, out: no way}}}", "one kind"),
        (ALL.replace("defaultVariant: in", "defaultVariant: inn"), "variant inn"),
        (ALL[:-2] + ", targeting: {launch: [1]}}}", "targeting"),
        ("flags: {canary: {state: ENABLED, variants: {in: 2026-11-22}}}", "date"),
        ("x" * 2**20 + "x", "larger than"),
    ],
)
def test_a_file_is_taken_whole_or_not_at_all(file: Path, text: str, problem: str) -> None:
    file.write_text(text)
    provider = FlagFile(file)
    assert not provider.reload()
    assert problem in str(provider.problem)


def test_a_missing_file_is_said_and_makes_nobody_eligible(
    watch: Callable[[Path], Flags], file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flags = watch(file)
    assert not flags.eligible("canary", "user", {})
    assert "nobody is eligible" in caplog.text
    file.write_text(ALL)
    wait_until(lambda: flags.eligible("canary", "user", {}))


def test_the_shipped_flags_let_everybody_in() -> None:
    flags = make_flags("flags.yaml", "")
    try:
        assert flags.problem is None, PROJECT
        for flag in (flag_names.CANARY, flag_names.SHADOW):
            assert flags.eligible(flag, "user", {"tenant": "acme"})
    finally:
        flags.close()
        api.clear_providers()


def test_asking_again_costs_next_to_nothing(watch: Callable[[Path], Flags], file: Path) -> None:
    file.write_text(ALL)
    flags = watch(file)
    began = time.thread_time()  # whatever else the machine does
    for _ in range(5000):
        flags.eligible("canary", "user", {"tenant": "acme", "plan": "pro"})
    assert (time.thread_time() - began) / 5000 < 100e-6  # some 2 µs on an idle core
