"""Which files of a foreign model we take, and which make us refuse the whole directory.

Nothing here loads a model. Pickle weights run code when they are read, and ``auto_map``
makes ``transformers`` import code from the directory: both are refused, even where safe
files stand beside them, because other tools would prefer them.
"""

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlops_assets.artifacts import LineageError, digest_file, digest_json
from mlops_assets.pickle_files import may_be_pickle

CODE_KEYS = ("auto_map", "custom_pipelines", "custom_generate")
TAKEN = ("*.json", "*.safetensors", "*.jinja", "*.model", "merges.txt", "vocab.txt")
"""Patterns of the files that are copied, from the directory itself only."""


def check_directory(directory: Path) -> None:
    """Refuse what is not a plain directory of safetensors, tokenizer and configuration.

    Raises LineageError that names the file and the remedy.
    """
    if not directory.is_dir():
        raise LineageError(
            f"The base model directory {directory} does not exist.",
            "Set base_model's path to a directory in Hugging Face format.",
        )
    for path in sorted(directory.rglob("*")):
        _check_entry(path)
    for name in ("config.json", "tokenizer_config.json"):
        if not (directory / name).is_file():
            raise LineageError(
                f"The base model {directory} has no {name}.",
                "Save model and tokenizer there with save_pretrained.",
            )
    for path in _configurations(directory):
        _check_no_code(path)
    _check_chat_template(directory)
    parameter_count(directory)


def copy_model(source: Path, target: Path) -> None:
    """Copy the files we take, then check the copies, which nobody else can change."""
    for path in _taken(source):
        shutil.copyfile(path, target / path.name, follow_symlinks=False)
    check_directory(target)


def files_digest(directory: Path) -> str:
    """What the taken files hold: 64 hex digits."""
    return digest_json({path.name: digest_file(path) for path in _taken(directory)})


def parameter_count(directory: Path) -> int:
    """Parameters in the safetensors files; raises LineageError when one is missing or torn."""
    weights = sorted(directory.glob("*.safetensors"))
    if not weights:
        raise LineageError(
            f"The base model {directory} has no *.safetensors weights.",
            "Save it again with save_pretrained, which writes safetensors.",
        )
    _check_shards(directory)
    return sum(_tensor_sizes(path) for path in weights)


def _taken(directory: Path) -> list[Path]:
    return sorted(path for pattern in TAKEN for path in directory.glob(pattern) if path.is_file())


def _check_entry(path: Path) -> None:
    if path.is_symlink():
        raise LineageError(
            f"{path} is a symbolic link, and may be changed behind our back.",
            "Copy the model with its links resolved (cp -rL) and point base_model's path there.",
        )
    if may_be_pickle(path):
        raise LineageError(
            f"{path} may hold pickle weights, which run code when they are read.",
            "Convert the weights to safetensors and delete that file.",
        )


def _configurations(directory: Path) -> Iterator[Path]:
    # tokenizer.json, vocabularies and shard indexes are large and never name code.
    return (path for path in sorted(directory.glob("*.json")) if "config" in path.name)


def _check_no_code(path: Path) -> None:
    found = [key for key in CODE_KEYS if _holds_key(_read_json(path), key)]
    if found:
        raise LineageError(
            f"{path} has `{found[0]}`, which makes transformers run code from the directory.",
            "Use a model whose architecture is part of transformers; trust_remote_code stays off.",
        )


def _holds_key(value: Any, key: str) -> bool:
    if isinstance(value, dict):
        return key in value or any(_holds_key(item, key) for item in value.values())
    return isinstance(value, list) and any(_holds_key(item, key) for item in value)


def _check_chat_template(directory: Path) -> None:
    inline = _read_json(directory / "tokenizer_config.json").get("chat_template")
    if not (directory / "chat_template.jinja").is_file() and not inline:
        raise LineageError(
            f"The base model {directory} has no chat template.",
            "Take the instruction-tuned variant, or add a chat_template.jinja.",
        )


def _check_shards(directory: Path) -> None:
    index = directory / "model.safetensors.index.json"
    if not index.is_file():
        return
    for name in sorted(set(_read_json(index).get("weight_map", {}).values())):
        if Path(name).name != name or not (directory / name).is_file():
            raise LineageError(
                f"{index} names {name}, which is not there.", "Download the model again."
            )


def _tensor_sizes(path: Path) -> int:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as tensors:
            shapes = [tensors.get_slice(name).get_shape() for name in tensors.keys()]  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise LineageError(
            f"{path} is not a valid safetensors file ({error}).", "Download or save it again."
        ) from error
    return sum(math.prod(shape) for shape in shapes)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise LineageError(f"{path} is not valid JSON.", "Download or save it again.") from error
    if not isinstance(content, dict):
        raise LineageError(f"{path} is not a JSON object.", "Download or save it again.")
    return content
