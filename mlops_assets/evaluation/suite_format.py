"""What a suite's YAML file and its lines of JSONL may say; unknown keys are refused."""

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mlops_assets.evaluation.answer_schema import checked_schema
from mlops_assets.evaluation.item_metrics import METRICS
from mlops_assets.metrics import parse_object
from mlops_assets.refs import Row


class ToolCall(BaseModel):
    """A function that is to be called."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=200, description="The function's name.")
    arguments: dict[str, Any] = Field(default_factory=dict, description="Its arguments (JSON).")


class CalledFunction(BaseModel):
    """A call that an assistant made earlier in the conversation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=200, description="The function's name.")
    arguments: str | dict[str, Any] = Field(description="Its arguments: JSON, or JSON as text.")

    @field_validator("arguments")
    @classmethod
    def _object(cls, arguments: str | dict[str, Any]) -> str | dict[str, Any]:
        if isinstance(arguments, str) and parse_object(arguments) is None:
            raise ValueError("the text is no JSON object")
        return arguments


class EarlierCall(BaseModel):
    """The same, in the envelope of the OpenAI format."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str | None = Field(None, max_length=200, description="What a tool's answer refers to.")
    type: Literal["function"] = Field("function", description="The only type there is.")
    function: CalledFunction = Field(description="What was called.")


class Turn(BaseModel):
    """A message of the conversation, in the OpenAI format."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Literal["system", "user", "assistant", "tool"] = Field(description="Who speaks.")
    content: str = Field(
        "", max_length=100_000, description="What is said; null, as beside calls, is nothing."
    )
    name: str | None = Field(None, max_length=200, description="Name of the tool that answers.")
    tool_call_id: str | None = Field(None, max_length=200, description="The call it answers.")
    tool_calls: list[EarlierCall] | None = Field(
        None, min_length=1, max_length=100, description="Functions that the assistant called."
    )

    @field_validator("content", mode="before")
    @classmethod
    def _nothing(cls, content: object) -> object:
        return "" if content is None else content


class Item(BaseModel):
    """One question, and what is known about good answers to it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[A-Za-z0-9][\w.:-]{0,99}$", description="Unique in the suite.")
    messages: list[Turn] = Field(
        min_length=1, max_length=100, description="The conversation, as in the OpenAI format."
    )
    expected: str | dict[str, Any] | None = Field(
        None, description="The right answer: a text, or a JSON object."
    )
    required: list[str] = Field(
        default_factory=list, max_length=100, description="Texts that an answer must contain."
    )
    forbidden: list[str] = Field(
        default_factory=list, max_length=100, description="Texts that no answer may contain."
    )
    calls: list[ToolCall] | None = Field(
        None, description="The calls to be made; an empty list: none is to be made."
    )
    tools: list[dict[str, Any]] = Field(
        default_factory=list, max_length=100, description="JSON schemas of the tools on offer."
    )
    slices: dict[str, str] = Field(
        default_factory=dict, description="Value of each slicing dimension."
    )
    answer_schema: dict[str, Any] | None = Field(
        None, description="JSON Schema of the answer, instead of the suite's."
    )
    note: str = Field("", max_length=2000, description="Where the item comes from; for people.")

    @field_validator("messages")
    @classmethod
    def _to_be_answered(cls, messages: list[Turn]) -> list[Turn]:
        if messages[-1].role not in ("user", "tool"):
            raise ValueError("the last message must be one to answer, of the role user or tool")
        return messages

    @field_validator("required", "forbidden")
    @classmethod
    def _something(cls, texts: list[str]) -> list[str]:
        if not all(text.strip() for text in texts):
            raise ValueError("an empty text is found in every answer")
        return texts

    @field_validator("answer_schema")
    @classmethod
    def _schema(cls, schema: dict[str, Any] | None) -> dict[str, Any] | None:
        return checked_schema(schema)

    @property
    def reference(self) -> str:
        """``expected`` as text; empty where there is none."""
        if isinstance(self.expected, dict):
            return json.dumps(self.expected, ensure_ascii=False, separators=(",", ":"))
        return self.expected or ""

    def row(self) -> Row:
        """The item as a row whose last message is the reference."""
        asked = [turn.model_dump(mode="json", exclude_none=True) for turn in self.messages]
        answer = {"role": "assistant", "content": self.reference}
        return Row(self.id, "", self.id, (*asked, answer), self.slices, tools=tuple(self.tools))


class SuiteSpec(BaseModel):
    """What a suite is for, whom it may be put to, and what counts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: str = Field(min_length=1, max_length=500, description="One sentence for the report.")
    kind: Literal["golden", "slices", "regression", "feedback", "safety", "tools"] = Field(
        description="What the suite is for; the gate holds kinds to different floors."
    )
    items: str = Field(
        pattern=r"^[A-Za-z0-9][\w.-]{0,99}\.jsonl$", description="The file of items beside it."
    )
    metrics: list[str] = Field(
        min_length=1, max_length=20, description="Names of metrics, the leading one first."
    )
    fields: list[str] | None = Field(
        None,
        max_length=100,
        description="Applies to models whose answers have just these fields; empty: to models"
        " that answer with free text; unset: to all.",
    )
    tools: bool = Field(False, description="Applies only to models whose data offers tools.")
    answer_schema: dict[str, Any] | None = Field(
        None, description="JSON Schema of every answer, for the metric json_schema."
    )

    @field_validator("metrics")
    @classmethod
    def _known(cls, metrics: list[str]) -> list[str]:
        if unknown := [name for name in metrics if name not in METRICS]:
            raise ValueError(f"{unknown[0]!r} is no metric; known are {', '.join(METRICS)}")
        if len(set(metrics)) != len(metrics):
            raise ValueError("a metric stands twice")
        return metrics

    @field_validator("answer_schema")
    @classmethod
    def _schema(cls, schema: dict[str, Any] | None) -> dict[str, Any] | None:
        return checked_schema(schema)

    @model_validator(mode="after")
    def _has_schema(self) -> "SuiteSpec":
        if "json_schema" in self.metrics and self.answer_schema is None:
            raise ValueError("the metric json_schema needs an answer_schema")
        return self
