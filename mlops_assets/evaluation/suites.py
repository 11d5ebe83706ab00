"""Suites: questions with what counts as a good answer, as data that anybody may add.

A suite is a YAML file that says what is asked and how it is scored, and a JSONL file of items
beside it. Nothing in either is code: YAML is read safely, metrics are names of ours, a schema
may not point outside itself. What is misspelt is refused with its file and line, because a
suite that silently asks nothing would pass for a good one.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from mlops_assets.artifacts import LineageError, canonical_json, digest_json
from mlops_assets.evaluation.suite_format import Item, SuiteSpec
from mlops_assets.home import Home
from mlops_assets.metrics import parse_object
from mlops_assets.profiles import PROJECT
from mlops_assets.refs import Row

NAME = re.compile(r"[a-z][a-z0-9_]{0,49}")
RESERVED = "test"  # the test split's name among the suites
LARGEST_YAML, LARGEST_ITEMS = 1 << 16, 1 << 26  # bytes
MOST_ITEMS = 20_000

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Suite:
    """A suite as it was read, and why it does not apply, if it does not."""

    name: str
    spec: SuiteSpec
    items: tuple[Item, ...]
    """None of a suite that does not apply: they are not read then."""
    digest: str
    """SHA-256 over what the suite says and its items, in their order."""
    unfit: str = ""
    """Why this task's models cannot be asked; empty where they can."""

    @property
    def rows(self) -> list[Row]:
        """The items in the form in which a split's rows are answered."""
        return [item.row() for item in self.items]


def read_suites(directory: str, fields: Sequence[str], tools: bool) -> list[Suite]:
    """Every suite in ``directory``, by name; none at all where ``directory`` is empty.

    ``fields`` are those of the task's answers (none: free text), ``tools`` whether its rows
    offer any: a suite made for another kind of answer does not apply. Raises LineageError for
    a directory without suites and for anything in them that cannot be used.
    """
    if not directory:
        return []
    folder = suite_folder(directory)
    files = sorted(folder.glob("*.yaml")) if folder.is_dir() else []
    if not files:
        raise LineageError(
            f"There are no suites in {folder}.",
            "Name a directory with *.yaml suites as eval_report's `suites`, or set it to '' to"
            " measure the test split alone.",
        )
    return [read_suite(file, tuple(fields), tools) for file in files]


def eval_set_version(test: str, suites: Iterable[Suite]) -> str:
    """The version of all that measures: ``test`` alone, or with the suites that apply."""
    measured = {suite.name: suite.digest for suite in suites if not suite.unfit}
    return digest_json({"test": test, "suites": measured}) if measured else test


def suite_folder(directory: str) -> Path:
    """Its absolute path. Raises LineageError for a variable that is not set."""
    filled = os.path.expandvars(Home.fill(directory))
    if "$" in filled:
        raise LineageError(
            f"The directory of suites {directory!r} names an environment variable that is not set.",
            "Set the variable, or change eval_report's `suites` in the profile.",
        )
    return (PROJECT / Path(filled).expanduser()).absolute()


def read_suite_spec(file: Path) -> SuiteSpec:
    """What a suite's YAML file says. Raises LineageError for anything that cannot be used."""
    if not NAME.fullmatch(file.stem) or file.stem == RESERVED:
        raise LineageError(
            f"{file} has a name that no suite may have.",
            f"Use small letters, digits and _, and not {RESERVED!r}.",
        )
    return _checked(SuiteSpec, _read_yaml(file), str(file))


def read_suite(file: Path, fields: tuple[str, ...], tools: bool) -> Suite:
    """The suite of a YAML file; see ``read_suites``."""
    name, spec = file.stem, read_suite_spec(file)
    if reason := _unfit(spec, fields, tools):
        return unfit_suite(name, spec, reason)
    return suite_of(name, spec, _read_items(file.with_name(spec.items), spec))


def suite_of(name: str, spec: SuiteSpec, items: Sequence[Item]) -> Suite:
    """The suite that asks these items."""
    said = [item.model_dump(mode="json") for item in items]
    return Suite(name, spec, tuple(items), digest_json([spec.model_dump(mode="json"), said]))


