"""A local text encoder for answer relevancy, where the judge's server has no embeddings."""

from collections.abc import Callable
from pathlib import Path

from mlops_assets.artifacts import LineageError


def load_encoder(directory: Path) -> Callable[[str], list[float]]:
    """A function from a text to its vector: the mean of the last layer over the text's tokens.

    That is how sentence encoders such as all-MiniLM-L6-v2 are pooled (Reimers and Gurevych 2019).
    Raises LineageError when the directory holds no encoder in safetensors.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # ours says what is under way
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        model = AutoModel.from_pretrained(directory, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise LineageError(
            f"judge_encoder {directory} holds no encoder with a tokenizer in safetensors.",
            "Name the directory of one, or leave judge_encoder empty.",
        ) from error
    model.eval()
    longest = getattr(model.config, "max_position_embeddings", None) or 512

    def encode(text: str) -> list[float]:
        given = tokenizer(text, truncation=True, max_length=longest, return_tensors="pt")
        with torch.inference_mode():
            states = model(**given).last_hidden_state[0]
        return [float(number) for number in states.mean(dim=0)]

    return encode
