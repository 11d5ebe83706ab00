"""Profiles: Dagster run-config files in ``profiles/``, one of which gives the defaults.

``MLOPS_PROFILE`` names a file or a name in ``profiles/`` (default ``tiny``). There is no
second configuration system: ``dagster job execute -c`` takes the same files.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from mlops_assets.artifacts import LineageError

PROJECT = Path(__file__).resolve().parent.parent
DEFAULT_MODEL = "support-tickets"
SECTIONS = {"ops", "resources", "execution", "loggers"}


def profile_path() -> Path:
    """The file that ``MLOPS_PROFILE`` names. Raises LineageError when there is none."""
    return find_profile(os.environ.get("MLOPS_PROFILE") or "tiny", "MLOPS_PROFILE")


def find_profile(name: str, named_by: str) -> Path:
    """The profile of this name, or the file at this path.

    Raises LineageError when there is none; ``named_by`` says where the name stands.
    """
    named = PROJECT / "profiles" / f"{name}.yaml"
    for path in (named, Path(name)):
        if path.is_file():
            return path
    known = ", ".join(sorted(path.stem for path in named.parent.glob("*.yaml")))
    raise LineageError(
        f"{named_by} names {name!r}, which is neither a file nor in {named.parent}.",
        f"Choose one of {known}, or give a path.",
    )


def load_profile(path: Path | None = None) -> dict[str, Any]:
    """A profile as Dagster's run config. Raises LineageError for anything but a mapping."""
    path = path or profile_path()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise LineageError(f"The profile {path} cannot be read: {error}.", "Mend it.") from error
    if not isinstance(content, dict) or not set(content) <= SECTIONS:
        raise LineageError(
            f"The profile {path} may hold only the keys {', '.join(sorted(SECTIONS))}.",
            "Write settings of a stage under ops: ASSET: config: as profiles/tiny.yaml does.",
        )
    return content


def asset_config(asset: str, profile: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The settings of one asset in the profile in force, or in the given one."""
    profile = load_profile() if profile is None else profile
    return dict((profile.get("ops") or {}).get(asset, {}).get("config") or {})


def model_name() -> str:
    """The model's name in registry, ledger and gateway, by the profile in force."""
    workspace = (load_profile().get("resources") or {}).get("workspace") or {}
    return str((workspace.get("config") or {}).get("model", DEFAULT_MODEL))


def restrict(profile: Mapping[str, Any], assets: Iterable[str]) -> dict[str, Any]:
    """The profile without the settings of assets that a job does not hold."""
    wanted = set(assets)
    ops = {name: value for name, value in (profile.get("ops") or {}).items() if name in wanted}
    return {**profile, "ops": ops}


def check_settings(run_config: Mapping[str, Any], specs: Mapping[str, type[BaseModel]]) -> None:
    """Validate every asset's settings at once, before any work is done.

    Dagster checks names and types when a run starts, but bounds only when a step starts.
    Raises LineageError that names each bad setting and what it should be.
    """
    problems: list[str] = []
    for asset, value in (run_config.get("ops") or {}).items():
        settings = (value or {}).get("config") or {}
        if asset not in specs:
            problems.append(f"ops.{asset}: there is no such asset, or it takes no settings")
            continue
        problems += _problems(asset, specs[asset], settings)
    if problems:
        raise LineageError(
            "The profile is not valid: " + "; ".join(problems) + ".",
            "Correct these settings in the profile and run again.",
        )


def _problems(asset: str, spec: type[BaseModel], settings: Mapping[str, Any]) -> list[str]:
    try:
        spec(**settings)
    except ValidationError as error:
        return [_explain(asset, detail) for detail in error.errors()]
    return []


def _explain(asset: str, detail: Any) -> str:
    where = ".".join(str(part) for part in (asset, *detail["loc"]))
    if detail["type"] == "extra_forbidden":
        return f"{where}: unknown key"
    if detail["type"] == "value_error":
        return f"{where}: {detail['ctx']['error']}"
    return f"{where} = {detail['input']!r}: {detail['msg'].lower()}"