def unfit_suite(name: str, spec: SuiteSpec, reason: str) -> Suite:
    """The suite that is not asked, and why."""
    return Suite(name, spec, (), digest_json(spec.model_dump(mode="json")), reason)


def _unfit(spec: SuiteSpec, fields: tuple[str, ...], tools: bool) -> str:
    if spec.tools and not tools:
        return "the model's data offers no tools, so it cannot have learnt to call any"
    if spec.fields is not None and set(spec.fields) != set(fields):
        ours = f"the fields {', '.join(fields)}" if fields else "free text"
        theirs = f"the fields {', '.join(spec.fields)}" if spec.fields else "free text"
        return f"the model answers with {ours}, the suite asks for {theirs}"
    return ""


def _read_yaml(file: Path) -> Mapping[str, Any]:
    text = _read_text(file, LARGEST_YAML)
    try:
        content = yaml.load(text, Loader=_PlainLoader)  # noqa: S506 (a SafeLoader, made stricter)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}, line {mark.line + 1}" if mark else str(file)
        problem = getattr(error, "problem", None) or "it is no YAML"
        raise LineageError(f"{where}: {problem}.", "Correct the suite.") from error
    if not isinstance(content, dict):
        raise LineageError(
            f"{file} holds no mapping of settings.", "docs/evaluation.md shows a suite."
        )
    return content


def _read_items(file: Path, spec: SuiteSpec) -> tuple[Item, ...]:
    if not file.exists() and not file.is_symlink():
        raise LineageError(
            f"The items {file} are missing.",
            "Those that we ship are rebuilt by `dvc repro data/dvc.yaml`, and on the shipped data"
            " by the jobs `train` and `lineage`; others lie where they were put (`dvc pull`).",
        )
    items: list[Item] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(_read_text(file, LARGEST_ITEMS).split("\n"), 1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        if (content := parse_object(line)) is None:
            raise LineageError(
                f"{where}: it is no JSON object.",
                "Write one object a line, no key twice, no NaN.",
            )
        item = _checked(Item, content, where)
        if item.id in seen:
            raise LineageError(
                f"{where}: the id {item.id!r} stands in line {seen[item.id]} too.",
                "Give each item its own id.",
            )
        if len(items) == MOST_ITEMS:
            raise LineageError(f"{file} has more than {MOST_ITEMS:,} items.", "Split the suite.")
        seen[item.id] = number
        items.append(item if item.answer_schema else _with_schema(item, spec))
    return tuple(items)


def _with_schema(item: Item, spec: SuiteSpec) -> Item:
    return item.model_copy(update={"answer_schema": spec.answer_schema})


def _read_text(file: Path, largest: int) -> str:
    if file.is_symlink():
        raise LineageError(f"{file} is a symbolic link.", "Put the file itself there.")
    try:
        if file.stat().st_size > largest:
            raise LineageError(f"{file} has more than {largest:,} bytes.", "Split the suite.")
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LineageError(
            f"{file} cannot be read as UTF-8 text ({type(error).__name__}).", "Mend the file."
        ) from error


def _checked(kind: type[Model], content: Mapping[str, Any], where: str) -> Model:
    try:
        canonical_json(content)  # YAML has dates and sets; none of our settings is one
        return kind(**{str(key): value for key, value in content.items()})
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        path = ".".join(map(str, detail["loc"]))
        said = "unknown key" if detail["type"] == "extra_forbidden" else detail["msg"]
        problem = f"{where}: {path}: {said}" if path else f"{where}: {said}"
    except (TypeError, ValueError) as error:
        problem = f"{where}: a value is no JSON ({error})"
    raise LineageError(f"{problem}.", "docs/evaluation.md lists what may be set.")


class _PlainLoader(yaml.SafeLoader):
    """YAML without what makes a small file large or two readers disagree."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases are refused", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        if len(set(map(str, names))) != len(names):
            raise yaml.constructor.ConstructorError(
                None, None, "a key stands twice", node.start_mark
            )
        return super().construct_mapping(node, deep)
