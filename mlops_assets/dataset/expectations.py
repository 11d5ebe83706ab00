"""What the data must be like, as two Great Expectations suites.

``rows`` judges every candidate by itself; ``dataset`` judges what passed as a whole, and finds
duplicates. A row that an expectation with a ``reason`` names is set aside for that reason.
An expectation that fails (more rows than tolerated, or the data as a whole) stops the lineage.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from mlops_assets.dataset.datadocs import run_identifier
from mlops_assets.dataset.records import SOUND
from mlops_assets.dataset.sources import Candidate, normalised
from mlops_assets.dataset.synthetic import LABELS
from mlops_assets.privacy import DEFAULT_POLICY, DEFAULT_REGIONS, Detector, checked_policy, redact

if TYPE_CHECKING:
    import pandas as pd

Labels = Mapping[str, tuple[str, ...]]

TURN = "user( assistant( tool)+)* assistant"
ROLES = rf"^(system )?{TURN}( {TURN})*$"
BY_FORM = "form"  # the reason is the row's own form, one of records.FORMS
PROMPT_COLUMNS = ("row", "file", "line", "form", "id", "group", "roles", "shortest", "longest")
NOT_AN_ANSWER = "not a JSON object"
SAMPLES = 10  # offending values shown in Data Docs; labels, roles and lengths, never texts


class ValidationSpec(BaseModel):
    """What is tolerated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    labels: dict[str, list[str]] = Field(
        default_factory=lambda: {name: list(values) for name, values in LABELS.items()},
        min_length=1,
        description="Vocabulary of each field of the answer, fields in the order of the answer;"
        " an empty list takes it from categories.json or from the data.",
    )
    slices: list[str] = Field(
        default_factory=lambda: ["channel", "product", "language_style"],
        description="Fields of a row by which results are broken down (format messages).",
    )
    group_field: str = Field(
        "customer_id", min_length=1, description="Field whose rows stay in one split."
    )
    require_timestamp: bool = Field(True, description="Whether every row needs a valid time.")
    earliest_year: int = Field(2000, ge=1970, le=2100, description="First year accepted.")
    latest_year: int = Field(2100, ge=1970, le=2200, description="Last year accepted.")
    max_characters: int = Field(
        2000, ge=10, le=100_000, description="Longest message before the answer, in characters."
    )
    min_rows: int = Field(100, ge=1, le=10**9, description="Fewest valid rows.")
    max_quarantined_share: float = Field(
        0.1, ge=0, le=1, description="Largest share of rows set aside, for all reasons together."
    )
    max_imbalance: float = Field(
        0.5,
        ge=0,
        le=10,
        description="Largest KL divergence of a field's labels from all equally often, in nats.",
    )
    privacy: dict[str, str] = Field(
        default_factory=lambda: dict(DEFAULT_POLICY),
        description="What is done with each kind of personal data in a row: `redact` it, `flag`"
        " the row, or `block` it (set it aside). What is not named is not looked for.",
    )
    phone_regions: list[str] = Field(
        default_factory=lambda: list(DEFAULT_REGIONS),
        description="Countries (ISO 3166) whose phone numbers are known without their `+`.",
    )
    ner_model: str = Field(
        "",
        description="Installed spaCy model, by name or directory, that finds `person` and"
        " `location`; empty looks for neither.",
    )

    @field_validator("privacy")
    @classmethod
    def _known(cls, policy: dict[str, str]) -> dict[str, str]:
        return checked_policy(policy)

    def detector(self) -> Detector:
        """What finds personal data by this policy. Raises LineageError as ``Detector`` does."""
        return Detector(self.privacy, self.ner_model, self.phone_regions)


@dataclass(frozen=True)
class Verdict:
    """What one suite found."""

    failed: tuple[str, ...]
    """The expectations that failed, each with what was observed."""
    reasons: Mapping[int, str]
    """Why a row is set aside, by its number; the first expectation that names it wins."""


def answer_object(candidate: Candidate) -> dict[str, Any] | None:
    """The answer as a JSON object, or None."""
    if not candidate.messages or candidate.messages[-1]["role"] != "assistant":
        return None
    try:
        value = json.loads(candidate.messages[-1]["content"])
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def prompt_text(candidate: Candidate) -> str:
    """Everything before the answer, as one text."""
    return "\n".join(message["content"] for message in (candidate.messages or ())[:-1])


