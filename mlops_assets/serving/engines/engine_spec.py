"""The settings of engines: which program answers, and how it is watched."""

from pydantic import BaseModel, ConfigDict, Field, model_validator

TRANSFORMERS, VLLM, OPENAI, LITELLM = "transformers", "vllm", "openai", "litellm"

VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes for the highest rank: ``MaxLoRARanks`` in ``vllm/config/lora.py``."""


class EngineSpec(BaseModel):
    """What starts, watches and stops the engines of a gateway."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: str = Field(
        TRANSFORMERS,
        pattern=f"^({TRANSFORMERS}|{VLLM}|{OPENAI}|{LITELLM})$",
        description="Who answers: `transformers serve` (any machine), `vllm serve` (CUDA),"
        " `openai`: a server at `engine_url` that somebody else runs, or `litellm`: hosted"
        " providers.",
    )
    engine_program: str = Field(
        "",
        description="Path of the `transformers` or `vllm` program to start, or of a Python that has"
        " LiteLLM; empty takes that of this environment.",
    )
    engine_device: str = Field(
        "cpu",
        pattern="^(cpu|auto|cuda(:[0-9]+)?|mps)$",
        description="transformers: where it computes; on `cpu` in float32, else as stored.",
    )
    engine_merge_anew: bool = Field(
        True,
        description="Merge base and adapter anew when a release is brought up; else take what was"
        " merged earlier, which is vouched for by its manifest alone.",
    )
    engine_threads: int = Field(
        1, ge=1, le=256, description="CPU threads of one engine; a small model is fastest on one."
    )
    engine_adapters: int = Field(
        4, ge=1, le=256, description="vLLM: adapters that one base model holds at a time."
    )
    engine_adapter_rank: int = Field(
        64,
        ge=8,
        le=512,
        description="vLLM: highest rank of an adapter that is loaded at run time; others are merged"
        " and get a server of their own.",
    )
    engine_gpu_memory: float = Field(
        0.9, gt=0.0, le=1.0, description="vLLM: share of the GPU's memory that one server takes."
    )
    engine_url: str = Field(
        "",
        pattern="^(https?://[^ ]+)?$",
        description="openai: the server's address, up to and with `/v1`. litellm: that of the"
        " provider of `engine_model`, empty for its own.",
    )
    engine_model: str = Field(
        "",
        description="The model's name at a server of others; `{version}` and `{release}` stand for"
        " the registered version and the bundle's digest. litellm: PROVIDER/MODEL.",
    )
    engine_key_variable: str = Field(
        "",
        pattern="^[A-Z0-9_]*$",
        description="openai: environment variable with the server's API key; empty sends none.",
    )
    engine_fallbacks: list[str] = Field(
        default_factory=list,
        max_length=10,
        description="litellm: models (PROVIDER/MODEL) that are asked in turn where one fails.",
    )
    engine_retries: int = Field(
        1, ge=0, le=10, description="litellm: how often a model is asked again when it fails."
    )
    engine_answer_s: float = Field(
        60.0, gt=0.0, le=3600.0, description="litellm: seconds that one model may take to answer."
    )
    engine_secrets: list[str] = Field(
        default_factory=list,
        max_length=50,
        description="litellm: environment variables that it gets, such as OPENAI_API_KEY.",
    )
    engine_start_s: float = Field(
        300.0, gt=0.0, le=7200.0, description="Seconds until an engine must have answered once."
    )
    engine_warm_up: int = Field(
        2, ge=0, le=1000, description="Requests asked before users are, every second one streamed."
    )
    engine_probe_s: float = Field(
        10.0, gt=0.0, le=3600.0, description="Seconds between two health probes, a token each."
    )
    engine_probe_timeout_s: float = Field(
        10.0, gt=0.0, le=600.0, description="Seconds that a probe may take."
    )
    engine_probe_failures: int = Field(
        2,
        ge=1,
        le=100,
        description="Probes in a row without an answer, of an engine that is not busy with users,"
        " after which it counts as hung.",
    )
    engine_busy_s: float = Field(
        120.0,
        gt=0.0,
        le=86400.0,
        description="Seconds that an engine may compute on users' requests without ending one,"
        " before missed probes count.",
    )
    engine_watch_s: float = Field(
        0.5, gt=0.0, le=60.0, description="Seconds between two looks at whether a file was touched."
    )
    engine_verify_s: float = Field(
        300.0,
        gt=0.0,
        le=86400.0,
        description="Seconds after which every file is hashed again, touched or not.",
    )
    engine_restarts_per_hour: int = Field(
        5, ge=0, le=1000, description="Restarts of an engine in an hour, after which it has failed."
    )
    engine_backoff_s: float = Field(
        0.5, ge=0.0, le=60.0, description="Seconds before the first restart; doubled each time."
    )
    engine_drain_s: float = Field(
        30.0, ge=0.0, le=3600.0, description="Seconds that requests under way get to finish."
    )
    engine_stop_s: float = Field(
        10.0, gt=0.0, le=600.0, description="Seconds between SIGTERM and SIGKILL."
    )
    engine_log_mb: int = Field(
        10, ge=1, le=10_000, description="Size of an engine's log (MB); as much again is kept."
    )

    @model_validator(mode="after")
    def _address(self) -> "EngineSpec":
        if self.engine == OPENAI and not self.engine_url:
            raise ValueError("the engine `openai` needs engine_url")
        if self.engine_url and self.engine not in (OPENAI, LITELLM):
            raise ValueError(f"engine_url means nothing to the engine `{self.engine}`")
        if self.engine in (OPENAI, LITELLM) and not self.engine_model:
            raise ValueError(f"the engine `{self.engine}` needs engine_model")
        if self.engine_adapter_rank not in VLLM_RANKS:
            raise ValueError(f"engine_adapter_rank must be one of {VLLM_RANKS}")
        return self
