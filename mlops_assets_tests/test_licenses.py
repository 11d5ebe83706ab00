"""Licences as SPDX expressions, stated or found."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from mlops_assets import licenses
from mlops_assets.dataset.spec import RawDatasetSpec
from mlops_assets.licenses import declared_license, spdx
from mlops_assets.training.spec import BaseModelSpec


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("", ""),
        ("unknown", "unknown"),
        ("apache-2.0", "Apache-2.0"),
        ("MIT or Apache-2.0", "MIT OR Apache-2.0"),
        ("GPL-2.0-or-later WITH Classpath-exception-2.0",) * 2,
        ("LicenseRef-llama3.1",) * 2,
    ],
)
def test_a_licence_is_written_as_spdx_writes_it(written: str, read: str) -> None:
    assert spdx(written) == read
    assert RawDatasetSpec(license=written).license == read
    assert BaseModelSpec(license=written).license == read


@pytest.mark.parametrize("written", ["free", "MIT OR", "MIT)", "LicenseRef-a b", "MIT AND nothing"])
def test_what_is_no_licence_is_refused(written: str) -> None:
    for spec in (RawDatasetSpec, BaseModelSpec):
        with pytest.raises(ValidationError, match=r"licen[cs]e"):
            spec(license=written)


def test_a_licence_changes_no_bytes() -> None:
    assert BaseModelSpec(license="MIT").read() == BaseModelSpec().read()


@pytest.mark.parametrize(
    ("card", "config", "found"),
    [
        ("---\nlicense: apache-2.0\n---\n# A model", {}, "Apache-2.0"),
        ("---\nlicense: [mit, cc-by-4.0]\n---\n", {}, "MIT OR CC-BY-4.0"),
        ("---\nlicense: llama3.1\n---\n", {}, "LicenseRef-llama3.1"),
        ("---\nlicense: other\nlicense_name: Our own terms\n---\n", {}, "LicenseRef-Our-own-terms"),
        ("---\nlicense: unknown\n---\n", {"license": "mit"}, "unknown"),
        ("---\nlanguage: en\n---\n", {"license": "mit"}, "MIT"),
        ("---\n: [no yaml\n---\n", {}, "unknown"),
        ("# A model\n\nlicense: mit\n", {}, "unknown"),
        ("", {}, "unknown"),
    ],
)
def test_a_model_directory_names_its_licence(
    tmp_path: Path, card: str, config: dict[str, str], found: str
) -> None:
    (tmp_path / "README.md").write_text(card)
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert declared_license(tmp_path) == found


def test_an_empty_directory_names_none(tmp_path: Path) -> None:
    assert declared_license(tmp_path) == "unknown"


def test_what_is_taken_without_the_list_is_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = licenses.USUAL - {licenses.UNKNOWN, ""}
    monkeypatch.setattr(licenses, "USUAL", set())
    assert {spdx(name) for name in usual} == usual
