"""Settings of the gateway: ``ops: gateway: config:`` of the profile."""

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlops_assets.artifacts import LineageError, digest_json
from mlops_assets.profiles import asset_config
from mlops_assets.serving.accounting.budget_spec import BudgetSpec
from mlops_assets.serving.caching.cache_spec import CacheSpec
from mlops_assets.serving.engines.engine_spec import EngineSpec
from mlops_assets.serving.traffic.traffic_spec import TrafficSettings

Spec = TypeVar("Spec", bound=BaseModel)
SliceName = Annotated[str, Field(min_length=1, max_length=64)]


class GatewaySpec(EngineSpec, BudgetSpec, CacheSpec, TrafficSettings):
    """Limits and time-outs. Times are in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(
        "127.0.0.1",
        min_length=1,
        max_length=255,
        description="Address to listen on. Keys travel in the clear: anything but loopback needs a"
        " TLS proxy before it.",
    )
    maximum_body_kib: int = Field(
        1024, ge=1, le=65_536, description="Largest body of a request, in KiB."
    )
    maximum_messages: int = Field(
        256, ge=1, le=10_000, description="Most messages of one conversation."
    )
    maximum_output_tokens: int = Field(
        1024,
        ge=1,
        le=1_000_000,
        description="Most tokens of one answer; who asks for more is refused, who asks for none"
        " gets at most these.",
    )
    maximum_answer_kib: int = Field(
        8192, ge=1, le=1_048_576, description="Largest answer that is taken from an engine, in KiB."
    )
    maximum_in_flight: int = Field(
        64, ge=1, le=10_000, description="Requests that are answered at the same time."
    )
    maximum_waiting: int = Field(
        128, ge=0, le=100_000, description="Requests that wait for their turn; more get 429."
    )
    waiting_timeout: float = Field(
        5.0, gt=0, le=600, description="Longest wait for a turn; then 429."
    )
    body_timeout: float = Field(
        15.0, gt=0, le=600, description="Longest time in which a request's body must arrive."
    )
    connect_timeout: float = Field(
        2.0, gt=0, le=60, description="Longest time in which an engine must take the connection."
    )
    first_byte_timeout: float = Field(
        30.0, gt=0, le=3600, description="Longest wait for the first event of a stream."
    )
    chunk_timeout: float = Field(
        30.0, gt=0, le=3600, description="Longest wait between two parts of an answer."
    )
    total_timeout: float = Field(
        120.0, gt=0, le=86_400, description="Longest time that one answer may take."
    )
    drain_timeout: float = Field(
        20.0, ge=0, le=3600, description="Time to finish requests after SIGTERM."
    )
    log_segment_mib: int = Field(
        64, ge=1, le=4096, description="Size at which the request log begins a new file, in MiB."
    )
    log_sync_interval: float = Field(
        1.0,
        ge=0.05,
        le=60,
        description="Time between two fsyncs of the request log: what a power cut may cost. A"
        " killed process costs nothing.",
    )

    slices: list[SliceName] = Field(
        default_factory=list,
        max_length=8,
        description="Fields of a request's `metadata` that stand in its record, so that monitoring"
        " can tell the slices that training knows; of a value the first 64 characters.",
    )

    @property
    def digest(self) -> str:
        """Names these settings: 64 hex digits."""
        return digest_json(self.model_dump(mode="json"))


def read_settings(section: str, spec: type[Spec]) -> Spec:
    """The profile's settings ``ops: SECTION: config:``.

    Raises LineageError that names what is wrong with them.
    """
    try:
        return spec(**asset_config(section))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, each['loc']))}: {each['msg'].lower()}" for each in error.errors()
        )
        raise LineageError(
            f"The settings of {section} are not valid: {problems}.",
            f"Correct them under ops: {section}: config: in the profile.",
        ) from error
