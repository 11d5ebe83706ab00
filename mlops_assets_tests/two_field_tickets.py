"""Tickets whose answer has two fields, for tests that train on them."""

import json

from mlops_assets.artifacts import ArtifactStore
from mlops_assets.refs import Row, SplitsRef
from mlops_assets_tests.small_training import put_splits

QUEUES = {"billing": "invoice charged twice", "shipping": "parcel box late", "login": "password"}
PRIORITIES = {"low": "no hurry", "high": "urgent now"}
LABELS = {"queue": tuple(QUEUES), "priority": tuple(PRIORITIES)}
TINY = {"vocabulary": 400, "hidden_size": 32, "mlp_size": 64, "layers": 1, "heads": 1}
TINY |= {"pretrain_epochs": 2, "pretrain_batch_tokens": 256}
FAST = {"rank": 8, "alpha": 8, "epochs": 12, "pack_tokens": 256, "learning_rate": 1e-2}
FAST |= {"word_dropout": 0.1, "label_smoothing": 0.05}


def make_row(number: int) -> Row:
    """One of six kinds of ticket, numbered."""
    queue, priority = list(QUEUES)[number % 3], list(PRIORITIES)[number // 3 % 2]
    text = f"Hello, {QUEUES[queue]} number {number % 17}, {PRIORITIES[priority]}!"
    answer = json.dumps({"queue": queue, "priority": priority}, separators=(",", ":"))
    messages = ({"role": "user", "content": text}, {"role": "assistant", "content": answer})
    return Row(f"r{number}", "", f"g{number}", messages, {})


def make_splits(store: ArtifactStore, train: int = 240) -> SplitsRef:
    """As many rows to train on as are asked for, 30 to validate and 10 to test."""
    numbers = {"train": range(train), "validation": range(300, 330), "test": range(400, 410)}
    rows = {name: [make_row(number) for number in some] for name, some in numbers.items()}
    return put_splits(store, rows, LABELS)
