"""Versions in the registry: complete or refused, and aliases that follow the ledger.

On a real MLflow with SQLite.
"""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from mlops_assets.artifacts import LineageError, digest_file
from mlops_assets.home import Home
from mlops_assets.promotion import package, registry
from mlops_assets.promotion.bill_of_materials import BILL
from mlops_assets.promotion.safe_files import check_files
from mlops_assets.promotion.submission import RegistrationSpec
from mlops_assets.promotion.version_tags import REQUIRED, VersionTags, make_tags
from mlops_assets.verdicts import GATE
from mlops_assets_tests.submissions import (
    CODE,
    NAME,
    client,
    forbid_mlflow,
    make_submission,
    promote,
    register,
    safetensors,
)

ASKED_FOR = {
    *("mlflow_run", "dagster_run", "dataset_hash", "report_digest", "gate_digest", "gate_verdict"),
    *("base_digest", "adapter_digest", "prompt_digest", "git_commit", "lock_file_hash", "author"),
    *("config_digest", "origin_digest", "base_license", "data_license", "training_tokens"),
    *("training_seconds", "training_flops", "training_energy_kwh", "training_money"),
}


# --- complete or refused ---------------------------------------------------------------------


def test_everything_that_was_asked_for_is_a_required_tag() -> None:
    assert set(REQUIRED) >= ASKED_FOR


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("value", ["", "  "])
def test_no_tag_may_be_missing(name: str, value: str) -> None:
    whole = dict.fromkeys(REQUIRED, "x")
    VersionTags(**whole)
    with pytest.raises(LineageError, match=name):
        VersionTags(**whole | {name: value})


def test_parts_of_different_candidates_are_refused(home: Home) -> None:
    one, other = make_submission(home, "a"), make_submission(home, "b")
    for changes, named in (
        ({"adapter": other.adapter}, "lora_adapter"),
        ({"gate": other.gate}, "gate_verdict"),
        ({"evaluated": other.evaluated}, "lora_adapter"),
    ):
        with pytest.raises(LineageError, match=f"another bundle than the latest .*{named}"):
            replace(one, **changes)


def test_a_gate_that_was_changed_is_refused(home: Home) -> None:
    submission = make_submission(home)
    path = home.store.path(submission.gate.artifact) / GATE
    path.write_text(path.read_text().replace("75.0%", "99.0%"))
    with pytest.raises(LineageError, match="changed after it was built"):
        package.build_package(home.store, submission)


def test_a_version_has_every_tag_and_can_be_downloaded(tracked_home: Home) -> None:
    submission = make_submission(tracked_home)
    number = register(tracked_home, submission)
    version = client(tracked_home).get_model_version(NAME, str(number))
    assert all(version.tags[name] for name in REQUIRED)
    bundle = submission.evaluated.bundle
    expected = {
        "mlflow_run": "mlflow-run",
        "bundle_digest": bundle.digest,
        "prompt_digest": bundle.prompt_digest,
        "gate_verdict": "PASS",
        "gate_digest": submission.gate.artifact.digest,
        "author": "ada@example.org",
        "training_tokens": "314616",
        "training_seconds": "36.0",
        "training_energy_kwh": "0.00065",
        "data_license": "CC-BY-4.0",
    }
    assert {name: version.tags[name] for name in expected} == expected
    import mlflow

    mlflow.set_tracking_uri(tracked_home.mlflow_uri)
    local = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}@candidate"))
    mlflow.set_tracking_uri(None)
    held = json.loads((local / "bundle.json").read_text())
    assert held["digest"] == bundle.digest
    assert (local / "adapter/adapter_model.safetensors").read_bytes() == safetensors("a")
    assert digest_file(local / package.CONFIG) == version.tags["config_digest"]
    assert digest_file(local / BILL) == version.tags["bill_of_materials_digest"]
    assert json.loads((local / GATE).read_text())["verdict"] == "PASS"
    kinds = {path.suffix for path in local.rglob("*") if path.is_file()}
    assert kinds <= {".md", ".json", ".yaml", ".safetensors", ""}


def test_the_versions_page_says_what_matters(tracked_home: Home) -> None:
    register(tracked_home, make_submission(tracked_home))
    page = client(tracked_home).get_model_version(NAME, "1").description
    for said in (
        f"# {NAME}",
        "75.0% of 400 test rows",
        "| gate | PASS (2 criteria) |",
        "| licence of the base model | Apache-2.0 |",
        "| licence of the training data | CC-BY-4.0 |",
    ):
        assert said in page
    assert "---" not in page.splitlines()[0]  # no front matter


