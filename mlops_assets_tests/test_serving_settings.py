"""The pages about serving tell of each setting once, with the default that it has."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from mlops_assets.profiles import PROJECT
from mlops_assets.serving.gateway_spec import GatewaySpec
from mlops_assets.serving.rollout.release_spec import ReleaseSpec

PAGES = ("gateway", "engines", "litellm", "traffic", "release", "budgets", "cache")
DEFAULTS = {
    name: field.get_default(call_default_factory=True)
    for spec in (GatewaySpec, ReleaseSpec)
    for name, field in spec.model_fields.items()
}


def told(page: str) -> Iterator[tuple[str, str]]:
    """Each setting of the page's tables with the default that stands beside it."""
    text = (PROJECT / "docs" / f"{page}.md").read_text()
    for table in text.split("\n| setting |")[1:]:
        for line in table.split("\n\n", 1)[0].splitlines()[2:]:
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            names = [name.strip("`") for name in cells[0].split(", ")]
            defaults = cells[-1].split(", ") if len(names) > 1 else [cells[-1]]
            if len(defaults) == 1:
                defaults *= len(names)
            yield from zip(names, defaults, strict=True)


def written(default: Any) -> str:
    """A default as the pages write it."""
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, int | float):
        return f"{default:,.10g}"
    if default is None:
        return "no limit"
    if isinstance(default, str):
        return f"`{default}`" if default else "empty"
    return ", ".join(written(each) for each in default) or "none"


@pytest.mark.parametrize("spec", [GatewaySpec, ReleaseSpec])
def test_every_setting_is_told_once(spec: type[BaseModel]) -> None:
    names = [name for page in PAGES for name, _ in told(page)]
    assert sorted(name for name in names if name in spec.model_fields) == sorted(spec.model_fields)


@pytest.mark.parametrize("page", PAGES)
def test_every_setting_told_has_that_default(page: str) -> None:
    for name, default in told(page):
        assert (name, default) == (name, written(DEFAULTS[name]))
