"""What asset checks said is kept by the digest of what they looked at."""

from pathlib import Path

import pytest

from mlops_assets.artifacts import Artifact
from mlops_assets.checks import (
    NO_LEAKAGE,
    TEMPLATE_FIDELITY,
    CheckResult,
    adapter_on_base,
    find_check,
    record_check,
)

GREEN, RED = CheckResult(True, "clean"), CheckResult(False, "3 rows leak")


def test_the_last_result_on_the_same_bytes_counts(tmp_path: Path) -> None:
    record_check(tmp_path, NO_LEAKAGE, "a" * 64, RED)
    record_check(tmp_path, NO_LEAKAGE, "a" * 64, GREEN)
    assert find_check(tmp_path, NO_LEAKAGE, "a" * 64) == GREEN


def test_nobody_answers_for_what_another_check_saw_or_for_other_bytes(tmp_path: Path) -> None:
    record_check(tmp_path, NO_LEAKAGE, "a" * 64, GREEN)
    assert find_check(tmp_path, NO_LEAKAGE, "b" * 64) is None
    assert find_check(tmp_path, TEMPLATE_FIDELITY, "a" * 64) is None


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"passed": "yes", "detail": ""}', '{"passed": true}']
)
def test_what_cannot_be_read_is_no_result(tmp_path: Path, content: str) -> None:
    record_check(tmp_path, NO_LEAKAGE, "a" * 64, GREEN)
    (tmp_path / NO_LEAKAGE / f"{'a' * 64}.json").write_text(content)
    assert find_check(tmp_path, NO_LEAKAGE, "a" * 64) is None


def test_an_adapter_is_checked_on_its_base() -> None:
    one, other = Artifact("base_model", "k", "1" * 64), Artifact("base_model", "k", "2" * 64)
    adapter = Artifact("lora_adapter", "k", "3" * 64)
    assert adapter_on_base(one, adapter) != adapter_on_base(other, adapter)
    assert adapter_on_base(one, adapter) != adapter_on_base(adapter, one)
