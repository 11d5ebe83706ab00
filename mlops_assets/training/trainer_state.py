"""What a training consists of besides its data, as files of a checkpoint.

transformers' own files are pickles and miss what this project needs for the same bytes: the
loss summed up since the last logged point, TRL's metrics of the same span, our log. Here
tensors are safetensors and everything else is JSON, whose floats survive to the last bit.
Only what is trained is saved: the rest is the base model, and the recipe says which.
"""

import json
import random
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlops_assets.cost import Meter
from mlops_assets.training.training_log import TrainingLog

WEIGHTS, OPTIMIZER = "weights.safetensors", "optimizer.safetensors"
STATE = "state.json"
TRAINER_STATE = "trainer_state.json"  # transformers reads it itself: steps, epochs, tokens


def read_state(directory: Path) -> dict[str, Any]:
    """The JSON part of a checkpoint."""
    content: dict[str, Any] = json.loads((directory / STATE).read_text(encoding="utf-8"))
    return content


def save(trainer: Any, log: TrainingLog, meter: Meter, directory: Path) -> None:
    """Write the files of a checkpoint."""
    from safetensors.torch import save_file

    optimizer = trainer.optimizer.state_dict()
    tensors, numbers = _split(optimizer["state"])
    save_file(_trained(trainer.model), directory / WEIGHTS)
    save_file(tensors, directory / OPTIMIZER)
    state = {
        "optimizer": {"numbers": numbers, "groups": optimizer["param_groups"]},
        "scheduler": trainer.lr_scheduler.state_dict(),
        "random": _random_state(),
        "spans": _spans(trainer),
        "log": log.state(),
        "usage": asdict(meter.read()),
    }
    (directory / STATE).write_text(json.dumps(state), encoding="utf-8")
    trainer.state.save_to_json(str(directory / TRAINER_STATE))


def _trained(model: Any) -> dict[str, Any]:
    named = model.named_parameters()
    return {name: weight.detach().contiguous() for name, weight in named if weight.requires_grad}


def load_weights(model: Any, directory: Path) -> None:
    """Put the trained weights back, in place."""
    import torch
    from safetensors.torch import load_file

    saved = load_file(directory / WEIGHTS)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                weight.copy_(saved[name])


def _split(state: Mapping[int, Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The optimizer's values by ``parameter.name``: the tensors, and the plain numbers."""
    import torch

    values = {f"{place}.{name}": value for place in state for name, value in state[place].items()}
    tensors = {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
    return tensors, {name: value for name, value in values.items() if name not in tensors}


def load_optimizer(trainer: Any, directory: Path) -> None:
    """Put the optimizer's moments and the scheduler's position back."""
    from safetensors.torch import load_file

    saved = read_state(directory)
    state: dict[int, dict[str, Any]] = {}
    values = load_file(directory / OPTIMIZER) | saved["optimizer"]["numbers"]
    for path, value in values.items():
        place, name = path.split(".", 1)
        state.setdefault(int(place), {})[name] = value
    groups = saved["optimizer"]["groups"]
    trainer.optimizer.load_state_dict({"state": state, "param_groups": groups})
    trainer.lr_scheduler.load_state_dict(saved["scheduler"])


def _random_state() -> dict[str, Any]:
    """Every global generator; dropout and word dropout draw from torch's."""
    import numpy as np
    import torch

    numpy_state: Any = np.random.get_state(legacy=False)
    numpy_state["state"]["key"] = numpy_state["state"]["key"].tolist()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "python": random.getstate(),
        "numpy": numpy_state,
        "torch": _to_hex(torch.get_rng_state()),
        "cuda": [_to_hex(state) for state in cuda],
    }


def load_random(directory: Path) -> None:
    """Put every global generator back."""
    import numpy as np
    import torch

    saved = read_state(directory)["random"]
    version, words, gauss = saved["python"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(saved["numpy"])
    torch.set_rng_state(_from_hex(saved["torch"]))
    if torch.cuda.is_available() and saved["cuda"]:
        torch.cuda.set_rng_state_all([_from_hex(text) for text in saved["cuda"]])


def _to_hex(state: Any) -> str:
    return bytes(state.numpy()).hex()


def _from_hex(text: str) -> Any:
    import torch

    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)


def _spans(trainer: Any) -> dict[str, Any]:
    """What the trainer has summed up since it last logged, and forgets when it resumes."""
    metrics = getattr(trainer, "_metrics", None) or getattr(trainer, "_stored_metrics", {})
    return {
        "loss": trainer._tr_loss.item(),
        "logged_step": trainer._globalstep_last_logged,
        "tokens": getattr(trainer, "_total_train_tokens", 0),
        "metrics": {
            name: [float(value) for value in values]
            for name, values in metrics.get("train", {}).items()
        },
    }


def load_spans(trainer: Any, spans: Mapping[str, Any]) -> None:
    """Put back what is summed up since the last logged point."""
    trainer._tr_loss.fill_(spans["loss"])
    trainer._globalstep_last_logged = spans["logged_step"]
    if hasattr(trainer, "_total_train_tokens"):
        trainer._total_train_tokens = spans["tokens"]
    for attribute in ("_metrics", "_stored_metrics"):
        if hasattr(trainer, attribute):
            getattr(trainer, attribute)["train"].update(spans["metrics"])
