"""The registry, on a real MLflow with SQLite. The evaluation reports are written by hand."""

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mlops_assets import provenance
from mlops_assets.artifacts import Artifact, LineageError, Recipe
from mlops_assets.home import Home
from mlops_assets.ledger import PROMOTED, Decision
from mlops_assets.promotion import defs, package, registry
from mlops_assets.promotion.version_tags import REQUIRED, VersionTags, make_tags
from mlops_assets.refs import (
    AdapterRef,
    EvalReportRef,
    GateRef,
    RegisteredModelRef,
    ReleaseBundle,
)
from mlops_assets.release_check import template_digest
from mlops_assets.resources import RESOURCES, Workspace
from mlops_assets_tests.conftest import VERSIONS
from mlops_assets_tests.releases import make_gate

NAME = "support-tickets"
ROWS = 400
CODE = provenance.Provenance("c" * 40, False, "l" * 64, "s" * 64)


@dataclass(frozen=True)
class Case:
    """A candidate that was evaluated."""

    adapter: AdapterRef
    evaluated: EvalReportRef


ORIGIN = {
    "versions": asdict(VERSIONS),
    "splits_digest": "s" * 64,
    "settings": json.dumps({"lora_adapter": {"rank": 8}}),
    "hardware": {"cpu": "x"},
    "libraries": {"torch": "2"},
    "train_loss": 0.5,
    "validation_loss": 0.6,
}


def make_artifact(
    home: Home,
    kind: str,
    seed: str,
    files: Mapping[str, str],
    summary: Mapping[str, Any] | None = None,
) -> Artifact:
    def produce(directory: Path) -> Mapping[str, Any]:
        for name, text in files.items():
            (directory / name).write_text(text)
        return summary or {}

    return home.store.build(Recipe(kind, {"seed": seed}, {}, "1"), produce)


