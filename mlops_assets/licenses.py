"""Licences as SPDX expressions: the one that settings state, or that a model's own files name.

What nobody states is ``unknown``, and is called that in the model card and in the bill of
materials; nothing is guessed.
"""

import functools
import json
import re
from pathlib import Path
from typing import Any

import yaml

UNKNOWN = "unknown"
OWN = "LicenseRef-"  # how SPDX names a licence that is not on its list
FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*(\n|\Z)", re.DOTALL)
USUAL = {"Apache-2.0", "MIT", "BSD-3-Clause", "CC-BY-4.0", "CC-BY-SA-4.0", "CC0-1.0", UNKNOWN, ""}
"""Taken as they are: loading SPDX's whole list takes a third of a second."""
LARGEST_CARD = 1_000_000  # bytes; a longer README is not read


def spdx(text: str) -> str:
    """``text`` as SPDX writes it, such as ``Apache-2.0 OR MIT``; empty stays empty.

    Raises ValueError for what is neither an SPDX expression nor ``unknown``. A licence that
    SPDX does not list is written ``LicenseRef-NAME``.
    """
    if text in USUAL:
        return text
    from license_expression import ExpressionError

    try:
        parsed = _licensing().parse(text)
        strange = [key for key in _licensing().unknown_license_keys(parsed) if not _is_own(key)]
    except ExpressionError as error:
        raise ValueError(f"{text!r} is no SPDX licence expression") from error
    if strange:
        raise ValueError(
            f"{strange[0]!r} is no licence of SPDX's list; write {OWN}NAME for one that is not"
        )
    return str(parsed.render())


def declared_license(directory: Path) -> str:
    """What a model directory says of its licence: the front matter of its README, else its
    ``config.json``; ``unknown`` where neither does."""
    stated = _front_matter(directory / "README.md")
    named = stated.get("license")
    if named == "other":  # the hub's word for a licence that it does not list
        named = stated.get("license_name")
    return _from_hub(named or _config(directory / "config.json").get("license"))


def _from_hub(named: Any) -> str:
    """The hub's identifiers are SPDX's in small letters, and some of its own."""
    names = [str(name).strip() for name in (named if isinstance(named, list) else [named]) if name]
    if not names or UNKNOWN in names:
        return UNKNOWN
    return " OR ".join(_known(name) for name in names)


def _known(name: str) -> str:
    try:
        return spdx(name)
    except ValueError:
        return OWN + re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")


def _front_matter(card: Path) -> dict[str, Any]:
    if not card.is_file() or card.stat().st_size > LARGEST_CARD:
        return {}
    found = FRONT_MATTER.match(card.read_text(encoding="utf-8", errors="replace"))
    try:
        content = yaml.safe_load(found.group(1)) if found else None
    except yaml.YAMLError:
        return {}
    return content if isinstance(content, dict) else {}


def _config(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_own(key: str) -> bool:
    return re.fullmatch(rf"{OWN}[A-Za-z0-9.-]+", key) is not None


@functools.cache
def _licensing() -> Any:
    from license_expression import get_spdx_licensing

    return get_spdx_licensing()