def test_the_package_has_a_signature_and_cannot_be_unpickled(home: Home) -> None:
    from mlflow.models import Model

    built = package.build_package(home.store, make_submission(home))
    model = Model.load(str(home.store.path(built)))
    assert model.signature is not None
    assert model.signature.inputs.input_names() == ["messages"]
    assert set(model.flavors) == {package.FLAVOR}


# --- safetensors only, sizes bounded -----------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("adapter_model.bin", pickle.dumps([1]), "may hold a pickle"),
        ("optimizer.PT", pickle.dumps([1]), "may hold a pickle"),
        ("extra.safetensors", pickle.dumps([1]), "not what its name says"),
        ("extra.json", pickle.dumps([1]), "not what its name says"),
        ("extra.txt", pickle.dumps([1]), "not what its name says"),
        ("extra.png", pickle.dumps([1]), "not what its name says"),
        ("extra.gguf", b"GGUF", "of no kind"),
        ("weights", pickle.dumps([1]), "of no kind"),
        ("extra.safetensors", safetensors("x")[:-1], "not what its name says"),
    ],
)
def test_a_pickle_is_refused_under_any_name(
    home: Home, name: str, content: bytes, said: str
) -> None:
    submission = make_submission(home, files={name: content})
    with pytest.raises(LineageError, match=said) as refused:
        package.build_package(home.store, submission)
    assert name in str(refused.value)
    assert not list((home.store.root / package.KIND).iterdir())


def test_a_link_out_of_the_package_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").symlink_to("/etc/passwd")
    with pytest.raises(LineageError, match="no plain file"):
        check_files(tmp_path)


def test_a_package_that_is_too_large_is_refused(home: Home) -> None:
    large = {"more.safetensors": safetensors("x" * 1_100_000)}
    submission = make_submission(home, files=large, spec=RegistrationSpec(max_package_mib=1))
    with pytest.raises(LineageError, match=r"has 1\.1 MiB, more than the 1 MiB.*max_package_mib"):
        package.build_package(home.store, submission)
    assert not (home.store.root / package.KIND).exists()
    package.build_package(home.store, replace(submission, spec=RegistrationSpec()))


# --- registering -----------------------------------------------------------------------------


def test_registering_again_finds_the_version_without_mlflow(
    tracked_home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make_submission(tracked_home, "a"), make_submission(tracked_home, "b")
    assert (register(tracked_home, first), register(tracked_home, second)) == (1, 2)
    forbid_mlflow(monkeypatch)
    assert register(tracked_home, first, replace(CODE, git_commit="later")) == 1


def test_new_evidence_makes_a_new_version(tracked_home: Home) -> None:
    assert register(tracked_home, make_submission(tracked_home, "a")) == 1
    again = make_submission(tracked_home, "a", verdict="INCONCLUSIVE")
    assert register(tracked_home, again) == 2


def test_the_champion_keeps_its_version_whatever_its_evidence(tracked_home: Home) -> None:
    number = register(tracked_home, submission := make_submission(tracked_home, "a"))
    promote(tracked_home, submission, number)
    digest = submission.evaluated.bundle.digest
    assert register(tracked_home, make_submission(tracked_home, "a", champion=digest)) == number


def test_a_crash_after_the_version_was_written_heals(tracked_home: Home) -> None:
    number = register(tracked_home, submission := make_submission(tracked_home, "a"))
    connection = client(tracked_home)
    connection.delete_registered_model_alias(NAME, "candidate")
    connection.delete_model_version_tag(NAME, str(number), "git_commit")
    assert register(tracked_home, submission) == number
    healed = connection.get_model_version_by_alias(NAME, "candidate")
    assert int(healed.version) == number
    assert healed.tags["git_commit"] == CODE.git_commit
    assert len(connection.search_model_versions(f"name = '{NAME}'")) == 1


def test_tags_of_an_unknown_author_say_so(home: Home) -> None:
    unknown = replace(CODE, author="unknown")
    assert make_tags(home.store, make_submission(home), unknown).author == "unknown"


def test_a_glance_that_fails_proves_nothing(home: Home) -> None:
    assert registry.glance(home, NAME) is None
    home.mlflow_database.write_text("no database at all, only some text that stands in its place")
    assert registry.glance(home, NAME) is None
