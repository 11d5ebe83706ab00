"""The import rules, the shape of the lineage, and what loading the definitions costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from mlops_assets.profiles import PROJECT

PACKAGE = PROJECT / "mlops_assets"
STAGES = {path.parent.name for path in PACKAGE.glob("*/defs.py")}
HEAVY = (
    "cryptography",
    "torch",
    "transformers",
    "trl",
    "peft",
    "great_expectations",
    "evidently",
    "ragas",
    "mlflow",
    "optuna",
    "sklearn",
    "datasets",
    "datasketches",
    "pyarrow",
    "boto3",
    "vllm",
    "huggingface_hub",
    "pandas",
    "rensa",
    "presidio_analyzer",
    "spacy",
    "scipy",
    "cyclonedx",
    "license_expression",
    "litellm",
    "wandb",
    "aiohttp",
    "prometheus_client",
    "openfeature",
    "qdrant_client",
)
KNOW_STAGES = (
    "definitions.py",
    "cli.py",
    "approval_commands.py",
    "release_commands.py",
    "prune_command.py",
    "usage_command.py",
)
LINEAGE = {
    "raw_dataset": set(),
    "validated_dataset": {"raw_dataset"},
    "dataset_splits": {"validated_dataset"},
    "base_model": {"dataset_splits"},
    "lora_adapter": {"dataset_splits", "base_model"},
    "eval_report": {"dataset_splits", "base_model", "lora_adapter"},
    "gate_verdict": {"eval_report"},
    "registered_model": {
        *("dataset_splits", "base_model", "lora_adapter", "eval_report", "gate_verdict"),
    },
    "promotion_decision": {"registered_model", "gate_verdict"},
    "release": {"promotion_decision"},
    "gateway": {"release"},
    "prediction_log": {"raw_dataset"},
    "sampled_traces": {"prediction_log"},
    "drift_reference": {"dataset_splits"},
    "feedback_rows": {"prediction_log", "dataset_splits"},
    "answer_quality": {"prediction_log"},
    "drift_report": {"prediction_log", "drift_reference", "answer_quality"},
}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {item.name for item in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(str(node.module))
    return found


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_a_stage_imports_no_other_stage(stage: str) -> None:
    others = {f"mlops_assets.{name}" for name in STAGES - {stage}}
    for path in (PACKAGE / stage).rglob("*.py"):
        crossed = {
            name for name in imports(path) for other in others if name.startswith(f"{other}.")
        }
        assert not crossed, f"{path} imports {crossed}"


def test_only_definitions_and_the_command_know_the_stages() -> None:
    for path in PACKAGE.glob("*.py"):
        if path.name not in KNOW_STAGES:
            known = {
                name for name in imports(path) for stage in STAGES if f".{stage}." in f"{name}."
            }
            assert not known, f"{path} imports {known}"


def test_domain_code_does_not_know_dagster_or_resources() -> None:
    for stage in STAGES:
        for path in (PACKAGE / stage).rglob("*.py"):
            if path.name not in ("defs.py", "sensors.py"):
                assert not imports(path) & {"dagster", "mlops_assets.resources"}, path


def test_loading_the_definitions_imports_nothing_heavy() -> None:
    program = (
        "import sys, mlops_assets.definitions;"
        f"print(sorted(name for name in {HEAVY!r} if name in sys.modules))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == "[]"


def test_the_asset_graph() -> None:
    from mlops_assets.definitions import defs

    graph = defs.resolve_asset_graph()
    found = {
        key.path[-1]: {parent.path[-1] for parent in graph.get(key).parent_keys}
        for key in graph.get_all_asset_keys()
    }
    assert found == LINEAGE


def test_every_asset_is_described() -> None:
    from mlops_assets.definitions import defs

    graph = defs.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        name = key.path[-1]
        assert node.description, name
        assert node.owners, name
        assert node.kinds, name
        assert node.group_name in STAGES, name
        assert node.code_version, name


def test_init_files_hold_a_docstring_only() -> None:
    for path in PACKAGE.rglob("__init__.py"):
        body = ast.parse(path.read_text()).body
        assert len(body) == 1, path
        assert isinstance(body[0], ast.Expr), path
