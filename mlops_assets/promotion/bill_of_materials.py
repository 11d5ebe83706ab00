"""The software bill of materials: everything that a version was made with, as CycloneDX 1.6.

The installed distributions with their licences and package URLs, Python itself, the base model,
the adapter and the data with their hashes. The same environment and the same candidate give
the same bytes: the serial number is made from the content, and the only time in it is none.
"""

import functools
import importlib.metadata
import json
import platform
import re
import uuid
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from mlops_assets.artifacts import LineageError, digest_json
from mlops_assets.licenses import UNKNOWN
from mlops_assets.promotion.submission import Submission

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

BILL = "bom.cdx.json"
CLASSIFIER = "License :: "
LONGEST_NAME = 100  # characters; some distributions put the whole text where its name belongs
MD5 = re.compile("[0-9a-f]{32}")


def render_bill(submission: Submission) -> bytes:
    """``bom.cdx.json``. Raises LineageError when it does not match CycloneDX's own schema."""
    from cyclonedx.model.bom import Bom
    from cyclonedx.output import make_outputter
    from cyclonedx.schema import OutputFormat, SchemaVersion

    model, base, adapter, data = _models(submission)
    software = _software()
    bill = Bom(components=[base, adapter, data, *software])
    bill.metadata.component = model
    bill.register_dependency(model, [base, adapter, *software])
    bill.register_dependency(adapter, [base, data])
    text = make_outputter(bill, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string()
    content = _timeless(json.loads(text))
    checked = json.dumps(content, indent=1, sort_keys=True)
    _validate(checked)
    return checked.encode()


def _timeless(content: dict[str, Any]) -> dict[str, Any]:
    """Without the time of writing, and numbered by what it says instead of by chance."""
    del content["metadata"]["timestamp"], content["serialNumber"]
    return content | {"serialNumber": uuid.uuid5(uuid.NAMESPACE_OID, digest_json(content)).urn}


def _validate(text: str) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise LineageError(
            f"The bill of materials is not valid CycloneDX 1.6: {str(error.data)[:300]}.",
            "A distribution's metadata is malformed: install that distribution again.",
        )


def _models(
    submission: Submission,
) -> "tuple[Component, Component, Component, Component]":
    """The version itself, its base model, its adapter and the data that trained it."""
    from cyclonedx.model.component import ComponentType

    bundle, weights = submission.evaluated.bundle, ComponentType.MACHINE_LEARNING_MODEL
    return (
        _described(weights, submission.name, bundle.digest, sha256=bundle.digest),
        _described(
            weights,
            submission.base.name,
            bundle.base.key,
            sha256=bundle.base.digest,
            license=submission.base.license,
        ),
        _described(
            weights, f"{submission.name}-adapter", bundle.adapter.key, sha256=bundle.adapter.digest
        ),
        _described(
            ComponentType.DATA,
            f"{submission.name}-training-data",
            bundle.versions.data,
            md5=bundle.versions.data,
            license=submission.data_license,
        ),
    )


def _described(
    kind: Any, name: str, version: str, *, sha256: str = "", md5: str = "", license: str = ""
) -> "Component":
    """A component that no package index knows, with the hash that names it."""
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.component import Component

    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=sha256)] if sha256 else []
    if MD5.fullmatch(md5):
        hashes.append(HashType(alg=HashAlgorithm.MD5, content=md5))
    # DVC's hash of a directory is that of its listing: no hash of the content, but its name.
    named = [Property(name="dvc:hash", value=md5)] if md5 else []
    stated = [license] if license and license != UNKNOWN else []
    return Component(
        type=kind,
        name=name,
        version=version,
        bom_ref=f"{name}@{version}",
        hashes=hashes,
        properties=named,
        licenses=_licenses(stated),
    )


@functools.cache
def _software() -> "tuple[Component, ...]":
    """Python and every installed distribution, each once, by name."""
    return tuple(_read_environment())


def _read_environment() -> "Iterator[Component]":
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL
    from packaging.utils import canonicalize_name

    python = platform.python_version()
    yield Component(
        type=ComponentType.PLATFORM,
        name=platform.python_implementation(),
        version=python,
        bom_ref=f"python@{python}",
        licenses=_licenses(["PSF-2.0"]),
    )
    found = {canonicalize_name(each.name): each for each in importlib.metadata.distributions()}
    for name, distribution in sorted(found.items()):
        purl = PackageURL("pypi", name=name, version=distribution.version)
        yield Component(
            type=ComponentType.LIBRARY,
            name=name,
            version=distribution.version,
            purl=purl,
            bom_ref=purl.to_string(),
            licenses=_licenses(stated_licenses(distribution.metadata)),
        )


def stated_licenses(metadata: Any) -> list[str]:
    """What a distribution says of its licence: an SPDX expression (PEP 639), else its
    classifiers, else the old free text; empty where it says nothing."""
    if expression := metadata.get("License-Expression"):
        return [str(expression).strip()]
    classified = [
        str(line).rpartition(" :: ")[2]
        for line in metadata.get_all("Classifier") or []
        if str(line).startswith(CLASSIFIER) and not str(line).endswith("OSI Approved")
    ]
    if classified:
        return sorted(set(classified))
    text = str(metadata.get("License") or "").strip()
    first = text.splitlines()[0].strip() if text else ""
    return [first[:LONGEST_NAME]] if first and first.upper() != UNKNOWN.upper() else []


def _licenses(stated: Iterable[str]) -> list[Any]:
    """As SPDX identifiers or expressions where they are such, else by name.

    CycloneDX takes one expression or several licences, not both.
    """
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model.license import LicenseExpression

    make = LicenseFactory()
    found = [make.make_from_string(text) for text in stated]
    if len(found) > 1:
        return [
            make.make_with_name(each.value) if isinstance(each, LicenseExpression) else each
            for each in found
        ]
    return found
