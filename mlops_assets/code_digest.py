"""Which code makes an artifact: a digest over what the code does, not over how it is written.

``code_digest("mlops_assets.training.finetune")`` covers that module and the modules of its own
stage that it imports, transitively and wherever in a file the import stands, and the templates
they name. Each counts as its syntax tree without docstrings: a comment, a docstring or a line
break changes nothing; a constant or a statement does. So a recipe's code version needs no
hand, and nobody can forget it.

Left out on purpose: ``defs.py`` and ``sensors.py`` (they call the stage) and the foundation
(stores, paths, progress, the ``mlops`` command), whose every change would rebuild everything.
What the foundation does decide is counted: the form of the rows, for which ``refs.ROW_FORMAT``
stands, the modules in ``SHARED``, and the detector of personal data, whose version is in the
recipes that use it. Libraries are named by each recipe.

The tree is written down by our own rules, because ``ast.dump`` differs between Python's minor
versions. Parsing all stages takes a tenth of a second, so the results lie in ``__pycache__``
by the hash of the source; where that cannot be written they are computed in every process.
"""

import ast
import functools
import hashlib
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import NamedTuple

from mlops_assets.artifacts import LineageError, digest_file, digest_json
from mlops_assets.refs import ROW_FORMAT

PACKAGE = Path(__file__).resolve().parent
NOT_PRODUCING = ("defs", "sensors")
SHARED = (
    "mlops_assets.metrics",
    "mlops_assets.model_loading",
    "mlops_assets.near_duplicates",
    "mlops_assets.refusals",
    "mlops_assets.template_messages",
    "mlops_assets.threads",
)
"""Modules of the foundation that take part in making what the stages that import them make."""


class Source(NamedTuple):
    """What a module's source says, whatever its comments."""

    digest: str
    imports: list[str]
    """Names under ``mlops_assets`` that it imports: modules, or names inside modules."""
    templates: list[str]
    """File names ending in ``.jinja`` that stand in it."""


@functools.cache
def code_digest(module: str) -> str:
    """SHA-256 of the code behind ``module``, which stands in a stage; 64 hex digits.

    Raises LineageError where the sources are not installed.
    """
    stage = ".".join(module.split(".")[:2])
    parts: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _file(name)
        source = _cache.read(path)
        parts[name] = source.digest
        templates = [path.with_name(found) for found in source.templates]
        parts |= {found.name: digest_file(found) for found in templates if found.is_file()}
        imported = (found for found in source.imports if found.startswith((f"{stage}.", *SHARED)))
        waiting += [found for found in imported if found not in parts and _produces(found)]
    _cache.save()
    return digest_json([ROW_FORMAT, parts])


def read_source(text: str) -> Source:
    """What the source ``text`` says. Raises SyntaxError."""
    imports: set[str] = set()
    templates: set[str] = set()

    def write(node: object) -> str:
        """The tree without places, docstrings and fields that are empty.

        Python's minor versions add fields, which are empty in code that does not use them.
        """
        if isinstance(node, ast.AST):
            imports.update(_imported(node))
            fields = ((name, getattr(node, name, None)) for name in node._fields if name != "ctx")
            kept = [f"{name}={write(value)}" for name, value in fields if value not in (None, [])]
            return f"{type(node).__name__}({' '.join(kept)})"
        if isinstance(node, list):
            return f"[{' '.join([write(item) for item in node if not _is_text(item)])}]"
        if isinstance(node, str) and node.endswith(".jinja"):
            templates.add(node)
        return repr(node)

    digest = hashlib.sha256(write(ast.parse(text)).encode()).hexdigest()
    return Source(digest, sorted(imports), sorted(templates))


def _file(module: str) -> Path:
    path = PACKAGE.joinpath(*module.split(".")[1:]).with_suffix(".py")
    if not path.is_file():
        raise LineageError(
            f"The source of {module} is not at {path}, so nothing can say which code made what.",
            "Install the project with its sources, from its wheel or with pip install -e.",
        )
    return path


def _produces(name: str) -> bool:
    """Whether ``name`` is a module that takes part in making something."""
    path = PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py")
    return path.stem not in NOT_PRODUCING and path.is_file()


def _imported(node: ast.AST) -> list[str]:
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [item.name for item in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = [str(node.module), *(f"{node.module}.{item.name}" for item in node.names)]
    return [name for name in names if name.startswith(f"{PACKAGE.name}.")]


def _is_text(node: object) -> bool:
    """Whether it is a string that stands alone: a docstring, or that of an attribute."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


class _Cache:
    """What sources say, by their hash, kept beside Python's own bytecode."""

    def __init__(self) -> None:
        self._known: dict[str, Source] = {}
        self._file = Path(importlib.util.cache_from_source(__file__)).with_suffix(".json")
        self._loaded = self._grown = False

    def read(self, path: Path) -> Source:
        """What the source at ``path`` says."""
        if not self._loaded:
            self._load()
        text = path.read_bytes()
        key = hashlib.sha256(self._rules + text).hexdigest()
        if key not in self._known:
            self._known[key] = read_source(text.decode("utf-8"))
            self._grown = True
        return self._known[key]

    def save(self) -> None:
        """Keep what was learnt, where Python may keep bytecode too."""
        if not self._grown or sys.dont_write_bytecode:
            return
        temporary = self._file.with_suffix(f".{os.getpid()}")
        try:
            temporary.write_text(json.dumps(self._known), encoding="utf-8")
            temporary.replace(self._file)
        except OSError:  # a place that we may not write: it is only slower
            temporary.unlink(missing_ok=True)
        self._grown = False

    def _load(self) -> None:
        self._loaded = True
        self._rules = Path(__file__).read_bytes()  # other rules give other digests
        try:
            known = json.loads(self._file.read_bytes())
            self._known = {key: Source(*values) for key, values in known.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            self._known = {}


_cache = _Cache()
