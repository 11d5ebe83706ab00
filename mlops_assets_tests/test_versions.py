"""The versions of data, prompts and eval set, and what they say after a reuse."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from mlops_assets.artifacts import ArtifactStore, Recipe, digest_file
from mlops_assets.dataset.splits import SplitSpec, prompts_digest, split
from mlops_assets.ledger import PROMOTED, Decision, Ledger
from mlops_assets.refs import (
    Message,
    ReleaseBundle,
    Row,
    SplitsRef,
    ValidatedRef,
    Versions,
    write_jsonl,
)
from mlops_assets_tests.conftest import VERSIONS

SEARCH = {"type": "function", "function": {"name": "search", "parameters": {}}}


def row(number: int, *before: Message, tools: tuple[dict[str, object], ...] = ()) -> Row:
    asked = {"role": "user", "content": f"question {number}"}
    answered = {"role": "assistant", "content": '{"queue":"a"}'}
    return Row(f"r{number}", "", f"g{number}", (*before, asked, answered), {}, tools=tools)


def system(text: str) -> Message:
    return {"role": "system", "content": text}


BEFORE = [row(1, system("Be brief.")), row(2, system("Be kind.")), row(3)]


@pytest.mark.parametrize(
    ("after", "same"),
    [
        pytest.param(BEFORE[::-1], True, id="another order"),
        pytest.param([*BEFORE, row(4, system("Be kind."))], True, id="another row, known prompt"),
        pytest.param([row(7, *item.prompt[:-1]) for item in BEFORE], True, id="other questions"),
        pytest.param([*BEFORE, row(4, system("Be bold."))], False, id="another prompt"),
        pytest.param(BEFORE[:2], False, id="no row without a prompt any more"),
        pytest.param([*BEFORE, row(4, tools=(SEARCH,))], False, id="a function"),
        pytest.param(
            [*BEFORE, row(4, system("Be brief."), system("Be kind."))], False, id="two turns"
        ),
    ],
)
def test_the_prompts_version_is_what_the_author_says(after: list[Row], same: bool) -> None:
    assert (prompts_digest(after) == prompts_digest(BEFORE)) is same


@pytest.fixture
def validated(tmp_path: Path) -> Callable[..., ValidatedRef]:
    store = ArtifactStore(tmp_path)

    def make(data: str, prompt: str = "Be brief.", rows: int = 40) -> ValidatedRef:
        def produce(directory: Path) -> dict[str, str]:
            write_jsonl(
                directory / "rows.jsonl", (row(number, system(prompt)) for number in range(rows))
            )
            return {"rows_sha256": digest_file(directory / "rows.jsonl")}

        spec = {"data": data, "prompt": prompt, "rows": rows}
        artifact = store.build(Recipe("validated_dataset", {}, spec, "1"), produce)
        return ValidatedRef(artifact, data, rows, rows, {}, {"queue": ("a", "b")})

    return make


@pytest.fixture
def divided(tmp_path: Path, validated: Callable[..., ValidatedRef]) -> Callable[..., SplitsRef]:
    return lambda *args, **options: split(
        ArtifactStore(tmp_path), validated(*args, **options), SplitSpec()
    )


def test_splits_carry_their_versions(tmp_path: Path, divided: Callable[..., SplitsRef]) -> None:
    ref = divided("md5-1")
    test_file = ArtifactStore(tmp_path).path(ref.artifact) / "test.jsonl"
    rows = [row(number, system("Be brief.")) for number in range(3)]
    assert ref.versions == Versions("md5-1", prompts_digest(rows), digest_file(test_file))
    manifest = json.loads((test_file.parent / "manifest.json").read_text())
    assert manifest["summary"]["versions"] == asdict(ref.versions)


def test_each_version_moves_with_its_own_cause(divided: Callable[..., SplitsRef]) -> None:
    first = divided("md5-1")
    same_rows, other_prompt = divided("md5-2"), divided("md5-3", prompt="Be kind.")
    # New data that gives the same rows: nothing downstream is made again, and yet the splits
    # name the data that they really come from.
    assert same_rows.artifact.digest == first.artifact.digest
    assert same_rows.versions == replace(first.versions, data="md5-2")
    assert other_prompt.versions.prompts != first.versions.prompts
    assert other_prompt.versions.eval_set != first.versions.eval_set
    # A train row more leaves the eval set alone: a row's split depends on its group only.
    grown = {divided(f"md5-{rows}", rows=rows).versions.eval_set for rows in range(40, 52)}
    assert first.versions.eval_set in grown
    assert len(grown) < 12


def test_a_ledger_row_from_before_there_were_versions_is_read(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    bundle = ReleaseBundle(*_artifacts(tmp_path), "t", "p", {}, VERSIONS)
    Ledger(url).append(Decision("key", PROMOTED, "better", "m", 1, bundle, {}, 0))
    old = asdict(bundle) | {"dataset": "d" * 32}
    del old["versions"]
    with sa.create_engine(url).begin() as connection:
        connection.execute(sa.text("UPDATE decisions SET bundle = :old"), {"old": json.dumps(old)})
    entry = Ledger(url).champion("m")
    assert entry is not None
    assert entry.decision.bundle.digest == bundle.digest
    assert entry.decision.bundle.versions == Versions("d" * 32, "", "")


def _artifacts(root: Path) -> tuple[object, object]:
    recipes = [Recipe(kind, {}, {}, "1") for kind in ("base_model", "lora_adapter")]
    return tuple(ArtifactStore(root).build(recipe, lambda _: {}) for recipe in recipes)  # type: ignore[return-value]
