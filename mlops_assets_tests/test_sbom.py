"""The bill of materials: whole, valid by CycloneDX's own schema, the same bytes each time."""

import hashlib
import importlib.metadata
import json
import subprocess
import sys
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from packaging.utils import canonicalize_name

from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home
from mlops_assets.promotion import bill_of_materials
from mlops_assets.promotion.bill_of_materials import render_bill, stated_licenses
from mlops_assets_tests.submissions import make_submission


@pytest.fixture
def distributions() -> None:
    """All of them: here they are what is looked at."""


@pytest.fixture
def bill(home: Home) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(render_bill(make_submission(home)))
    return content


def by_name(bill: dict[str, Any]) -> dict[str, Any]:
    return {component["name"]: component for component in bill["components"]}


def test_every_installed_distribution_is_listed_with_its_package_url(bill: dict[str, Any]) -> None:
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    found = by_name(bill)
    for distribution in importlib.metadata.distributions():
        component = found[canonicalize_name(distribution.name)]
        assert component["version"] == distribution.version
        assert component["purl"].startswith(f"pkg:pypi/{component['name']}@")
    licensed = [name for name, component in found.items() if component.get("licenses")]
    assert len(licensed) > 0.9 * len(found)


def test_models_and_data_are_components_with_their_hashes(home: Home) -> None:
    submission = make_submission(home)
    bundle = submission.evaluated.bundle
    bill = json.loads(render_bill(submission))
    found = by_name(bill)
    base, adapter, data = (
        found[name] for name in ("tiny", "support-tickets-adapter", "support-tickets-training-data")
    )
    assert (base["type"], adapter["type"], data["type"]) == (
        *("machine-learning-model",) * 2,
        "data",
    )
    assert base["hashes"] == [{"alg": "SHA-256", "content": bundle.base.digest}]
    assert adapter["hashes"] == [{"alg": "SHA-256", "content": bundle.adapter.digest}]
    assert data["hashes"] == [{"alg": "MD5", "content": bundle.versions.data}]
    assert base["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert data["licenses"] == [{"license": {"id": "CC-BY-4.0"}}]
    assert bill["metadata"]["component"]["version"] == bundle.digest
    needs = {each["ref"]: set(each.get("dependsOn", ())) for each in bill["dependencies"]}
    assert needs[adapter["bom-ref"]] == {base["bom-ref"], data["bom-ref"]}
    assert len(needs[bill["metadata"]["component"]["bom-ref"]]) == len(bill["components"]) - 1


def test_an_unknown_licence_is_left_out_not_guessed(home: Home) -> None:
    bill = json.loads(render_bill(make_submission(home, base_license="unknown")))
    assert "licenses" not in by_name(bill)["tiny"]


def test_the_same_candidate_gives_the_same_bytes_in_every_process(home: Home) -> None:
    program = (
        "import hashlib, pathlib, sys; from mlops_assets.home import Home;"
        "from mlops_assets_tests.submissions import make_submission;"
        "from mlops_assets.promotion.bill_of_materials import render_bill;"
        "bill = render_bill(make_submission(Home(pathlib.Path(sys.argv[1]))));"
        "print(hashlib.sha256(bill).hexdigest())"
    )
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, str(home.root)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    ours = render_bill(make_submission(home))
    assert ended.stdout.strip() == hashlib.sha256(ours).hexdigest()
    assert b"timestamp" not in ours
    assert json.loads(ours)["serialNumber"].startswith("urn:uuid:")


def test_another_candidate_has_another_serial_number(home: Home) -> None:
    bills = [json.loads(render_bill(make_submission(home, seed))) for seed in ("a", "b")]
    assert bills[0]["serialNumber"] != bills[1]["serialNumber"]


def test_a_bill_that_is_not_valid_is_refused() -> None:
    with pytest.raises(LineageError, match=r"not valid CycloneDX 1\.6"):
        bill_of_materials._validate('{"bomFormat": "CycloneDX", "specVersion": "1.6", "extra": 1}')


@pytest.mark.parametrize(
    ("headers", "stated"),
    [
        ({"License-Expression": "MIT OR Apache-2.0", "License": "x"}, ["MIT OR Apache-2.0"]),
        ({"Classifier": "License :: OSI Approved :: MIT License"}, ["MIT License"]),
        ({"Classifier": "License :: OSI Approved", "License": "BSD"}, ["BSD"]),
        ({"License": "Apache License\nVersion 2.0\n..."}, ["Apache License"]),
        ({"License": "UNKNOWN"}, []),
        ({}, []),
    ],
)
def test_what_a_distribution_says_of_its_licence(
    headers: dict[str, str], stated: list[str]
) -> None:
    metadata = Message()
    for name, value in headers.items():
        metadata[name] = value
    assert stated_licenses(metadata) == stated
