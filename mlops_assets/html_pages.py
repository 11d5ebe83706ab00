"""The jinja environment of every HTML page that we write.

What customers and models wrote is shown as text, whatever it holds; a name that a template
does not know is an error, not a gap.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2.sandbox import SandboxedEnvironment
    from markupsafe import Markup


def page_environment(
    templates: Path, filters: Mapping[str, Callable[..., Any]]
) -> "SandboxedEnvironment":
    """A sandbox with autoescaping over the templates of one directory."""
    from jinja2 import FileSystemLoader, StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(
        loader=FileSystemLoader(templates),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"commands": _commands, **filters}
    return environment


def _commands(text: str) -> "Markup":
    """The text with what stands between backticks as code."""
    from markupsafe import Markup

    code = Markup("<code>{}</code>")
    parts = re.split(r"`([^`]+)`", text)  # what stood between backticks is every second one
    return Markup("").join(code.format(part) if i % 2 else part for i, part in enumerate(parts))
