"""`mlops diff`: two registered versions or runs, on a real registry and a real store."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest
from click.testing import Result
from mlflow import MlflowClient
from typer.testing import CliRunner

from mlops_assets.artifacts import Artifact, Recipe
from mlops_assets.cli import app
from mlops_assets.evaluation.records import RECORDS, Record, write_records
from mlops_assets.evaluation.run_log import log_evaluation
from mlops_assets.home import Home
from mlops_assets.ref_json import dump_ref
from mlops_assets.refs import RegisteredModelRef, ReleaseBundle
from mlops_assets.trackers import RunInfo, start_tracking
from mlops_assets.tracking import prepare_experiment
from mlops_assets_tests.conftest import VERSIONS

MODEL = "support-tickets"
HOSTILE = '<script>alert("1")</script> [red]not markup[/red] \x1b[31m mail me: ann@example.org'
REPORT = {
    "exact_match": dict.fromkeys(("base", "tuned", "champion", "majority", "tfidf"), 0.5),
    "fields": {},
    "suites": {},
    "latency": {"tuned": {"p95_ms": 1.0}},
    "versions": vars(VERSIONS),
}


@dataclass(frozen=True)
class Registry:
    """A home with two registered versions, the first of which is the champion."""

    home: Home
    runs: tuple[str, str]
    reports: tuple[Artifact, Artifact]


def records(right: set[int], items: range) -> list[Record]:
    """Answers of the tuned model to ``items``, and of its base, which knows nothing."""
    made = []
    for i in items:
        told = {"suite": "test" if i < 40 else "safety", "item": f"t{i}", "input_hash": f"h{i}"}
        told |= {"reference": "yes", "input": HOSTILE if i == 3 else f"Is {i} right?"}
        slices = {"channel": "chat" if i % 2 else "mail"}
        for system, good in (("base", False), ("tuned", i in right)):
            scores = {"exact_match": float(good), "polite": None}
            output = "yes" if good else "no"
            made.append(Record(**told, system=system, output=output, slices=slices, scores=scores))
    return made


def evaluate(home: Home, name: str, answers: list[Record]) -> tuple[str, Artifact]:
    """A report in the store and in MLflow, as the asset leaves them there."""
    experiment = prepare_experiment(home)
    run = mlflow.start_run(experiment_id=experiment).info.run_id

    def produce(directory: Path) -> dict[str, Any]:
        write_records(directory / RECORDS, answers)
        for file in ("report.html", "report.json", "plot.png"):
            (directory / file).write_text(name)
        tracked = start_tracking(home, RunInfo(run, "evaluate", "test"), experiment, ())
        log_evaluation(tracked, directory, REPORT)
        tracked.finish("FINISHED")
        return {}

    return run, home.store.build(Recipe("eval_report", {"name": name}, {}, "1"), produce)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Registry:
    home = Home(tmp_path_factory.mktemp("diff") / "home")
    home.prepare()
    shutil.copyfile(migrated_database, home.mlflow_database)
    earlier = records(set(range(30)), range(50))
    later = records(set(range(5, 40)) | {45}, range(1, 51))
    found = [evaluate(home, name, said) for name, said in (("one", earlier), ("two", later))]
    client = MlflowClient(home.mlflow_uri)
    client.create_registered_model(MODEL)
    for run, report in found:
        tags = {"report_digest": report.digest}
        client.create_model_version(MODEL, f"runs:/{run}/model", run, tags=tags)
    client.set_registered_model_alias(MODEL, "champion", "1")
    client.set_registered_model_alias(MODEL, "candidate", "2")
    part = Artifact("x", "k", "d")
    bundle = ReleaseBundle(part, part, "c", "p", {}, VERSIONS)
    ref = RegisteredModelRef(MODEL, 2, bundle, found[1][1])
    home.write_ref("registered_model", "run", dump_ref(ref))
    runs, reports = zip(*found, strict=True)
    return Registry(home, runs, reports)


@pytest.fixture
def registry(made: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """The same home, with a store and MLflow files that a test may break."""
    for folder in ("artifacts", "mlartifacts"):
        shutil.copytree(made.home.root / folder, tmp_path / folder)
    monkeypatch.setenv("MLOPS_HOME", str(made.home.root))
    yield made
    for folder in ("artifacts", "mlartifacts"):
        shutil.rmtree(made.home.root / folder, ignore_errors=True)
        shutil.move(tmp_path / folder, made.home.root / folder)


def diff(*words: str) -> Result:
    return CliRunner().invoke(app, ["diff", *words], env={"COLUMNS": "140"})


def as_json(*words: str) -> Any:
    ended = diff(*words, "--json")
    assert ended.exit_code == 0, ended.output
    return json.loads(ended.stdout)


def test_every_kind_of_name_leads_to_the_same_comparison(registry: Registry) -> None:
    by_alias = as_json("champion", "candidate")
    assert by_alias["before"]["name"] == "version 1 (champion)"
    assert by_alias["after"]["records_from"] == "store"
    for names in (("1", "2"), registry.runs):
        assert as_json(*names)["suites"] == by_alias["suites"]
    test = by_alias["suites"]["test"]
    assert (test["items"], test["only_before"], test["only_after"]) == (39, ["t0"], [])
    exact = test["metrics"]["exact_match"]
    assert (exact["better"], exact["worse"], exact["same"]) == (10, 4, 25)
    assert exact["difference"] == pytest.approx(6 / 39)
    assert exact["interval"][0] < 6 / 39 < exact["interval"][1]
    assert test["metrics"]["polite"]["unscored"] == 39
    assert test["slices"]["channel"]["chat"]["exact_match"]["worse"] == 2
    assert by_alias["suites"]["safety"]["only_after"] == ["t50"]


def test_the_other_way_round_gains_are_losses(registry: Registry) -> None:
    there, back = (as_json(*names)["suites"]["test"] for names in (("1", "2"), ("2", "1")))
    exact, reverse = (side["metrics"]["exact_match"] for side in (there, back))
    assert (reverse["better"], reverse["worse"]) == (exact["worse"], exact["better"])
    assert reverse["difference"] == pytest.approx(-exact["difference"])
    assert {one["item"] for one in there["worse"]} == {one["item"] for one in back["better"]}


def test_people_see_tables_and_examples(registry: Registry) -> None:
    ended = diff("champion", "candidate", "--examples", "9")
    assert ended.exit_code == 0, ended.output
    for said in (
        "version 2 (candidate) against version 1 (champion)",
        "39 items compared, 1 only before",
        "channel = chat",
        "10 items got better, the 9 largest changes:",
        "4 items got worse\n",
        "reference yes",
    ):
        assert said in ended.stdout
    # What a customer wrote is shown as it is, but for addresses and what a terminal would obey.
    assert '<script>alert("1")</script> [red]not markup[/red]' in ended.stdout
    assert "ann@example.org" not in ended.stdout
    assert "\x1b[31m" not in ended.stdout


def test_the_page_is_whole_and_escapes_what_people_wrote(
    registry: Registry, tmp_path: Path
) -> None:
    page = tmp_path / "diff.html"
    assert diff("1", "2", "--examples", "9", "--html", str(page)).exit_code == 0
    html = page.read_text()
    assert "&lt;script&gt;alert" in html
    assert "<script" not in html
    assert "src=" not in html
    assert "href=" not in html
    assert "ann@example.org" not in html
    assert "Version 2 against version 1" in html
    assert "39 items compared, 1 only before" in html


def test_without_the_store_the_records_come_from_mlflow_and_are_verified(
    registry: Registry,
) -> None:
    verified = as_json("1", "2")
    shutil.rmtree(registry.home.store.root / "eval_report")
    again = as_json("1", "2")
    assert again["suites"] == verified["suites"]
    assert again["before"]["records_from"] == registry.runs[0]
    assert as_json(*registry.runs)["suites"] == verified["suites"]


@pytest.mark.parametrize(
    ("file", "old", "new"), [(RECORDS, b"a", b"b"), ("manifest.json", b"plot.png", b"plan.png")]
)
def test_records_that_were_changed_in_mlflow_are_refused(
    registry: Registry, file: str, old: bytes, new: bytes
) -> None:
    shutil.rmtree(registry.home.store.root / "eval_report")
    (path,) = (registry.home.mlflow_artifacts / registry.runs[0]).rglob(file)
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    ended = diff("1", "2")
    assert ended.exit_code == 1
    assert "is not what was measured for version 1" in ended.stderr


def test_records_that_were_changed_in_the_store_are_refused(registry: Registry) -> None:
    report = registry.reports[0]
    path = registry.home.store.root / report.kind / report.key / RECORDS
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    ended = diff("1", "2")
    assert ended.exit_code == 1
    assert f"was changed after it was built ({RECORDS}" in ended.stderr


def test_one_metric_alone(registry: Registry) -> None:
    found = as_json("1", "2", "--metric", "exact_match")
    assert list(found["suites"]["test"]["metrics"]) == ["exact_match"]
    ended = diff("1", "2", "--metric", "exactmatch")
    assert ended.exit_code == 1
    assert "Neither evaluation has the metric 'exactmatch'. Choose among exact_match, polite." in (
        ended.stderr
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("7", "does not give '7' (RESOURCE_DOES_NOT_EXIST)"),
        ("challenger", "does not give 'challenger'"),
        ("f" * 32, "does not give"),
    ],
)
def test_what_does_not_exist_is_named(registry: Registry, name: str, said: str) -> None:
    ended = diff("1", name)
    assert ended.exit_code == 1
    assert said in ended.stderr
    assert "Name a version's number, an alias" in ended.stderr


def test_a_run_that_measured_nothing_is_named(registry: Registry) -> None:
    run = mlflow.start_run(experiment_id=prepare_experiment(registry.home)).info.run_id
    mlflow.end_run()
    ended = diff("1", run)
    assert ended.exit_code == 1
    assert "has measured nothing that was recorded" in ended.stderr


def test_before_the_first_run_there_is_nothing_to_compare(home: Home) -> None:
    ended = diff("1", "2")
    assert ended.exit_code == 1
    assert "There is no registry" in ended.stderr
    assert "Run the job `lineage` first." in ended.stderr
