"""Code versions: what a module does counts, how it is written does not."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mlops_assets import code_digest as digests
from mlops_assets.artifacts import LineageError
from mlops_assets.code_digest import code_digest, read_source
from mlops_assets.home import Home
from mlops_assets.profiles import PROJECT

TRAINING = "mlops_assets.training.finetune"
MODULE = '''"""What it is about."""
import json
LIMIT = 3  # things

class Thing:
    """A thing."""
    size: int = 1
    """In bytes."""

def work(text, *, deep=False):
    """Do it."""
    for number in range(LIMIT):
        if deep and text[number] == "a":
            return json.dumps({"n": number, "of": f"{text!r:>{LIMIT}}"})
    return None
'''


@pytest.mark.parametrize(
    ("before", "after", "counts"),
    [
        ("  # things", "", False),
        ("# things", "# other things", False),
        ('"""What it is about."""', '"""Something else."""', False),
        ('    """Do it."""\n', "", False),
        ('    """In bytes."""\n', "", False),
        ("def work(text, *, deep=False):", "def work(\n    text, *,\n    deep=False,\n):", False),
        ('"a"', "'a'", False),
        ("range(LIMIT)", "(range(LIMIT))", False),
        ("LIMIT = 3", "LIMIT = 4", True),
        ("LIMIT = 3", "LIMIT = 3.0", True),
        ("size: int = 1", "size: int = True", True),
        ("deep=False", "deep=None", True),
        ("range(LIMIT)", "range(LIMIT - 1)", True),
        ("text[number] ==", "text[number] !=", True),
        ("!r:>", "!s:>", True),
        ("return None", "return", True),
        ("import json", "import orjson as json", True),
        ("*, deep", "deep", True),
    ],
)
def test_what_counts(before: str, after: str, counts: bool) -> None:
    assert before in MODULE
    changed = read_source(MODULE.replace(before, after, 1))
    assert (changed.digest != read_source(MODULE).digest) == counts


def test_the_digest_does_not_depend_on_the_version_of_python() -> None:
    """The number is that of Python 3.11; another Python must come to the same."""
    found = read_source(MODULE).digest
    assert found.startswith("08e096cce1b44fd7"), found


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package that the digests are then taken of."""
    package = tmp_path / "mlops_assets"
    shutil.copytree(PROJECT / "mlops_assets", package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(digests, "PACKAGE", package)
    code_digest.cache_clear()
    return package


@pytest.fixture(autouse=True)
def _forget() -> object:
    yield
    code_digest.cache_clear()


def _append(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(path.read_text() + text)


@pytest.mark.parametrize(
    ("file", "module", "counts"),
    [
        ("training/finetune.py", "training.finetune", True),
        ("training/spec.py", "training.finetune", True),
        ("training/training_log.py", "training.finetune", True),  # imported by an import
        ("training/trainer.py", "training.finetune", True),  # imported inside a function
        ("training/pretrain.py", "training.finetune", False),  # its own stage, but no import
        ("training/pretrain.py", "training.base_model", True),
        ("training/defs.py", "training.finetune", False),
        ("artifacts.py", "training.finetune", False),
        ("template_messages.py", "training.finetune", True),  # decides the tokens
        ("template_messages.py", "dataset.splits", False),
        ("threads.py", "evaluation.generation", True),  # decides the order of sums
        ("dataset/validation.py", "training.finetune", False),
        ("dataset/validation.py", "dataset.splits", False),
        ("evaluation/report.html.jinja", "evaluation.report", True),
        ("evaluation/report.html.jinja", "evaluation.generation", False),
    ],
)
def test_which_files_count(sources: Path, file: str, module: str, counts: bool) -> None:
    before = code_digest(f"mlops_assets.{module}")
    code_digest.cache_clear()
    _append("\nSOMETHING = 1\n")(sources / file)
    assert (code_digest(f"mlops_assets.{module}") != before) == counts


def test_another_form_of_the_rows_is_another_code(monkeypatch: pytest.MonkeyPatch) -> None:
    before = code_digest(TRAINING)
    code_digest.cache_clear()
    monkeypatch.setattr(digests, "ROW_FORMAT", "next")
    assert code_digest(TRAINING) != before


def test_missing_sources_are_named(sources: Path) -> None:
    (sources / "training" / "finetune.py").unlink()
    with pytest.raises(LineageError, match=r"source of mlops_assets\.training\.finetune.*wheel"):
        code_digest(TRAINING)


@pytest.mark.parametrize("kept", ["", "no JSON", '{"0": ["other"]}', "[1]"])
def test_what_was_kept_is_found_and_may_be_broken(sources: Path, kept: str) -> None:
    """Beside the bytecode lies what sources say; without it, and with rubbish, all is the same."""
    program = f"from mlops_assets.code_digest import code_digest; print(code_digest({TRAINING!r}))"
    found = set()
    for _ in range(2):
        # Its own directory comes first where Python looks for modules, so it runs the copy.
        command, place = [sys.executable, "-c", program], sources.parent
        ended = subprocess.run(command, cwd=place, env={}, capture_output=True, check=True)
        found.add(ended.stdout.decode().strip())
        [file] = (sources / "__pycache__").glob("code_digest.*.json")
        file.write_text(kept or file.read_text())
    assert found == {code_digest(TRAINING)}


def test_every_asset_has_the_digest_of_its_code() -> None:
    from mlops_assets.definitions import defs

    graph = defs.resolve_asset_graph()
    found = {key.path[-1]: graph.get(key).code_version for key in graph.get_all_asset_keys()}
    assert found["lora_adapter"] == code_digest(TRAINING)
    assert all(len(version) == 64 for version in found.values())


def test_the_ui_says_that_the_code_of_an_asset_has_changed(home: Home, tmp_path: Path) -> None:
    """Dagster holds an asset for unsynced once its code version is another one."""
    import dagster as dg
    from dagster._utils.test.data_versions import get_stale_status_resolver

    from mlops_assets.dataset.defs import raw_dataset
    from mlops_assets.resources import RESOURCES

    data = tmp_path / "data.jsonl"
    data.write_text('{"messages": [{"role": "user", "content": "a"}]}\n')
    run_config = {"ops": {"raw_dataset": {"config": {"path": str(data), "format": "messages"}}}}
    used = {name: RESOURCES[name] for name in ("workspace", "io_manager")}
    changed = raw_dataset.map_asset_specs(lambda spec: spec._replace(code_version="other"))
    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize([raw_dataset], instance=instance, resources=used, run_config=run_config)
        states = [
            get_stale_status_resolver(instance, [asset]).get_status(raw_dataset.key).value
            for asset in (raw_dataset, changed)
        ]
    assert states == ["FRESH", "STALE"]
