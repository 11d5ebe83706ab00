"""What may be set about the judge: a language model behind an OpenAI-compatible URL."""

import ipaddress
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator


class JudgeSpec(BaseModel):
    """Which model judges, how often, at what cost at most, and what its word must be worth.

    The endpoint's key is no setting: the environment variable ``MLOPS_JUDGE_API_KEY`` holds it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    judge_url: str = Field(
        "",
        max_length=500,
        description="Base URL of an OpenAI-compatible server, such as http://127.0.0.1:8000/v1;"
        " https, or http on loopback. Empty: nobody judges and nothing is sent (URL).",
    )
    judge_model: str = Field(
        "", max_length=200, description="Name of the judging model at that server (text)."
    )
    judge_rubric: str = Field(
        "data/judge/tickets.yaml",
        description="File with the question and the levels that answers are scored by (path).",
    )
    judge_calibration: str = Field(
        "data/judge/calibration.jsonl",
        description="File with answers that people have scored by that rubric (path).",
    )
    judge_minimum_kappa: float = Field(
        0.6,
        ge=0,
        le=1,
        description="The judge has a vote from here on: least lower bound of the 95% interval"
        " of Cohen's kappa between it and people (0 to 1).",
    )
    judge_rows: int = Field(
        50, ge=1, le=100_000, description="Most rows that are judged, a seeded sample (rows)."
    )
    judge_repeats: int = Field(
        1,
        ge=1,
        le=9,
        description="Times that each question is asked, each with its own seed; the median"
        " counts (number).",
    )
    judge_answer_tokens: int = Field(
        512, ge=16, le=32_768, description="Longest answer of the judge (tokens)."
    )
    judge_max_calls: int = Field(
        2000,
        ge=1,
        le=10_000_000,
        description="Budget: most requests in one run, repeats and retries included (requests).",
    )
    judge_max_tokens: int = Field(
        5_000_000,
        ge=1,
        le=10**12,
        description="Budget: most tokens in one run, read and written (tokens).",
    )
    judge_timeout: float = Field(
        60.0, gt=0, le=3600, description="Longest wait for one whole answer (seconds)."
    )
    judge_concurrency: int = Field(
        4, ge=1, le=256, description="Requests that are under way at once (number)."
    )
    judge_ragas: bool = Field(
        True, description="Whether the endpoint also serves ragas' LLM metrics (yes or no)."
    )
    judge_embedding_model: str = Field(
        "",
        max_length=200,
        description="Name of an embedding model at that server, for answer relevancy (text).",
    )
    judge_encoder: str = Field(
        "",
        description="Directory of a local encoder in safetensors, where the server has no"
        " embeddings (path).",
    )

    @model_validator(mode="after")
    def _endpoint_is_whole(self) -> "JudgeSpec":
        if not self.judge_url:
            return self
        check_url(self.judge_url)
        if not self.judge_model:
            raise ValueError("judge_url needs judge_model, the model's name at that server")
        return self


def check_url(url: str) -> None:
    """Raise ValueError unless ``url`` is https, or http to this machine, and holds no secret."""
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(
            "judge_url may hold no user, password, query or fragment; a key goes into"
            " MLOPS_JUDGE_API_KEY"
        )
    if not parts.hostname or parts.scheme not in ("http", "https"):
        raise ValueError("judge_url must be an address such as http://127.0.0.1:8000/v1")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError(
            "judge_url must be https unless the server is on this machine: prompts, answers"
            " and the key would cross the network in the clear"
        )


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine by its name or address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
