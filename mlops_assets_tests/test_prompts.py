"""System prompts: read strictly, rendered in a sandbox, sealed, and part of the bundle."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from mlops_assets import prompts
from mlops_assets.artifacts import Artifact, ArtifactStore, LineageError, Recipe
from mlops_assets.ledger import PROMOTED, Decision, Ledger
from mlops_assets.profiles import PROJECT
from mlops_assets.prompts import (
    EMPTY,
    SYSTEM,
    Prompt,
    prompt_text,
    read_prompt,
    render_prompt,
    seal_prompt,
    system_text,
)
from mlops_assets.refs import BaseModelRef, ReleaseBundle, Row, SplitsRef
from mlops_assets.template_messages import with_system
from mlops_assets.training.finetune import adapter_recipe
from mlops_assets.training.spec import FinetuneSpec
from mlops_assets_tests.conftest import VERSIONS

LABELS = {"queue": ("billing", "technical")}
FILE: dict[str, Any] = {
    "name": "mine",
    "version": 2,
    "docs": "For a test.",
    "variables": {"company": "Acme"},
    "system": "You work for {{ company }}.",
}


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes ``prompts/mine.yaml``: the file above with changes, or a text."""
    monkeypatch.setattr(prompts, "DIRECTORY", tmp_path)

    def to(text: str | None = None, **changes: object) -> None:
        content = yaml.safe_dump(FILE | changes) if text is None else text
        (tmp_path / "mine.yaml").write_text(content, encoding="utf-8")

    return to


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


@pytest.mark.parametrize("path", sorted((PROJECT / "prompts").glob("*")), ids=lambda p: p.stem)
def test_the_shipped_prompts_are_valid(path: Path) -> None:
    assert path.suffix == ".yaml"
    text = render_prompt(read_prompt(path.stem), LABELS)
    assert (text == "") == (path.stem == "none")


def test_the_labels_are_those_of_the_data() -> None:
    text = prompt_text("label-list", {**LABELS, "priority": ("high", "low")})
    assert text.splitlines() == [
        "Sort the customer's message. Answer with one JSON object and nothing else.",
        "queue: one of billing, technical",
        "priority: one of high, low",
    ]


def test_only_the_file_and_the_data_are_rendered(write: Any) -> None:
    """A value that looks like a template stays text."""
    write(variables={"company": "{{ labels }}"})
    assert prompt_text("mine", LABELS) == "You work for {{ labels }}."


@pytest.mark.parametrize(
    "system",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ company | attr('__class__') }}",
        "{{ labels.items.__globals__ }}",
        "{{ self.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ labels.update({'queue': []}) }}",
        "{{ '{0.__class__}'.format(company) }}",
        "{{ company.ljust(1000000000) }}",
        "{{ company * 1000000000 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ company | center(1000000000) }}",
        "{% for i in range(100000) %}x{% endfor %}",
        "{% include 'none.yaml' %}",
        "{% import 'os' as os %}",
        "{% macro twice() %}x{% endmacro %}{{ twice() }}",
        "{{ lipsum() }}",
        "{% for a in company %}{% for b in company %}{% for c in company %}x"
        "{% endfor %}{% endfor %}{% endfor %}",
        "{% set x = company ~ company %}" + "{% set x = x ~ x %}" * 60,
        "{{ company" + " | join(company)" * 60 + " }}",
        "{% set x %}x{% endset %}",
        "{% filter upper %}x{% endfilter %}",
    ],
)
def test_a_template_cannot_leave_its_sandbox(write: Any, system: str) -> None:
    write(system="{{ company }}" + system)
    with pytest.raises(LineageError, match="'mine'"):
        prompt_text("mine", LABELS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"system": "{{ company }} {{ user }}"}, "uses user, which it does not declare"),
        ({"system": "{{ company }} {{ labels.topic }}"}, "no attribute 'topic'"),
        ({"system": "Hello."}, "declares company and does not use it"),
        ({"variables": {"labels": "x"}, "system": "{{ labels }}"}, "which the data fills"),
        ({"system": "{{ company"}, "cannot be rendered"),
        ({"temperature": 1}, "temperature: unknown key"),
        ({"version": "two"}, "version: .*integer"),
        ({"version": True}, "version: .*integer"),
        ({"version": 0}, "version: .*greater than"),
        ({"docs": ""}, "docs: .*at least 1"),
        ({"variables": {"company": 7}}, "variables.company"),
        ({"name": "../mine"}, "name: .*pattern"),
        ({"name": "other"}, "calls itself 'other'"),
        ({"text": "name: mine\nname: mine\n"}, "name stands twice"),
        ({"text": "[1, 2]"}, "the file: "),
        ({"text": "a: : b"}, "cannot be read"),
        ({"text": "!!python/object/apply:os.system [id]"}, "cannot be read"),
        ({"text": "# " + "x" * 70_000}, "bytes"),
    ],
)
def test_a_file_that_is_no_prompt_is_refused(
    write: Any, changes: dict[str, Any], message: str
) -> None:
    write(**changes)
    with pytest.raises(LineageError, match=message):
        prompt_text("mine", LABELS)