def row_frame(candidates: Sequence[Candidate], labels: Labels) -> "pd.DataFrame":
    """One line for each candidate, with what the suite ``rows`` looks at."""
    import pandas as pd

    return pd.DataFrame([_row_record(*item, labels) for item in enumerate(candidates)])


def _row_record(number: int, candidate: Candidate, labels: Labels) -> dict[str, Any]:
    messages = candidate.messages
    # A turn that calls tools says nothing beside, and a tool may have nothing to report.
    spoken = [
        message
        for message in (messages or ())[:-1]
        if not message.get("tool_calls") and message["role"] != "tool"
    ]
    sizes = [len(message["content"].strip()) for message in spoken]
    answer = answer_object(candidate)
    has_answer = bool(messages) and messages is not None and messages[-1]["role"] == "assistant"
    names = sorted(answer or ())
    return {
        "row": number,
        "file": candidate.file,
        "line": candidate.line,
        "form": candidate.form,
        "id": candidate.id,
        "group": candidate.group,
        "roles": " ".join(message["role"] for message in messages) if messages else None,
        "shortest": min(sizes, default=None),
        "longest": max(sizes, default=None),
        "timestamp": candidate.timestamp,
        "year": int(candidate.timestamp[:4]) if candidate.timestamp else None,
        "answer": (",".join(names) if answer is not None else NOT_AN_ANSWER)
        if has_answer
        else None,
    } | {_column(name): _label(answer, name) for name in labels}


def dataset_frame(
    candidates: Mapping[int, Candidate], labels: Labels, splits_pinned: bool
) -> "pd.DataFrame":
    """One line for each row that passed, with what the suite ``dataset`` looks at."""
    import pandas as pd

    train = [prompt_text(item) for item in candidates.values() if item.split == "train"]
    folded = {text.casefold().strip() for text in train}
    respaced = {normalised(text) for text in train}
    ids: Counter[str] = Counter()
    texts: Counter[tuple[str | None, str]] = Counter()
    records = []
    for number, candidate in candidates.items():
        text, identity = prompt_text(candidate), str(candidate.id)
        key = (candidate.split, normalised(text))
        record: dict[str, Any] = {
            "row": number,
            "earlier_ids": ids[identity],
            "earlier_texts": texts[key],
        }
        if splits_pinned:
            tested = candidate.split == "test"
            record["in_train"] = str(tested and text.casefold().strip() in folded)
            record["in_train_respaced"] = str(tested and normalised(text) in respaced)
        answer = answer_object(candidate)
        records.append(record | {_column(name): _label(answer, name) for name in labels})
        ids[identity] += 1
        texts[key] += 1
    return pd.DataFrame(records)


def row_expectations(spec: ValidationSpec, labels: Labels) -> list[Any]:
    """The suite ``rows``; the order decides which reason a row with two faults gets."""
    import great_expectations.expectations as gxe

    tolerated = {"mostly": 1 - spec.max_quarantined_share}

    def rule(kind: Any, column: str, reason: str, **settings: Any) -> Any:
        return kind(column=column, meta={"reason": reason}, **tolerated, **settings)

    not_null, in_set = gxe.ExpectColumnValuesToNotBeNull, gxe.ExpectColumnValuesToBeInSet
    between = gxe.ExpectColumnValuesToBeBetween
    years = {"min_value": spec.earliest_year, "max_value": spec.latest_year}
    columns = [*PROMPT_COLUMNS, "timestamp", "year", "answer", *map(_column, labels)]
    timed = [
        rule(not_null, "timestamp", "bad_timestamp"),
        rule(between, "year", "bad_timestamp", **years),
    ]
    return [
        gxe.ExpectTableColumnsToMatchSet(column_set=columns, exact_match=True),
        rule(in_set, "form", BY_FORM, value_set=[SOUND]),
        rule(not_null, "id", "missing_field"),
        rule(not_null, "group", "missing_field"),
        rule(not_null, "roles", "missing_field"),
        rule(gxe.ExpectColumnValuesToMatchRegex, "roles", "bad_roles", regex=ROLES),
        rule(between, "shortest", "empty_text", min_value=1),
        rule(between, "longest", "oversize_text", max_value=spec.max_characters),
        *(timed if spec.require_timestamp else ()),
        rule(in_set, "answer", "bad_answer", value_set=[",".join(sorted(labels))]),
        *(
            rule(in_set, _column(name), "wrong_label", value_set=list(values))
            for name, values in labels.items()
        ),
    ]


