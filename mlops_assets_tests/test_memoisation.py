"""What is built again when data, configuration, code or a library change, and what is not.

Every case really runs the stages from the raw data to the eval report. Code changes are made in
a copy of the package, in a process of its own.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.profiles import PROJECT
from mlops_assets_tests.small_lineage import STAGES, rebuilt, ticket, write_tickets

pytestmark = pytest.mark.slow

EVERYTHING = set(STAGES)
FROM_SPLITS = EVERYTHING - {"validated_dataset"}
FROM_ADAPTER = {"lora_adapter", "eval_report"}
TICKETS = [ticket(number) for number in range(45)]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``data.jsonl`` and a ``store`` in which everything was built from it."""
    folder = tmp_path_factory.mktemp("memo")
    data = write_tickets(folder / "data.jsonl", TICKETS)
    assert rebuilt(folder / "store", data) == EVERYTHING
    assert rebuilt(folder / "store", data) == set()
    return folder


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"lora_adapter": {"learning_rate": 2e-3}}, FROM_ADAPTER),
        ({"lora_adapter": {"rank": 8}}, FROM_ADAPTER),
        ({"eval_report": {"examples": 5}}, {"eval_report"}),
        ({"dataset_splits": {"salt": "other"}}, FROM_SPLITS),
    ],
    ids=["learning rate", "rank", "examples", "salt"],
)
def test_configuration(built: Path, changes: dict[str, Any], expected: set[str]) -> None:
    assert rebuilt(built / "store", built / "data.jsonl", **changes) == expected


@pytest.mark.parametrize(
    "tickets",
    [[ticket(0, "Another text of invoice"), *TICKETS[1:]], [*TICKETS, ticket(45)]],
    ids=["a row changed", "a row appended"],
)
def test_data(built: Path, tmp_path: Path, tickets: list[dict[str, Any]]) -> None:
    assert rebuilt(built / "store", write_tickets(tmp_path / "data.jsonl", tickets)) == EVERYTHING


def test_the_same_data_elsewhere(built: Path, tmp_path: Path) -> None:
    assert rebuilt(built / "store", write_tickets(tmp_path / "moved.jsonl", TICKETS)) == set()


@pytest.mark.parametrize(
    ("library", "expected"),
    [
        ("trl", {"lora_adapter"}),  # the same weights come out, so nothing is measured again
        ("requests", set()),  # no recipe names it
    ],
)
def test_a_library(
    built: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    library: str,
    expected: set[str],
) -> None:
    """Another version is installed, as far as anybody can tell."""
    folder = tmp_path / f"{library}-999.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {library}\nVersion: 999.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert rebuilt(built / "store", built / "data.jsonl") == expected


CODE = {
    "a comment": (
        {"file": "training/sft.py", "old": "import", "new": "# A thought.\nimport"},
        set(),
    ),
    "a docstring": (
        {
            "file": "training/finetune.py",
            "old": '"""Fine-tuning of',
            "new": '"""All about the fine-tuning of',
        },
        set(),
    ),
    "a comment that is none": (
        {"file": "training/finetune.py", "old": "KIND = ", "new": "# KIND = 0\nKIND = "},
        set(),
    ),
    "a statement that trains otherwise": (
        {
            "file": "training/finetune.py",
            "old": "    base_path = store.path(base.artifact)",
            "new": '    spec = spec.model_copy(update={"seed": spec.seed + 1})\n'
            "    base_path = store.path(base.artifact)",
        },
        FROM_ADAPTER,
    ),
    "a statement of validation that keeps the rows as they are": (
        {
            "file": "dataset/validation.py",
            "old": "logger = logging.getLogger(__name__)",
            "new": 'logger = logging.getLogger("mlops_assets.validation")',
        },
        {"validated_dataset"},
    ),
    "a foundation module": (
        {"file": "artifacts.py", "old": "SHORT = 12", "new": "SHORT = 13"},
        set(),
    ),
}


def test_code(built: Path, tmp_path: Path) -> None:
    """One process for all: importing the libraries takes longer than the trainings."""
    package = tmp_path / "mlops_assets"
    shutil.copytree(PROJECT / "mlops_assets", package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("mlops_assets_tests", "prompts"):
        shutil.copytree(PROJECT / name, tmp_path / name)
    store = shutil.copytree(built / "store", tmp_path / "store")
    edits = "".join(json.dumps(edit) + "\n" for edit, _ in CODE.values())
    words = ["-m", "mlops_assets_tests.small_lineage", str(store), str(built / "data.jsonl")]
    ended = subprocess.run(
        [sys.executable, *words],
        cwd=tmp_path,
        input=edits,
        capture_output=True,
        text=True,
        check=False,
        env={"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )
    assert ended.returncode == 0, ended.stderr
    lines = [line for line in ended.stdout.splitlines() if line.startswith("rebuilt ")]
    found = [set(json.loads(line.removeprefix("rebuilt "))) for line in lines]
    assert dict(zip(CODE, found, strict=True)) == {
        name: expected for name, (_, expected) in CODE.items()
    }
