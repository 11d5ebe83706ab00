"""The artifact store: never half-written, never twice, never tampered with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.artifacts import ArtifactStore, LineageError, Recipe


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


def recipe(**changes: Any) -> Recipe:
    defaults: dict[str, Any] = {
        "kind": "thing",
        "inputs": {"data": "d1"},
        "spec": {"rate": 0.1},
        "code_version": "1",
    }
    return Recipe(**(defaults | changes))


def write(text: str = "hello") -> Any:
    def produce(directory: Path) -> Mapping[str, Any]:
        (directory / "sub").mkdir()
        (directory / "sub" / "file.txt").write_text(text)
        return {"characters": len(text)}

    return produce


def test_an_artifact_is_built_once(store: ArtifactStore) -> None:
    first = store.build(recipe(), write())
    second = store.build(recipe(), write("other, but never called"))
    assert (first.reused, second.reused) == (False, True)
    assert first == second
    assert second.summary == {"characters": 5}
    assert (store.path(second) / "sub" / "file.txt").read_text() == "hello"


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": {"data": "d2"}},
        {"spec": {"rate": 0.2}},
        {"code_version": "2"},
        {"libraries": ("pytest",)},
        {"kind": "other"},
    ],
)
def test_whatever_made_it_names_it(change: dict[str, Any]) -> None:
    assert recipe(**change).key != recipe().key


def test_the_order_of_settings_does_not_matter() -> None:
    assert recipe(spec={"a": 1, "b": 2}).key == recipe(spec={"b": 2, "a": 1}).key


def test_a_failed_build_leaves_nothing(store: ArtifactStore) -> None:
    def fail(directory: Path) -> Mapping[str, Any]:
        (directory / "half").write_text("written")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        store.build(recipe(), fail)
    assert [path for path in store.root.rglob("*") if path.is_file()] == []
    assert store.build(recipe(), write()).reused is False


def test_the_same_content_from_another_recipe_has_the_same_digest(store: ArtifactStore) -> None:
    one, two = store.build(recipe(), write()), store.build(recipe(code_version="2"), write())
    assert one.key != two.key
    assert one.digest == two.digest


@pytest.mark.parametrize("damage", ["flip", "remove", "add", "link", "manifest"])
def test_a_changed_artifact_is_refused(store: ArtifactStore, damage: str) -> None:
    artifact = store.build(recipe(), write())
    directory = store.path(artifact)
    file = directory / "sub" / "file.txt"
    if damage == "flip":
        file.write_text("hellp")
    elif damage == "remove":
        file.unlink()
    elif damage == "add":
        (directory / "extra").write_text("x")
    elif damage == "link":
        file.unlink()
        file.symlink_to("/etc/hostname")
    else:
        manifest = directory / "manifest.json"
        manifest.write_bytes(manifest.read_bytes().replace(b'"size":5', b'"size":6'))
    with pytest.raises(LineageError):
        store.path(artifact)


def test_a_missing_artifact_names_the_remedy(store: ArtifactStore, tmp_path: Path) -> None:
    artifact = ArtifactStore(tmp_path / "elsewhere").build(recipe(), write())
    with pytest.raises(LineageError, match="Materialise the asset"):
        store.path(artifact)
