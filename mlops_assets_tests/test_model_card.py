"""The model card: complete, readable by the hub's own library, plain about what is unknown."""

import json
from dataclasses import replace

import pytest
import yaml
from huggingface_hub import ModelCard

from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home
from mlops_assets.profiles import SECTIONS
from mlops_assets.promotion import package
from mlops_assets.promotion.card_metadata import hub_license
from mlops_assets.promotion.model_card import card_head
from mlops_assets.promotion.submission import RegistrationSpec, Submission
from mlops_assets.verdicts import INCONCLUSIVE
from mlops_assets_tests.submissions import RECORD, SETTINGS, make_submission

SECTIONS_OF_CARD = (
    *("Intended use", "Data", "Scores", "Gate", "Limits", "Licences", "Cost of the training"),
    "Digests",
)


def card_of(home: Home, submission: Submission) -> str:
    built = package.build_package(home.store, submission)
    return (home.store.path(built) / package.CARD).read_text()


def test_the_card_says_all_that_was_asked_of_it(home: Home) -> None:
    submission = make_submission(home)
    card = card_of(home, submission)
    for section in SECTIONS_OF_CARD:
        assert f"\n## {section}\n" in card
    for part in (
        "email\\|web",  # a slice
        "| safety | 12 | refused | 25.0% | 50.0% |",  # a suite
        "| floor/exact_match | PASS | 75.0%, at least 60.0% |",
        "| base model | Apache-2.0 |",
        "| training data | CC-BY-4.0 |",
        "| tokens | 314,616 |",
        "| energy | 0.00065 kWh (65 W assumed) |",
        "mlflow-run",
    ):
        assert part in card, part
    bundle = submission.evaluated.bundle
    digests = (bundle.digest, bundle.base.digest, bundle.adapter.digest, bundle.prompt_digest)
    assert all(digest in card for digest in digests)


def test_the_hubs_own_library_reads_the_front_matter(home: Home) -> None:
    data = ModelCard(card_of(home, make_submission(home))).data
    assert (data.license, data.library_name) == ("apache-2.0", "peft")
    assert data.pipeline_tag == "text-generation"
    assert data.base_model is None  # it is on no hub
    assert data.model_name == "support-tickets"
    results = {(of.dataset_name, of.metric_type): of.metric_value for of in data.eval_results}
    assert results == {
        ("test", "exact_match"): 0.75,
        ("test", "valid_json"): 1.0,
        ("safety", "refused"): 0.5,
    }


def test_names_of_the_hub_are_given_where_they_are_some(home: Home) -> None:
    settings = SETTINGS | {
        "raw_dataset": {"path": f"hf://datasets/owner/data@{'a' * 40}/x.jsonl"},
        "base_model": {"source": "hub", "repo_id": "owner/model", "revision": "b" * 40},
    }
    record = RECORD | {"settings": json.dumps(settings)}
    data = ModelCard(card_of(home, make_submission(home, record=record))).data
    assert (data.base_model, data.datasets) == ("owner/model", ["owner/data"])


@pytest.mark.parametrize(
    ("expression", "license", "name"),
    [
        ("Apache-2.0", "apache-2.0", None),
        ("unknown", "unknown", None),
        ("LicenseRef-llama3.1", "llama3.1", None),
        ("MIT OR Apache-2.0", "other", "MIT OR Apache-2.0"),
        ("LicenseRef-ours", "other", "LicenseRef-ours"),
    ],
)
def test_a_licence_as_the_hub_writes_it(expression: str, license: str, name: str | None) -> None:
    assert hub_license(expression) == (license, name)


def test_what_is_unknown_is_called_unknown(home: Home) -> None:
    card = card_of(home, make_submission(home, base_license="unknown"))
    assert (
        "| base model | unknown: nobody has stated it (setting `license` of `base_model`) |" in card
    )


def test_an_inconclusive_gate_is_shown_as_such(home: Home) -> None:
    card = card_of(home, make_submission(home, verdict=INCONCLUSIVE))
    assert "| gate | INCONCLUSIVE (2 criteria) |" in card


def test_people_may_say_what_it_is_for(home: Home) -> None:
    spec = RegistrationSpec(intended_use="Sorts tickets of the Vienna office.")
    card = card_of(home, make_submission(home, spec=spec))
    assert "## Intended use\n\nSorts tickets of the Vienna office.\n\n## Data" in card


def test_the_registrys_description_is_the_cards_head(home: Home) -> None:
    head = card_head(card_of(home, make_submission(home)))
    assert head.startswith("# support-tickets\n")
    assert "75.0% of 400 test rows" in head
    assert "## " not in head


def test_the_settings_in_the_package_are_run_config(home: Home) -> None:
    submission = make_submission(home)
    built = package.build_package(home.store, submission)
    content = yaml.safe_load((home.store.path(built) / package.CONFIG).read_text())
    assert set(content) <= SECTIONS
    settings = {asset: value["config"] for asset, value in content["ops"].items()}
    assert settings["lora_adapter"] == SETTINGS["lora_adapter"]
    assert settings["gate_verdict"] == {"alpha": 0.05}
    assert settings["registered_model"] == RegistrationSpec().model_dump()
    assert {"eval_report", "raw_dataset", "base_model"} <= settings.keys()


@pytest.mark.parametrize("missing", ["tokens", "flops", "usage", "settings"])
def test_a_training_that_does_not_say_what_it_took_is_refused(home: Home, missing: str) -> None:
    record = {name: value for name, value in RECORD.items() if name != missing}
    with pytest.raises(LineageError, match=f"does not say its {missing}|no '{missing}'"):
        package.build_package(home.store, make_submission(home, record=record))


@pytest.mark.parametrize("wrong", [float("inf"), float("nan"), -1.0])
def test_a_cost_that_is_no_number_is_refused(home: Home, wrong: float) -> None:
    submission = make_submission(home)
    record = RECORD | {"flops": wrong}
    artifact = replace(submission.adapter.artifact, summary=record)
    submission = replace(submission, adapter=replace(submission.adapter, artifact=artifact))
    with pytest.raises(LineageError, match="is not finite"):
        package.build_package(home.store, submission)
