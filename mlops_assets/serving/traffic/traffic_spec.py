"""Settings of the gateway about who gets which release, and what users say of it."""

from pydantic import BaseModel, Field


class TrafficSettings(BaseModel):
    """A part of ``GatewaySpec``. Times are in seconds."""

    flags: str = Field(
        "flags.yaml",
        min_length=1,
        max_length=4096,
        description="File of OpenFeature flags in flagd's format, YAML or JSON; relative to the"
        " project, $NAME stands for an environment variable.",
    )
    growthbook: str = Field(
        "",
        max_length=2048,
        pattern="^(https?://.+)?$",
        description="URL of a GrowthBook server whose features are the flags, in place of the"
        " file; its client key comes from GROWTHBOOK_CLIENT_KEY.",
    )
    shadow_concurrency: int = Field(
        2, ge=1, le=256, description="Mirrored requests that a candidate answers at the same time."
    )
    shadow_queue: int = Field(
        64, ge=1, le=10_000, description="Mirrored requests that wait; more are dropped."
    )
    shadow_timeout: float = Field(
        60.0, gt=0, le=3600, description="Longest time that a mirrored request may wait or take."
    )
    shadow_spare: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Mirrored requests run only while users take less than this share of"
        " maximum_in_flight.",
    )
    feedback_per_day: int = Field(
        200, ge=1, le=1_000_000, description="Votes that one user may give in a day (UTC)."
    )
    feedback_days: float = Field(
        30.0, gt=0, le=3650, description="Age at which a request takes no votes any more (days)."
    )
