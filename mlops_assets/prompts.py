"""System prompts: files in ``prompts/``, rendered once and sealed as artifacts.

A prompt is rendered when a model is trained, never when a request arrives: no text of a customer
is ever a template, and what was approved is the very text that is served. Files come from whoever
opens a pull request, so they are rendered in jinja2's sandbox, which here knows no function, no
arithmetic and six filters. Nothing in it can grow beyond ``LARGEST``, and loops stand at most two
deep: a small file is rendered at once, whatever it says.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlops_assets.artifacts import Artifact, ArtifactStore, LineageError, Recipe
from mlops_assets.code_digest import code_digest
from mlops_assets.profiles import PROJECT

KIND = "prompt"
DIRECTORY = PROJECT / "prompts"
NAME = "^[a-z0-9][a-z0-9_-]{0,63}$"
NONE = "none"
FILE, SYSTEM = "prompt.yaml", "system.txt"
LARGEST = 65_536  # bytes of a file, characters of what it renders to
DEEPEST = 2  # loops in one another
BUFFERS = (nodes.AssignBlock, nodes.Concat, nodes.FilterBlock)  # grow before anybody can look
FILTERS = ("items", "join", "length", "lower", "title", "upper")
GIVEN = "labels"
"""The variable that the data fills: the labels that each field of the answer may have."""

EMPTY = hashlib.sha256(b"").hexdigest()
"""What bundles from before prompts were artifacts say: nothing was added."""


class Prompt(BaseModel):
    """A prompt file. Every declared variable is used, and every used one is declared."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = Field(pattern=NAME, description="The file's own name, without `.yaml`.")
    version: int = Field(ge=1, description="Counts the prompt's revisions, for people.")
    docs: str = Field(min_length=1, max_length=2000, description="What it is for.")
    variables: dict[str, str | list[str]] = Field(
        default_factory=dict, max_length=100, description="Texts, or lists of them, by name."
    )
    system: str = Field(
        max_length=LARGEST, description="jinja2 template of the system message; empty adds none."
    )


class _Sandbox(ImmutableSandboxedEnvironment):
    """Prints variables, branches and loops over them; calls and computes nothing."""

    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def is_safe_callable(self, obj: Any) -> bool:  # noqa: ARG002
        return False

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:  # noqa: ARG002
        raise SecurityError(f"arithmetic ({operator}) is not allowed")


def _join(values: Iterable[object], separator: str = "") -> str:
    texts = list(map(str, values))
    if sum(map(len, texts)) + len(separator) * len(texts) > LARGEST:
        raise SecurityError(f"join makes more than {LARGEST:,} characters")
    return separator.join(texts)


def read_prompt(name: str) -> Prompt:
    """The prompt file of this name. Raises LineageError when it is missing or not valid."""
    prompt, _ = _read(name)
    return prompt


