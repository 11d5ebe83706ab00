"""What may be set about an evaluation; what a candidate has to reach stands in ``gate_spec``."""

from pydantic import ConfigDict, Field

from mlops_assets.evaluation.judge_spec import JudgeSpec


class EvaluationSpec(JudgeSpec):
    """How test split and suites are answered and scored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch_size: int = Field(
        64,
        ge=1,
        le=4096,
        description="Rows that `batches` answers together; in fp32 no answer depends on it.",
    )
    engine: str = Field(
        "auto",
        pattern="^(auto|batches|vllm)$",
        description="What answers: our own `batches`, or `vllm` on a GPU; `auto` takes vLLM where"
        " it can be had.",
    )
    max_new_tokens: int = Field(
        48, ge=1, le=8192, description="Longest answer (tokens); part of the release bundle."
    )
    latency_requests: int = Field(
        50, ge=1, le=10_000, description="Requests timed one at a time for p50 and p95 (rows)."
    )
    ragas_rows: int = Field(
        1000, ge=1, le=1_000_000, description="Most rows scored with ragas, a seeded sample."
    )
    examples: int = Field(
        6, ge=0, le=100, description="Examples on the page in each of its lists (rows)."
    )
    suites: str = Field(
        "data/evals",
        max_length=4096,
        description="Directory of suites, relative to the project; empty for none. ${NAME} stands"
        " for an environment variable.",
    )
    feedback_suites: str = Field(
        "",
        max_length=4096,
        description="Directory of feedback versions, whose cases are one more suite; the asset"
        " feedback_rows writes them to `${MLOPS_HOME}/feedback`. Empty: none.",
    )
    minimum_feedback_cases: int = Field(
        10,
        ge=1,
        le=20_000,
        description="With fewer cases from feedback that suite is not asked: the gate would have"
        " no verdict (items).",
    )
    seed: int = Field(20, ge=0, le=2**31 - 1, description="Seed of every sample drawn (integer).")
