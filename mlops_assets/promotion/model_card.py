"""The model card: what a version is, is for, was trained on, can do, and who may use it.

Every figure comes from the evaluation's report, every verdict from the gate's own artifact.
What is not known is called unknown.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlops_assets.licenses import UNKNOWN
from mlops_assets.promotion.card_metadata import front_matter, suite_metrics
from mlops_assets.promotion.submission import Submission, TrainingCost, training_cost
from mlops_assets.verdicts import Gate

TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
SYSTEMS = ("base", "tuned", "champion", "majority", "tfidf")
LONGEST_HEAD = 4_000  # characters that the registry's description is given
FEW = 30  # rows below which a slice's score says little


def render_card(submission: Submission, report: Mapping[str, Any], gate: Gate) -> str:
    """The model card in Markdown, with the hub's front matter.

    ``report`` is ``report.json``.
    """
    from jinja2 import Environment, StrictUndefined

    # Markdown, not HTML: cells are escaped by the filter `cell`.
    environment = Environment(undefined=StrictUndefined, trim_blocks=False, autoescape=False)  # noqa: S701
    environment.filters |= {
        "percent": percent,
        "metric": metric,
        "cell": cell,
        "code": lambda text: f"`{text}`",
    }
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    text = template.render(
        name=submission.name,
        headline=headline(report),
        intended_use=submission.spec.intended_use,
        report=report,
        report_digest=submission.evaluated.artifact.digest,
        gate=gate,
        gate_digest=submission.gate.artifact.digest,
        bundle=submission.evaluated.bundle,
        adapter=submission.adapter,
        licenses=license_rows(submission),
        cost=cost_row(training_cost(submission.adapter, submission.rates)),
        fields=list(report["fields"]),
        suites=suite_metrics(report),
        systems=[system for system in SYSTEMS if report["exact_match"].get(system) is not None],
        weakest=weakest_slice(report),
    )
    return front_matter(submission, report) + text


def card_head(card: str) -> str:
    """The card up to its first section, without the front matter: the registry's description."""
    return card_text(card).split("\n## ", 1)[0].strip()[:LONGEST_HEAD]


def card_text(card: str) -> str:
    """The card without its front matter, which is for machines."""
    return card.split("\n---\n", 1)[1] if card.startswith("---\n") else card


def headline(report: Mapping[str, Any]) -> str:
    """One sentence with the score that matters."""
    scores, form = report["exact_match"], "one JSON object" if report["fields"] else "a short text"
    return (
        f"A small language model tuned to answer with {form}: {percent(scores['tuned'])}"
        f" of {report['items']:,} test rows answered exactly, against {percent(scores['base'])}"
        " for its base model."
    )


def weakest_slice(report: Mapping[str, Any]) -> str:
    """The slice with the lowest exact match among those that are large enough."""
    scored = [
        (values["exact_match"]["tuned"], dimension, value, values["count"])
        for dimension, found in report["slices"].items()
        for value, values in found.items()
        if values["count"] >= FEW and values["exact_match"]["tuned"] is not None
    ]
    if not scored:
        return f"The data has no slices with {FEW} test rows: where it is weak is not known."
    score, dimension, value, count = min(scored)
    return (
        f"Weakest slice of {FEW} rows and more: {cell(dimension)} {cell(value)},"
        f" {percent(score)} of {count} rows."
    )


def license_rows(submission: Submission) -> dict[str, str]:
    """Licence by part; what nobody stated says so, and how to state it."""
    found = {"base model": submission.base.license, "training data": submission.data_license}
    settings = {"base model": "base_model", "training data": "raw_dataset"}
    return {
        part: text
        if text != UNKNOWN
        else f"unknown: nobody has stated it (setting `license` of `{settings[part]}`)"
        for part, text in found.items()
    }


def cost_row(cost: TrainingCost) -> dict[str, str]:
    """What the training took, for people."""
    figures = asdict(cost)
    return {
        "tokens": f"{figures['tokens']:,}",
        "seconds": f"{figures['seconds']:,.1f}",
        "floating-point operations": f"{figures['flops']:.3g}",
        "energy": f"{figures['energy_kwh']:.3g} kWh ({figures['energy_source']})",
        "money": f"{figures['money']:.4g} {figures['currency']}",
    }


def metric(value: Any) -> str:
    """A mean for people: a share in percent, anything else to three digits, a dash for none."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) > 1:
        return f"{value:.3g}" if math.isfinite(value) else "-"
    return percent(value)


def percent(value: Any) -> str:
    """A share for people; a dash where it is missing."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return "-"
    return f"{value:.1%}"


def cell(text: str) -> str:
    """``text`` as the cell of a table in Markdown."""
    return str(text).replace("|", "\\|").replace("\n", " ")