def test_a_prompt_that_is_not_there_lists_the_others() -> None:
    with pytest.raises(LineageError, match=r"no prompt 'nun'.*none"):
        read_prompt("nun")


def test_a_prompt_that_renders_to_too_much_is_refused() -> None:
    name = "x" * 1000
    prompt = Prompt(
        name="long",
        version=1,
        docs="Long.",
        system="{% for value in labels.queue %}{{ value }}{% endfor %}",
    )
    with pytest.raises(LineageError, match="renders to more than 65,536 characters"):
        render_prompt(prompt, {"queue": [name] * 100})


OWN = {"role": "system", "content": "Be brief."}
ASKED = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"})


@pytest.mark.parametrize(
    ("system", "messages", "expected"),
    [
        ("", ASKED, ASKED),
        ("", (OWN, *ASKED), (OWN, *ASKED)),
        ("Sort.", ASKED, ({"role": "system", "content": "Sort."}, *ASKED)),
        ("Sort.", (OWN, *ASKED), ({"role": "system", "content": "Sort.\n\nBe brief."}, *ASKED)),
    ],
)
def test_the_prompt_comes_before_what_a_row_says(system: str, messages: Any, expected: Any) -> None:
    assert with_system(system, Row("r", "", "g", messages, {})).messages == expected


def test_every_byte_of_the_file_counts(write: Any, store: ArtifactStore) -> None:
    write()
    first = seal_prompt(store, "mine", LABELS)
    assert (first.summary["name"], first.summary["version"]) == ("mine", 2)
    assert system_text(store, first) == "You work for Acme."
    assert seal_prompt(store, "mine", {}) == first
    write(docs="For another test.")
    assert seal_prompt(store, "mine", LABELS).digest != first.digest


def test_only_what_the_model_reads_decides_what_is_trained(
    write: Any, store: ArtifactStore
) -> None:
    inputs = (
        SplitsRef(_artifact(store, "dataset_splits"), VERSIONS, {}, LABELS),
        BaseModelRef(_artifact(store, "base_model"), "base", 1),
    )
    keys = {}
    for change in ({}, {"docs": "Other."}, {"system": "{{ company }}!"}):
        write(**change)
        keys[str(change)] = adapter_recipe(*inputs, FinetuneSpec(prompt="mine")).key
    first, documented, other = keys.values()
    assert first == documented
    assert other != first


def test_a_flipped_bit_is_found(write: Any, store: ArtifactStore) -> None:
    write()
    prompt = seal_prompt(store, "mine", LABELS)
    path = store.path(prompt) / SYSTEM
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    with pytest.raises(LineageError, match=r"changed after it was built \(system.txt"):
        system_text(store, prompt)


def test_the_prompt_is_part_of_the_bundle(write: Any, store: ArtifactStore) -> None:
    write()
    bundle = _bundle(store, seal_prompt(store, "mine", LABELS))
    write(version=3)
    assert _bundle(store, seal_prompt(store, "mine", LABELS)).digest != bundle.digest


@pytest.mark.parametrize("sealed", [True, False])
def test_the_ledger_reads_bundles_with_a_prompt_and_older_ones(
    write: Any, store: ArtifactStore, tmp_path: Path, sealed: bool
) -> None:
    write()
    bundle = _bundle(store, seal_prompt(store, "mine", LABELS) if sealed else EMPTY)
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    ledger.append(Decision("key", PROMOTED, "better", "m", 1, bundle, {}, 0))
    entry = ledger.champion("m")
    assert entry is not None
    assert entry.decision.bundle == bundle
    assert entry.decision.bundle.digest == bundle.digest
    expected = "You work for Acme." if sealed else ""
    assert system_text(store, entry.decision.bundle.prompt) == expected


def test_a_digest_alone_is_no_prompt(store: ArtifactStore) -> None:
    with pytest.raises(LineageError, match="known by its digest alone"):
        system_text(store, "a" * 64)


def _artifact(store: ArtifactStore, kind: str) -> Artifact:
    return store.build(Recipe(kind, {}, {}, "1"), lambda _: {})


def _bundle(store: ArtifactStore, prompt: Artifact | str) -> ReleaseBundle:
    base, adapter = _artifact(store, "base_model"), _artifact(store, "lora_adapter")
    return ReleaseBundle(base, adapter, "t" * 64, prompt, {}, VERSIONS)
