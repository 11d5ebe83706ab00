"""Which data to take, as settings of the asset ``raw_dataset``."""

from pydantic import BaseModel, ConfigDict, Field, field_validator

from mlops_assets.dataset import formats
from mlops_assets.dataset.conversations import NAMES
from mlops_assets.licenses import spdx


class RawDatasetSpec(BaseModel):
    """Where the data lies and how it is written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(
        "data/raw/tickets.jsonl",
        min_length=1,
        description="File or directory, relative to the working directory or the checkout, or a"
        " pinned source (hf://, lakefs://, s3://; see docs/versions.md); ${VARIABLES} of the"
        " environment are filled in.",
    )
    format: str = Field(
        "auto",
        pattern=f"^(auto|{'|'.join(formats.FORMATS)})$",
        description=f"`auto`, or one of {', '.join(formats.FORMATS)}; see docs/data.md.",
    )
    mapping: dict[str, str] = Field(
        default_factory=dict,
        description="Field or column of the source by our name for it, where the two differ;"
        f" our names are {', '.join(NAMES)}.",
    )

    feedback: str = Field(
        "",
        max_length=4096,
        description="Directory of feedback versions, whose rows stand after the source's; the asset"
        " feedback_rows writes them to `${MLOPS_HOME}/feedback`. Empty: none.",
    )
    license: str = Field(
        "",
        max_length=200,
        description="The data's licence, an SPDX expression or `unknown`; for the model card.",
    )

    _license_is_spdx = field_validator("license")(spdx)

    @field_validator("mapping")
    @classmethod
    def _known_names(cls, mapping: dict[str, str]) -> dict[str, str]:
        if unknown := [name for name in mapping if name not in NAMES]:
            raise ValueError(f"{unknown[0]!r} is none of our names, {', '.join(NAMES)}")
        return mapping
