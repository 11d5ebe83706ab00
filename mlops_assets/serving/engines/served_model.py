"""The model as an engine loads it: base and adapter as one directory of safetensors.

It is made by the very code that loads a model to be measured, so what is served computes what
was approved. Tokenizer and chat template are the base's files, unchanged; the generation
settings name the end tokens that the evaluation ended answers at, and decode greedily.

It is made once for a release, by ``python -m mlops_assets.serving.engines.served_model HOME`` with
the bundle on standard input: a process of its own, since the gateway never imports torch.
"""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from mlops_assets.artifacts import MANIFEST, Artifact, ArtifactStore, LineageError, Recipe
from mlops_assets.code_digest import code_digest
from mlops_assets.home import Home
from mlops_assets.model_loading import is_prefix, load_model
from mlops_assets.refs import ReleaseBundle
from mlops_assets.release_check import template_digest

MODULE = "mlops_assets.serving.engines.served_model"  # also where this runs as ``__main__``
KIND = "served_model"
EXACT, AS_STORED = "float32", "auto"
"""Types of the weights: what a CPU computes in, or that of the base's files."""
LIBRARIES = ("torch", "transformers", "peft", "safetensors")
WRITTEN = ("config.json", "generation_config.json", MANIFEST)
"""Files of the base that the merged model writes anew, beside its weights."""


def served_recipe(bundle: ReleaseBundle, dtype: str = EXACT) -> Recipe:
    """What decides the bytes that an engine loads."""
    return Recipe(
        KIND,
        {
            "bundle": bundle.digest,  # retention keeps it as long as the bundle is in force
            "base": bundle.base.digest,
            "adapter": bundle.adapter.digest,
            "chat_template": bundle.chat_template,
        },
        {"dtype": dtype},
        code_digest(MODULE),
        LIBRARIES,
    )


def served_model(store: ArtifactStore, bundle: ReleaseBundle, dtype: str = EXACT) -> Artifact:
    """The bundle's model in the form that `transformers serve` and `vllm serve` load.

    Raises LineageError when a part is missing or was changed, and for what cannot be one set of
    weights: a tuned prefix, a base that is stored in few bits.
    """
    base, adapter = store.path(bundle.base), store.path(bundle.adapter)
    _check_mergeable(base, adapter)
    return store.build(served_recipe(bundle, dtype), _merge(base, adapter, bundle, dtype))


def forget_served_model(store: ArtifactStore, bundle: ReleaseBundle, dtype: str = EXACT) -> None:
    """Have it made anew the next time.

    Base and adapter are what their approved digests say. What was merged of them earlier is
    vouched for by nothing but its own manifest, which whoever can write the store can write too.
    """
    shutil.rmtree(store.root / KIND / served_recipe(bundle, dtype).key, ignore_errors=True)


def find_served_model(
    store: ArtifactStore, bundle: ReleaseBundle, dtype: str = EXACT
) -> Artifact | None:
    """The one that was made before, or None."""
    return store.find(KIND, served_recipe(bundle, dtype).key)


def _check_mergeable(base: Path, adapter: Path) -> None:
    if is_prefix(adapter):
        raise LineageError(
            "The adapter is a tuned prefix, which stands beside the weights: no engine loads it.",
            "Serve it by a program of your own (engine `openai`), or tune a LoRA.",
        )
    config = json.loads((base / "config.json").read_bytes())
    if config.get("quantization_config"):
        raise LineageError(
            "The base model is stored in few bits, and an adapter merged into it would be rounded.",
            "Release an adapter over the base in full precision: training holds it in 4 bits by"
            " itself (`quantization: nf4`).",
        )


def _merge(
    base: Path, adapter: Path, bundle: ReleaseBundle, dtype: str
) -> Callable[[Path], dict[str, Any]]:
    def produce(directory: Path) -> dict[str, Any]:
        from transformers import GenerationConfig

        loaded = load_model(base, adapter, device="cpu", dtype=dtype)
        _check_finite(loaded.model)
        loaded.model.generation_config = GenerationConfig(
            do_sample=False,
            eos_token_id=list(loaded.end_tokens),
            pad_token_id=loaded.pad_token,
            bos_token_id=loaded.tokenizer.bos_token_id,
        )
        _copy_tokenizer(base, directory)
        loaded.model.save_pretrained(directory)
        if template_digest(directory) != bundle.chat_template:
            raise LineageError(
                "Tokenizer or chat template are not those that were approved.",
                "Bring back the base model's files, or have the release approved anew.",
            )
        return {"parameters": loaded.parameters, "dtype": dtype}

    return produce


def _copy_tokenizer(base: Path, directory: Path) -> None:
    """Everything of the base that is neither weights nor about weights."""
    for path in sorted(base.iterdir()):
        about_weights = ".safetensors" in path.name or path.name in WRITTEN
        if path.is_file() and not about_weights:
            shutil.copyfile(path, directory / path.name)


def _check_finite(model: Any) -> None:
    """Greedy decoding turns a NaN into token 0 and says nothing."""
    broken = [name for name, weight in model.named_parameters() if not weight.isfinite().all()]
    if broken:
        raise LineageError(
            f"The merged weights are not finite in {broken[0]}.",
            "Materialise `lora_adapter` with a lower learning rate.",
        )


def main() -> None:
    """Make the served model of the bundle on standard input in the home that is named."""
    home, dtype = Home(Path(sys.argv[1])), sys.argv[2]
    bundle = TypeAdapter(ReleaseBundle).validate_json(sys.stdin.read())
    try:
        made = served_model(home.store, bundle, dtype)
    except LineageError as error:
        print(json.dumps({"problem": error.problem, "remedy": error.remedy}))
        sys.exit(1)
    print(json.dumps(asdict(made)))


if __name__ == "__main__":
    main()
