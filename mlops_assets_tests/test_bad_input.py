"""What users get wrong and machines run out of: one clear error, exit code 1, nothing lost."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home, translate_disk_full
from mlops_assets.profiles import PROJECT, load_profile
from mlops_assets_tests.commands import (
    Finished,
    environment_for,
    run_command,
    script,
)
from mlops_assets_tests.conftest import LineageRun
from mlops_assets_tests.waiting import wait_until
from mlops_assets_tests.warm_process import fork_job


def profile_with(folder: Path, asset: str, **settings: Any) -> str:
    """The path of a profile like the default one, but for some settings of one asset."""
    profile = load_profile(PROJECT / "profiles" / "tiny.yaml")
    config = profile.setdefault("ops", {}).setdefault(asset, {}).setdefault("config", {})
    config.update(settings)
    path = folder / "profile.yaml"
    path.write_text(yaml.safe_dump(profile))
    return str(path)


def assert_one_clear_error(run: Finished, *words: str) -> None:
    """Exit code 1, every word in one error line, and no stack trace."""
    assert run.code == 1, run.output
    assert "Traceback" not in run.output
    assert "Stack Trace" not in run.output
    errors = [line for line in run.output.splitlines() if "failed: " in line or "Error: " in line]
    named = [line for line in errors if all(word in line for word in words)]
    assert len(named) == 1, run.output


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ("nowhere.jsonl",)),
        (b"", ("nowhere.jsonl", "empty")),
        ("Gr\u00fc\u00dfe\n".encode("latin-1") * 50, ("nowhere.jsonl", "UTF-8")),
        ('{"id": "1"}\n'.encode("utf-16"), ("nowhere.jsonl", "UTF-8")),
        (b"not json\n" * 50, ("nowhere.jsonl",)),
    ],
    ids=["missing", "empty", "latin-1", "utf-16", "no valid row"],
)
def test_unusable_data(
    home: Home, tmp_path: Path, content: bytes | None, words: tuple[str, ...]
) -> None:
    file = tmp_path / "nowhere.jsonl"
    if content is not None:
        file.write_bytes(content)
    profile = profile_with(tmp_path, "raw_dataset", path=str(file))
    assert_one_clear_error(fork_job("lineage", home=home.root, MLOPS_PROFILE=profile), *words)


@pytest.mark.parametrize("job", ["lineage", "evaluate"])
@pytest.mark.parametrize("way", ["MLOPS_PROFILE", "-c"])
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"learning_rat": 0.1}, ("learning_rat",)),
        ({"learning_rate": 77.0}, ("learning_rate", "77")),
    ],
    ids=["unknown key", "out of range"],
)
def test_a_wrong_profile(
    home: Home,
    tmp_path: Path,
    job: str,
    way: str,
    settings: dict[str, Any],
    words: tuple[str, ...],
) -> None:
    profile = profile_with(tmp_path, "lora_adapter", **settings)
    if way == "-c":
        run = fork_job(job, "-c", profile, home=home.root)
    else:
        run = fork_job(job, home=home.root, MLOPS_PROFILE=profile)
    assert_one_clear_error(run, *words)
    assert not (home.root / "artifacts").exists(), "work was done before the settings were checked"


def test_an_unknown_profile(home: Home) -> None:
    run = fork_job("lineage", home=home.root, MLOPS_PROFILE="huge")
    assert_one_clear_error(run, "huge", "banking77")


@pytest.mark.slow
@pytest.mark.parametrize("bad", ["pickle", "auto_map"])
def test_an_unsafe_base_model(lineage: LineageRun, tmp_path: Path, bad: str) -> None:
    """Refused before anything is loaded; the champion and the reports stay as they were."""
    lineage = lineage.copy(tmp_path)
    before = lineage.status
    model = tmp_path / "model"
    built = next((lineage.home / "artifacts" / "base_model").iterdir())
    shutil.copytree(built, model)
    (model / "manifest.json").unlink()
    if bad == "pickle":
        (model / "pytorch_model.bin").write_bytes(b"\x80\x04.")
        named = "pytorch_model.bin"
    else:
        config = model / "config.json"
        config.write_text(config.read_text().replace("{", '{"auto_map": {"AutoModel": "x.Y"},', 1))
        named = "auto_map"
    profile = profile_with(tmp_path, "base_model", source="local", path=str(model))
    run = fork_job("lineage", home=lineage.home, MLOPS_PROFILE=profile)
    assert_one_clear_error(run, named)
    assert lineage.status == before


def test_a_full_disk_before_the_run(tmp_path: Path) -> None:
    """On a real, small file system of its own."""
    mount = tmp_path / "small"
    mount.mkdir()
    command = (
        f"mount -t tmpfs -o size=64m tmpfs {mount} && mkdir {mount}/dagster &&"
        f" cp {PROJECT}/dagster.yaml {mount}/dagster/ &&"
        f" {script('dagster')} job execute -m mlops_assets.definitions -j lineage"
    )
    ended = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", command],
        cwd=PROJECT,
        env=environment_for(tmp_path)
        | {"MLOPS_HOME": str(mount), "DAGSTER_HOME": str(mount / "dagster")},
        capture_output=True,
        text=True,
        check=False,
    )
    if "Operation not permitted" in ended.stderr or "mount failed" in ended.stderr:
        pytest.xfail("this kernel lets no user mount a file system")
    run = Finished(ended.returncode, ended.stdout + ended.stderr, 0)
    assert_one_clear_error(run, "disk", str(mount), "full", "Free some space")


def test_a_disk_that_fills_up_during_the_run(tmp_path: Path) -> None:
    """The kernel's own ENOSPC, from the device that is always full."""
    with (
        pytest.raises(LineageError, match=r"disk under .* is full"),
        translate_disk_full(tmp_path),
        Path("/dev/full").open("wb", buffering=0) as full,
    ):
        full.write(b"x")


