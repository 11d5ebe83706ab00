"""The shipped preference pairs: pinned by DVC, sound, and the worse answer is worse."""

import hashlib
import json
from collections import Counter
from pathlib import Path

from mlops_assets.dataset import versioning
from mlops_assets.dataset.preferences import preference_lines
from mlops_assets.dataset.synthetic import LABELS

ROOT = Path(__file__).parents[1]


def test_the_generator_writes_the_bytes_that_dvc_pins() -> None:
    lines = "".join(f"{line}\n" for line in preference_lines(3000, 20260102))
    pinned = versioning.pin(ROOT / "data/raw/preferences.jsonl")
    assert pinned is not None
    assert hashlib.md5(lines.encode(), usedforsecurity=False).hexdigest() == pinned.version


def test_the_worse_answer_is_wrong_in_one_field() -> None:
    wrong: Counter[str] = Counter()
    for line in preference_lines(200, 1):
        pair = json.loads(line)
        chosen, rejected = json.loads(pair["chosen"]), json.loads(pair["rejected"])
        (field,) = [name for name in LABELS if chosen[name] != rejected[name]]
        assert rejected[field] in LABELS[field]
        wrong[field] += 1
    assert min(wrong[name] for name in LABELS) > 40
