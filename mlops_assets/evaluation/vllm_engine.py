"""vLLM as the engine of an evaluation: continuous batching and prefix caching on a GPU.

It is an optional dependency (extra ``gpu``) that needs CUDA. Answers are greedy; vLLM batches as
requests come and go, so near ties may fall otherwise than in our own batches.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec

from mlops_assets.artifacts import LineageError
from mlops_assets.model_loading import LoadedModel

BATCHES, VLLM = "batches", "vllm"

Answer = Callable[[Sequence[list[int]]], list[list[int]]]
"""Takes prompts as token ids; gives what was generated after each, the end token included."""


def choose_engine(wanted: str, *, prefix: bool) -> str:
    """``vllm`` where it is installed and a CUDA device is there, else ``batches``.

    ``prefix`` says that the adapter is one, which vLLM does not load. Raises LineageError when
    ``vllm`` is asked for and cannot be had.
    """
    if wanted == BATCHES:
        return BATCHES
    lacking = _lacking(prefix)
    if wanted == VLLM and lacking:
        raise LineageError(f"The engine vllm cannot answer here: {lacking}.", "Set engine to auto.")
    return BATCHES if lacking else VLLM


def _lacking(prefix: bool) -> str:
    import torch

    if prefix:
        return "it does not load prefix adapters"
    if find_spec("vllm") is None:
        return "it is not installed (extra `gpu`)"
    return "" if torch.cuda.is_available() else "there is no CUDA device"


@contextmanager
def vllm_engine(loaded: LoadedModel, budget: int) -> Iterator[Answer]:
    """Yield what answers lists of prompts, over the merged weights of ``loaded``."""
    import torch
    from vllm import LLM, SamplingParams

    ends = list(loaded.end_tokens)
    sampling = SamplingParams(
        temperature=0.0, max_tokens=budget, stop_token_ids=ends, detokenize=False
    )
    with tempfile.TemporaryDirectory() as folder:
        loaded.model.to("cpu").save_pretrained(folder)
        loaded.tokenizer.save_pretrained(folder)
        torch.cuda.empty_cache()  # vLLM takes what is free
        model = LLM(
            model=folder,
            max_model_len=loaded.context,
            enable_prefix_caching=True,
            trust_remote_code=False,
            seed=0,
        )

        def answer(prompts: Sequence[list[int]]) -> list[list[int]]:
            requests = [{"prompt_token_ids": ids} for ids in prompts]
            done = model.generate(requests, sampling, use_tqdm=False)
            return [list(request.outputs[0].token_ids) for request in done]

        yield answer
