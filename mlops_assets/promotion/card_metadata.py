"""The YAML that a model card begins with on the Hugging Face hub, written by its own library.

Names that mean something there (a base model, datasets) are given only where they are names on
the hub; what comes from elsewhere is told in the card's text.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mlops_assets.licenses import OWN, UNKNOWN
from mlops_assets.promotion.submission import Submission

LISTED = {
    *("afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "bsd", "bsd-2-clause", "bsd-3-clause"),
    *("bsd-3-clause-clear", "bsl-1.0", "c-uda", "cc", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0"),
    *("cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0"),
    *("cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0"),
    *("cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0"),
    *("cdla-sharing-1.0", "ecl-2.0", "epl-1.0", "epl-2.0", "eupl-1.1", "eupl-1.2", "gemma"),
    *("gfdl", "gpl", "gpl-2.0", "gpl-3.0", "isc", "lgpl", "lgpl-2.1", "lgpl-3.0", "llama2"),
    *("llama3", "llama3.1", "llama3.2", "llama3.3", "llama4", "lppl-1.3c", "mit", "mpl-2.0"),
    *("ms-pl", "ncsa", "odbl", "odc-by", "ofl-1.1", "openrail", "openrail++", "osl-3.0"),
    *("pddl", "postgresql", "unlicense", "wtfpl", "zlib", UNKNOWN),
}
"""The hub's identifiers of licences; any other is `other` with a name."""
HUB_DATASET = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+)@")
TASK = "text-generation"
Metric = Mapping[str, Any]


def front_matter(submission: Submission, report: Mapping[str, Any]) -> str:
    """The card's YAML block, with the lines of dashes around it."""
    from huggingface_hub import ModelCardData

    trained = submission.training_settings
    dataset = HUB_DATASET.match(str(trained.get("raw_dataset", {}).get("path", "")))
    license, license_name = hub_license(submission.base.license)
    card = ModelCardData(
        model_name=submission.name,
        base_model=trained.get("base_model", {}).get("repo_id") or None,
        datasets=[dataset.group(1)] if dataset else None,
        library_name="transformers" if _is_whole(trained) else "peft",
        pipeline_tag=TASK,
        tags=["dagster", "mlops-assets", _method(trained)],
        eval_results=list(_results(report)) or None,
        license=license,
        license_name=license_name,
    )
    return f"---\n{card.to_yaml().strip()}\n---\n"


def hub_license(expression: str) -> tuple[str, str | None]:
    """An SPDX expression as the hub's `license` and `license_name`.

    An adapter passes on its base model's licence.
    """
    listed = expression.removeprefix(OWN).lower()
    return (listed, None) if listed in LISTED else ("other", expression)


def _results(report: Mapping[str, Any]) -> Iterator[Any]:
    from huggingface_hub import EvalResult

    for suite, found in suite_metrics(report).items():
        for metric, value in found["metrics"].items():
            if _is_finite(value.get("tuned")):
                yield EvalResult(
                    task_type=TASK,
                    dataset_type=suite,  # what the hub tells data sets apart by
                    dataset_name=suite,
                    metric_type=metric,
                    metric_value=value["tuned"],
                    dataset_args={"items": found["items"]},
                )


def suite_metrics(report: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Items and mean by metric and system of every suite, the test split first."""
    test = {"exact_match": report["exact_match"]}
    if "valid_json" in report:
        test["valid_json"] = report["valid_json"]
    suites = {name: dict(found) for name, found in report.get("suites", {}).items()}
    own = suites.pop("test", {"items": report["items"], "metrics": {}})
    own["metrics"] = test | dict(own["metrics"])
    return {"test": own} | suites


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _method(settings: Mapping[str, Any]) -> str:
    return str(settings.get("lora_adapter", {}).get("method", "sft"))


def _is_whole(settings: Mapping[str, Any]) -> bool:
    """Whether all weights were trained: then it is a model of its own, not an adapter."""
    return bool(settings.get("lora_adapter", {}).get("adapter") == "full")