def test_a_second_run_at_the_same_time(home: Home) -> None:
    """The second ends at once and names the first; the first goes on."""
    first = subprocess.Popen(
        [script("dagster"), "job", "execute", "-m", "mlops_assets.definitions", "-j", "lineage"],
        cwd=PROJECT,
        env=environment_for(home.root),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        lock = home.root / "run.lock"
        wait_until(lambda: lock.exists() and lock.read_text(), "the first run")
        second = fork_job("lineage", home=home.root)
        assert_one_clear_error(second, "is at work in", str(home.root), str(first.pid))
        assert first.poll() is None, "the first run goes on"
    finally:
        first.kill()
        first.wait()
    free = (
        "import sys; from mlops_assets.home import *; run_lock.hold(Home.from_environment(), 'x')"
    )
    subprocess.run([sys.executable, "-c", free], env=environment_for(home.root), check=True)


@pytest.mark.slow
def test_a_tampered_adapter_is_refused(lineage: LineageRun, tmp_path: Path) -> None:
    """One flipped bit in a copy of a finished home."""
    home = lineage.copy(tmp_path).home
    weights = next(home.glob("artifacts/lora_adapter/*/adapter_model.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    shutil.rmtree(home / "artifacts" / "eval_report")
    shutil.rmtree(home / "artifacts" / "predictions", ignore_errors=True)
    run = fork_job("evaluate", home=home)
    assert_one_clear_error(run, "was changed after it was built", "adapter_model.safetensors")


def test_status_names_a_damaged_reference(home: Home) -> None:
    home.write_ref("eval_report", "run", b"{not json")
    run = run_command("mlops", "status", home=home.root)
    assert_one_clear_error(run, "cannot be read", "Materialise")


@pytest.mark.slow
def test_a_missed_floor_blocks_and_loses_nothing(lineage: LineageRun, tmp_path: Path) -> None:
    """The gate ends the run and is on the ledger; champion and candidate stay as they were."""
    lineage = lineage.copy(tmp_path)
    before = lineage.status
    profile = profile_with(tmp_path, "gate_verdict", minimum_exact_match=1.0)
    run = fork_job("lineage", "-c", profile, home=lineage.home)
    assert_one_clear_error(run, "blocking asset check failed")
    assert "FAIL: floor/exact_match" in run.output
    after = lineage.status
    assert after["ledger_entries"] == before["ledger_entries"] + 1
    for kept in ("champion", "candidate"):
        assert after[kept] == before[kept]