def render_prompt(prompt: Prompt, labels: Mapping[str, Sequence[str]]) -> str:
    """The system message, or nothing. Raises LineageError when the template cannot be rendered."""
    environment = _Sandbox(
        undefined=jinja2.StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.clear()
    environment.filters = {name: environment.filters[name] for name in FILTERS} | {"join": _join}
    values = {GIVEN: {field: list(known) for field, known in labels.items()}}
    try:
        tree = environment.parse(prompt.system)
        _check_growth(tree)
        _check_variables(prompt, find_undeclared_variables(tree))
        parts = environment.from_string(prompt.system).generate({**prompt.variables, **values})
        text = ""
        while len(text) <= LARGEST and (part := next(parts, None)) is not None:
            text += part
    except (jinja2.TemplateError, TypeError, ValueError, RecursionError) as error:
        raise LineageError(
            f"The prompt {prompt.name!r} cannot be rendered: {error}.",
            "Correct its `system`; a template may print, branch and loop over its variables.",
        ) from error
    if len(text) > LARGEST:
        raise LineageError(
            f"The prompt {prompt.name!r} renders to more than {LARGEST:,} characters.",
            "Shorten it.",
        )
    return text.strip()


def prompt_text(name: str, labels: Mapping[str, Sequence[str]]) -> str:
    """What the prompt of this name says for these labels. Raises LineageError."""
    return render_prompt(read_prompt(name), labels)


def seal_prompt(store: ArtifactStore, name: str, labels: Mapping[str, Sequence[str]]) -> Artifact:
    """The prompt as an artifact: its file, and the text that it renders to.

    Any byte of either is part of its digest. Raises LineageError as the functions above.
    """
    prompt, content = _read(name)
    system = render_prompt(prompt, labels)
    rendered = hashlib.sha256(system.encode()).hexdigest()
    recipe = Recipe(
        KIND,
        {"file": hashlib.sha256(content).hexdigest(), "rendered": rendered},
        {},
        code_digest(__name__),
    )

    def produce(directory: Path) -> dict[str, Any]:
        (directory / FILE).write_bytes(content)
        (directory / SYSTEM).write_text(system, encoding="utf-8")
        return {"name": prompt.name, "version": prompt.version, "characters": len(system)}

    return store.build(recipe, produce)


def system_text(store: ArtifactStore, prompt: Artifact | str) -> str:
    """The system message of a bundle or an adapter, after its bytes were verified.

    Raises LineageError when it is missing, was changed, or names a prompt that is no artifact.
    """
    if isinstance(prompt, Artifact):
        return (store.path(prompt) / SYSTEM).read_text("utf-8")
    if prompt != EMPTY:
        raise LineageError(
            f"The prompt {prompt[:12]} is known by its digest alone.",
            "Materialise `lora_adapter` and `eval_report` again.",
        )
    return ""


def _read(name: str) -> tuple[Prompt, bytes]:
    path = DIRECTORY / f"{name}.yaml"
    try:
        content = path.read_bytes()
        if len(content) > LARGEST:
            raise LineageError(f"{path} has {len(content):,} bytes.", f"Shorten it to {LARGEST:,}.")
        prompt = Prompt.model_validate(yaml.load(content, _UniqueKeys))  # noqa: S506 (a SafeLoader)
    except FileNotFoundError as error:
        known = ", ".join(sorted(found.stem for found in DIRECTORY.glob("*.yaml")))
        raise LineageError(
            f"There is no prompt {name!r} in {DIRECTORY}.", f"Choose one of {known}, or write it."
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise LineageError(f"The prompt {path} cannot be read: {error}.", "Mend it.") from error
    except ValidationError as error:
        raise LineageError(
            f"The prompt {path} is not valid: {_explain(error)}.",
            "docs/prompts.md has the table of its keys.",
        ) from error
    if prompt.name != name:
        raise LineageError(
            f"The prompt {path} calls itself {prompt.name!r}.", "Give it the file's name."
        )
    return prompt, content


def _check_growth(tree: nodes.Template) -> None:
    if next(tree.find_all(BUFFERS), None):
        raise SecurityError("`~`, and blocks that set or filter a text, are not allowed")
    if _loops(tree) > DEEPEST:
        raise SecurityError(f"loops stand more than {DEEPEST} deep")


def _loops(node: nodes.Node) -> int:
    inner = max(map(_loops, node.iter_child_nodes()), default=0)
    return inner + isinstance(node, nodes.For)


def _check_variables(prompt: Prompt, used: set[str]) -> None:
    declared = prompt.variables.keys()
    if GIVEN in declared:
        raise LineageError(
            f"The prompt {prompt.name!r} declares `{GIVEN}`, which the data fills.",
            "Give the variable another name.",
        )
    if unknown := sorted(used - declared - {GIVEN}):
        raise LineageError(
            f"The prompt {prompt.name!r} uses {', '.join(unknown)}, which it does not declare.",
            f"Add it to its `variables`, or correct the name; `{GIVEN}` is given.",
        )
    if unused := sorted(declared - used):
        raise LineageError(
            f"The prompt {prompt.name!r} declares {', '.join(unused)} and does not use it.",
            "Take it out of `variables`, or use it in `system`.",
        )


def _explain(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, detail['loc'])) or 'the file'}: "
        + ("unknown key" if detail["type"] == "extra_forbidden" else detail["msg"].lower())
        for detail in error.errors()
    )


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that stands twice: a reviewer reads the first, YAML takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := sorted({str(key) for key in keys if keys.count(key) > 1}):
            raise yaml.constructor.ConstructorError(
                None, None, f"{twice[0]} stands twice", node.start_mark
            )
        return super().construct_mapping(node, deep)
