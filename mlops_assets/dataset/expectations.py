"""What the data must be like, as three Great Expectations suites.

``rows`` judges every candidate by itself, chunk by chunk; ``dataset`` judges what passed as a
whole, and finds duplicates and contradictions; ``slices`` counts what is left of each slice.
A row that an expectation with a ``reason`` names is set aside for that reason. An expectation
that fails (more rows than tolerated, or the data as a whole) stops the lineage.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, field_validator

from mlops_assets.dataset.records import SOUND
from mlops_assets.dataset.row_frame import COLUMNS, NOT_TEXT, Labels, fields_of, label_column
from mlops_assets.dataset.synthetic import LABELS
from mlops_assets.privacy import DEFAULT_POLICY, DEFAULT_REGIONS, Detector, checked_policy

TURN = "user( assistant( tool)+)* assistant"
ROLES = rf"^(system )?{TURN}( {TURN})*$"
BY_FORM = "form"  # the reason is the row's own form, one of records.FORMS


class ValidationSpec(BaseModel):
    """What is tolerated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    labels: dict[str, list[str]] = Field(
        default_factory=lambda: {name: list(values) for name, values in LABELS.items()},
        description="Vocabulary of each field of the answer, fields in the order of the answer;"
        " an empty list takes it from categories.json or from the data; no field at all: the"
        " answers are free text.",
    )
    slices: list[str] = Field(
        default_factory=lambda: ["channel", "product", "language_style"],
        description="Fields of a row by which results are broken down; of `labelled_csv` it is"
        " always the text's length.",
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
    min_rows_per_slice: int = Field(
        1, ge=1, le=10**9, description="Fewest valid rows of each value of each slice."
    )
    max_contradictory_share: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Largest share of rows whose text stands elsewhere with another answer;"
        " free-text answers are only counted.",
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

    @field_validator("labels")
    @classmethod
    def _fields_differ(cls, labels: dict[str, list[str]]) -> dict[str, list[str]]:
        if len({name.casefold() for name in labels}) < len(labels):
            raise ValueError("two fields differ in nothing but upper and lower case")
        return labels

    @field_validator("privacy")
    @classmethod
    def _known(cls, policy: dict[str, str]) -> dict[str, str]:
        return checked_policy(policy)

    def entities(self, action: str) -> set[str]:
        """The kinds of personal data that the policy treats so."""
        return {entity for entity, chosen in self.privacy.items() if chosen == action}

    def detector(self) -> Detector:
        """What finds personal data by this policy. Raises LineageError as ``Detector`` does."""
        return Detector(self.privacy, self.ner_model, self.phone_regions)


class WholeRule(NamedTuple):
    """What the suite `dataset` asks of each row, and why a row that fails is set aside."""

    column: str
    good: int
    reason: str


WHOLE_RULES = (
    WholeRule("earlier_ids", 0, "duplicate_id"),
    WholeRule("in_train", 0, "also_in_train"),
    WholeRule("in_train_respaced", 0, "also_in_train_but_for_spaces"),
    WholeRule("earlier_texts", 0, "duplicate_text"),
)


def row_expectations(spec: ValidationSpec, labels: Labels) -> list[Any]:
    """The suite ``rows``; the order decides which reason a row with two faults gets.

    A field without a vocabulary takes any text: its vocabulary will be what is found.
    """
    import great_expectations.expectations as gxe

    tolerated = {"mostly": 1 - spec.max_quarantined_share}

    def rule(kind: Any, column: str, reason: str, **settings: Any) -> Any:
        return kind(column=column, meta={"reason": reason}, **tolerated, **settings)

    def label_rule(name: str, values: Sequence[str]) -> Any:
        column = label_column(name)
        if values:
            return rule(in_set, column, "wrong_label", value_set=list(values))
        unlike = gxe.ExpectColumnValuesToNotMatchRegex
        return rule(unlike, column, "wrong_label", regex=f"{NOT_TEXT}$")

    not_null, in_set = gxe.ExpectColumnValuesToNotBeNull, gxe.ExpectColumnValuesToBeInSet
    between = gxe.ExpectColumnValuesToBeBetween
    years = {"min_value": spec.earliest_year, "max_value": spec.latest_year}
    timed = [
        rule(not_null, "timestamp", "bad_timestamp"),
        rule(between, "year", "bad_timestamp", **years),
    ]
    answered = [
        rule(in_set, "answer", "bad_answer", value_set=[fields_of(labels)]),
        *(label_rule(*item) for item in labels.items()),
    ]
    columns = [*COLUMNS, *(["answer"] if labels else []), *map(label_column, labels)]
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
        *(answered if labels else ()),
    ]


def whole_rules(splits_pinned: bool) -> list[WholeRule]:
    """The rules about each row that need all rows, in the suite's order."""
    return [rule for rule in WHOLE_RULES if splits_pinned or not rule.column.startswith("in_train")]


def dataset_expectations(spec: ValidationSpec, labels: Labels, splits_pinned: bool) -> list[Any]:
    """The suite ``dataset``: duplicates, contradictions, size, vocabulary coverage, balance."""
    import great_expectations.expectations as gxe

    def none_of(column: str, good: int, tolerated: float, **meta: str) -> Any:
        return gxe.ExpectColumnValuesToBeInSet(
            column=column, value_set=[good], mostly=1 - tolerated, meta=meta
        )

    expectations = [
        none_of(rule.column, rule.good, spec.max_quarantined_share, reason=rule.reason)
        for rule in whole_rules(splits_pinned)
    ]
    if labels:
        expectations.append(none_of("contradicted", 0, spec.max_contradictory_share))
    expectations.append(gxe.ExpectTableRowCountToBeBetween(min_value=spec.min_rows))
    for name, values in labels.items():
        even = {"values": list(values), "weights": [1 / len(values)] * len(values)}
        expectations += [
            gxe.ExpectColumnDistinctValuesToContainSet(
                column=label_column(name), value_set=list(values)
            ),
            gxe.ExpectColumnKLDivergenceToBeLessThan(
                column=label_column(name), partition_object=even, threshold=spec.max_imbalance
            ),
        ]
    return expectations


def slice_expectations(spec: ValidationSpec) -> list[Any]:
    """The suite ``slices``: no value of a slice has too few rows."""
    import great_expectations.expectations as gxe

    return [
        gxe.ExpectColumnValuesToBeBetween(column="rows", min_value=spec.min_rows_per_slice),
    ]