def dataset_expectations(spec: ValidationSpec, labels: Labels, splits_pinned: bool) -> list[Any]:
    """The suite ``dataset``: duplicates, size, vocabulary coverage, class balance."""
    import great_expectations.expectations as gxe

    def none_of(column: str, reason: str, good: object) -> Any:
        return gxe.ExpectColumnValuesToBeInSet(
            column=column,
            value_set=[good],
            mostly=1 - spec.max_quarantined_share,
            meta={"reason": reason},
        )

    leaks = [
        none_of("in_train", "also_in_train", "False"),
        none_of("in_train_respaced", "also_in_train_but_for_spaces", "False"),
    ]
    rules = [
        none_of("earlier_ids", "duplicate_id", 0),
        *(leaks if splits_pinned else []),
        none_of("earlier_texts", "duplicate_text", 0),
        gxe.ExpectTableRowCountToBeBetween(min_value=spec.min_rows),
    ]
    for name, values in labels.items():
        even = {"values": list(values), "weights": [1 / len(values)] * len(values)}
        rules += [
            gxe.ExpectColumnDistinctValuesToContainSet(
                column=_column(name), value_set=list(values)
            ),
            gxe.ExpectColumnKLDivergenceToBeLessThan(
                column=_column(name), partition_object=even, threshold=spec.max_imbalance
            ),
        ]
    return rules


def run_suite(context: Any, name: str, frame: "pd.DataFrame", expectations: list[Any]) -> Verdict:
    """Validate ``frame`` with real Great Expectations; the result goes into its Data Docs."""
    import great_expectations as gx

    suite = context.suites.add(gx.ExpectationSuite(name))
    for order, expectation in enumerate(expectations):
        expectation.meta = {**(expectation.meta or {}), "order": order}
        suite.add_expectation(expectation)
    asset = context.data_sources.add_pandas(name).add_dataframe_asset(name)
    definition = gx.ValidationDefinition(
        name=name, data=asset.add_batch_definition_whole_dataframe("all"), suite=suite
    )
    result = context.validation_definitions.add(definition).run(
        batch_parameters={"dataframe": frame},
        result_format={
            "result_format": "COMPLETE",
            "unexpected_index_column_names": ["row"],
            "partial_unexpected_count": SAMPLES,
            "return_unexpected_index_query": False,
        },
        run_id=run_identifier(),
    )
    results = sorted(result.results, key=lambda item: item.expectation_config.meta["order"])
    reasons: dict[int, str] = {}
    for item in results:
        reason = item.expectation_config.meta.get("reason")
        for place in item.result.get("unexpected_index_list") or () if reason else ():
            reasons.setdefault(int(place["row"]), place["form"] if reason == BY_FORM else reason)
    failed = tuple(_describe(item) for item in results if not item.success)
    return Verdict(failed, reasons)


def _describe(item: Any) -> str:
    config = item.expectation_config
    words = "".join(part.capitalize() for part in config.type.split("_"))
    column = config.kwargs.get("column")
    seen = item.result.get("observed_value")
    if (percent := item.result.get("unexpected_percent")) is not None:
        seen = f"{item.result['unexpected_count']} rows, {percent:.1f}%"
    error = (item.exception_info or {}).get("exception_message")
    shown = error or f"observed {seen}"
    return f"{words}({column}): {shown}" if column else f"{words}: {shown}"


def _column(name: str) -> str:
    return f"label_{name}"


def _label(answer: Mapping[str, Any] | None, name: str) -> str | None:
    if answer is None or name not in answer:
        return None
    value = answer[name]
    return redact(value if isinstance(value, str) else f"{value!r}, not text")[0][:60]