def make_report(
    tuned: int, base: int = 40, champion: int | None = None, **changes: Any
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A report in which the first ``tuned`` of the rows are right, and so on."""
    rights = {"base": base, "tuned": tuned, "champion": champion}
    outcomes = [
        {"id": f"r{i}"} | {n: None if k is None else i < k for n, k in rights.items()}
        for i in range(ROWS)
    ]
    shares = {n: None if k is None else k / ROWS for n, k in rights.items()}
    scores = shares | {"majority": 0.2, "tfidf": 0.8}
    report = {
        "items": ROWS,
        "exact_match": scores,
        "valid_json": {"base": 0.5, "tuned": 1.0, "champion": None},
        "fields": {"queue": {"accuracy": scores, "macro_f1": scores}},
        "slices": {"channel": {"email|web": {"count": ROWS, "exact_match": scores}}},
        "candidate": "set by make_case",
        "champion": None,
        "correct": "correct.jsonl",
        "provenance": {"base_name": "tiny", "base_parameters": 1000, "trained_by_mlflow_run": "m"},
    }
    return report | changes, outcomes


def make_case(
    home: Home,
    seed: str,
    tuned: int = 300,
    champion: tuple[str, int] | None = None,
    **changes: Any,
) -> Case:
    """A candidate of its own adapter, measured as ``make_report`` says.

    ``champion`` is the digest of the bundle it was compared with, and its right rows.
    """
    base = make_artifact(home, "base_model", "base", {"config.json": "{}"})
    adapter = make_artifact(home, "lora_adapter", seed, {"adapter_model.safetensors": seed}, ORIGIN)
    generation = {"max_new_tokens": 32}
    bundle = ReleaseBundle(
        base, adapter, template_digest(home.store.path(base)), "p" * 64, generation, VERSIONS
    )
    against, score = champion or (None, None)
    changes = {"candidate": bundle.digest, "champion": against} | changes
    report, outcomes = make_report(tuned, 40, score)
    files = {
        "report.json": json.dumps(report | changes),
        "correct.jsonl": "".join(json.dumps(outcome) + "\n" for outcome in outcomes),
    }
    artifact = make_artifact(home, "eval_report", f"{seed}{champion}{tuned}{changes}", files)
    trained = AdapterRef(adapter, base, bundle.versions, "mlflow-run", "dagster-run")
    return Case(trained, EvalReportRef(artifact, bundle, against))


def promote(home: Home, case: Case, version: int = 1) -> str:
    """Make a case the champion, as its approval would; returns its digest."""
    champion, bundle = home.ledger.champion(NAME), case.evaluated.bundle
    replaced = champion.entry if champion else 0
    key = f"{bundle.digest} {replaced}"
    promotion = Decision(key, PROMOTED, "approved", NAME, version, bundle, {}, replaced)
    return home.ledger.append(promotion).decision.bundle.digest


# --- provenance and tags ---------------------------------------------------------------------


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("value", ["", "  "])
def test_no_tag_may_be_missing(name: str, value: str) -> None:
    whole = dict.fromkeys(REQUIRED, "x")
    VersionTags(**whole)
    with pytest.raises(LineageError, match=name):
        VersionTags(**whole | {name: value})


def test_tags_of_another_adapter_are_refused(home: Home) -> None:
    one, other = make_case(home, "a"), make_case(home, "b")
    with pytest.raises(LineageError, match="another adapter"):
        make_tags(one.adapter, other.evaluated, CODE)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A package with a lock file, outside version control."""
    root = tmp_path / "project"
    for name, text in {
        "code/__init__.py": "",
        "code/a.py": "x = 1",
        "requirements/a.lock": "a",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def git(project: Path, *command: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    done = subprocess.run(
        ["git", *identity, *command], cwd=project, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_provenance_in_a_checkout(project: Path) -> None:
    git(project, "init", "-q")
    assert provenance.find_provenance(project / "code").git_commit.startswith("sources-sha256:")
    git(project, "add", ".")
    git(project, "commit", "-q", "-m", "first")
    clean = provenance.find_provenance(project / "code")
    assert clean.git_commit == git(project, "rev-parse", "HEAD")
    assert not clean.git_dirty
    (project / "code/a.py").write_text("x = 2")
    dirty = provenance.find_provenance(project / "code")
    assert dirty.git_dirty
    assert dirty.code_version != clean.code_version
    assert dirty.lock_file_hash == clean.lock_file_hash
    (project / "requirements/a.lock").write_text("b")
    assert provenance.find_provenance(project / "code").lock_file_hash != clean.lock_file_hash


def test_provenance_in_an_image(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_GIT_COMMIT", "abc-dirty")
    monkeypatch.setenv("MLOPS_LOCK_HASH", "locked")
    found = provenance.find_provenance(project / "code")
    assert (found.git_commit, found.git_dirty, found.lock_file_hash) == ("abc", True, "locked")


def test_provenance_without_any_record_is_a_hash_and_says_so(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(project / "requirements")
    found = provenance.find_provenance(project / "code")
    assert found.git_commit == f"sources-sha256:{found.code_version}"
    assert found.git_dirty
    assert found.lock_file_hash.startswith("environment-sha256:")
    assert "not under version control" in caplog.text
    assert "no lock file" in caplog.text


# --- the registry ----------------------------------------------------------------------------


def client(home: Home) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(home.mlflow_uri)


def register(home: Home, case: Case, code: provenance.Provenance = CODE) -> int:
    """Register a case as the asset does, with a plain MLflow run."""

    @contextmanager
    def attach() -> Iterator[str]:
        connection = client(home)
        location = home.mlflow_artifacts.as_uri()
        known = connection.get_experiment_by_name("tests")
        where = known.experiment_id if known else connection.create_experiment("tests", location)
        yield connection.create_run(where).info.run_id

    def make_package() -> registry.Package:
        built = package.build_package(home.store, NAME, case.adapter, case.evaluated)
        return registry.Package(home.store.path(built), built.summary["head"])

    tags = make_tags(case.adapter, case.evaluated, code)
    return registry.register(home, NAME, tags, make_package, attach)


def forbid_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def refuse(home: Home) -> Iterator[Any]:
        raise AssertionError("MLflow was asked")
        yield

    monkeypatch.setattr(registry, "_client", refuse)


def test_a_version_has_every_tag_and_can_be_downloaded(tracked_home: Home) -> None:
    case = make_case(tracked_home, "a")
    number = register(tracked_home, case)
    version = client(tracked_home).get_model_version(NAME, str(number))
    assert set(REQUIRED) <= version.tags.keys()
    assert all(version.tags[name] for name in REQUIRED)
    assert version.tags["mlflow_run"] == "mlflow-run"
    assert version.tags["bundle_digest"] == case.evaluated.bundle.digest
    assert "75.0%" in version.description
    import mlflow

    mlflow.set_tracking_uri(tracked_home.mlflow_uri)
    local = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}@candidate"))
    mlflow.set_tracking_uri(None)
    held = json.loads((local / "bundle.json").read_text())
    assert held["digest"] == case.evaluated.bundle.digest
    assert (local / "adapter/adapter_model.safetensors").read_text() == "a"
    kinds = {path.suffix for path in local.rglob("*") if path.is_file()}
    assert kinds <= {".md", ".json", ".safetensors", ""}


def test_the_package_has_a_signature_and_cannot_be_unpickled(home: Home) -> None:
    from mlflow.models import Model

    case = make_case(home, "a")
    built = package.build_package(home.store, NAME, case.adapter, case.evaluated)
    directory = home.store.path(built)
    model = Model.load(str(directory))
    assert model.signature is not None
    assert model.signature.inputs.input_names() == ["messages"]
    assert set(model.flavors) == {package.FLAVOR}
    card = (directory / package.CARD).read_text()
    for part in ("## Data", "## Intended use", "## Limits", "email\\|web", "75.0%", "10.0%"):
        assert part in card
    assert all(getattr(case.evaluated.bundle, name).digest in card for name in ("base", "adapter"))


def test_registering_again_finds_the_version_without_mlflow(
    tracked_home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, other = make_case(tracked_home, "a"), make_case(tracked_home, "b")
    assert (register(tracked_home, case), register(tracked_home, other)) == (1, 2)
    assert register(tracked_home, case) == 1  # moves the alias back
    forbid_mlflow(monkeypatch)
    assert register(tracked_home, case, replace(CODE, git_commit="later")) == 1


def test_the_champion_keeps_its_version_whatever_its_report(tracked_home: Home) -> None:
    number = register(tracked_home, case := make_case(tracked_home, "a"))
    first = promote(tracked_home, case, number)
    measured_again = make_case(tracked_home, "a", champion=(first, 300))
    assert register(tracked_home, measured_again) == number


def test_a_crash_after_the_version_was_written_heals(tracked_home: Home) -> None:
    number = register(tracked_home, case := make_case(tracked_home, "a"))
    connection = client(tracked_home)
    connection.delete_registered_model_alias(NAME, "candidate")
    connection.delete_model_version_tag(NAME, str(number), "git_commit")
    assert register(tracked_home, case) == number
    healed = connection.get_model_version_by_alias(NAME, "candidate")
    assert int(healed.version) == number
    assert healed.tags["git_commit"] == CODE.git_commit
    assert len(connection.search_model_versions(f"name = '{NAME}'")) == 1


def test_a_lost_registry_is_filled_again(tracked_home: Home, migrated_database: Path) -> None:
    first, second = make_case(tracked_home, "a", tuned=200), make_case(tracked_home, "b")
    register(tracked_home, first)
    assert register(tracked_home, second) == 2
    promote(tracked_home, second, 2)
    assert registry.reconcile(tracked_home, NAME)["champion"] == 2
    shutil.copy(migrated_database, tracked_home.mlflow_database)
    assert register(tracked_home, second) == 1
    assert registry.reconcile(tracked_home, NAME)["champion"] == 1


def test_aliases_follow_the_ledger(tracked_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make_case(tracked_home, "a", tuned=200)
    register(tracked_home, first)
    assert registry.reconcile(tracked_home, NAME) == {"candidate": 1}
    digest = promote(tracked_home, first, 1)
    assert registry.reconcile(tracked_home, NAME) == {"candidate": 1, "champion": 1}
    second = make_case(tracked_home, "b", champion=(digest, 200))
    register(tracked_home, second)
    promote(tracked_home, second, 2)
    # A crash here leaves the alias behind; whoever reconciles next moves it.
    assert registry.glance(tracked_home, NAME) == registry.look(client(tracked_home), NAME)
    expected = {"candidate": 2, "champion": 2, "previous": 1}
    assert registry.reconcile(tracked_home, NAME) == expected
    client(tracked_home).set_registered_model_alias(NAME, "champion", "1")  # by another hand
    assert registry.reconcile(tracked_home, NAME) == expected
    forbid_mlflow(monkeypatch)
    assert registry.reconcile(tracked_home, NAME) == expected


def test_a_glance_that_fails_proves_nothing(home: Home) -> None:
    assert registry.glance(home, NAME) is None
    home.mlflow_database.write_text("no database at all, only some text that stands in its place")
    assert registry.glance(home, NAME) is None


# --- the assets ------------------------------------------------------------------------------


AUTOMATIC = {"approval_request": {"config": {"risk_class": "low", "automatic_for": ["low"]}}}


def materialize(case: Case, instance: dg.DagsterInstance, champion: str | None = None) -> Any:
    """Run the stage's assets under given inputs, as a job does; no person is asked."""
    judged = make_gate(Home.from_environment(), case.evaluated.bundle, champion)

    @dg.asset
    def eval_report() -> EvalReportRef:
        return case.evaluated

    @dg.asset
    def gate_verdict() -> GateRef:
        return judged

    @dg.asset
    def lora_adapter() -> AdapterRef:
        return case.adapter

    return dg.materialize(
        [eval_report, gate_verdict, lora_adapter, *(defs.defs.assets or [])],
        resources=RESOURCES,
        instance=instance,
        run_config={"ops": AUTOMATIC},
        raise_on_error=False,
    )


def metadata_of(result: Any, asset: str) -> dict[str, Any]:
    event = result.asset_materializations_for_node(asset)[0]
    return {name: value.value for name, value in event.metadata.items()}


def test_the_assets_register_and_promote_once(tracked_home: Home) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        case = make_case(tracked_home, "a")
        assert materialize(case, instance).success
        assert client(tracked_home).get_model_version_by_alias(NAME, "champion").version == 1
        digest = case.evaluated.bundle.digest
        measured_again = make_case(tracked_home, "a", champion=(digest, 300))
        again = materialize(measured_again, instance, digest)
        assert again.success
    version, decision = (
        metadata_of(again, name) for name in ("registered_model", "approval_request")
    )
    assert (version["version"], version["from_store"]) == (1, True)
    assert version["model_card"].startswith(f"# {NAME}")
    assert {record.data["tag"] for record in version["lineage"].records} >= set(REQUIRED)
    assert (decision["state"], decision["ledger_entries"]) == (PROMOTED, 3)
    assert decision["from_store"] is True
    latest = tracked_home.latest("registered_model")
    assert isinstance(latest, RegisteredModelRef)
    assert latest.version == 1
    runs = client(tracked_home).search_runs(["1"])
    assert [run.info.status for run in runs] == ["FINISHED"]
    held = client(tracked_home).get_model_version(NAME, "1")
    assert held.source.startswith(tracked_home.mlflow_artifacts.as_uri())


def test_a_changed_report_fails_the_run_and_promotes_nothing(tracked_home: Home) -> None:
    case = make_case(tracked_home, "a")
    (tracked_home.store.path(case.evaluated.artifact) / "report.json").write_text("{}")
    with dg.DagsterInstance.ephemeral() as instance:
        result = materialize(case, instance)
    assert not result.success
    assert "changed after it was built" in str(result.all_events)
    assert tracked_home.ledger.entries() == []


@pytest.mark.parametrize("name", ["a b", "x' or name='y", "", "-"])
def test_the_registrys_name_is_checked(name: str) -> None:
    with pytest.raises(ValueError, match="model"):
        Workspace(model=name)
