"""Writes the shipped production samples: what a simulated release answered.

``unshifted`` has the mix of the training tickets. In ``shifted`` the world has changed:
customers write at length about new topics, through other channels, about other products,
and the release is wrong more often. Standard library only.

    python -m mlops_assets.dataset.production --records 1000 --seed 20260701 --out DIRECTORY
"""

import argparse
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from mlops_assets.dataset.dice import Dice
from mlops_assets.dataset.synthetic import (
    START,
    Mix,
    answer,
    draw_labels,
    mislabel,
    write_lines,
    write_text,
)

SEGMENT = 250  # records in one file
MIXES = {
    "unshifted": (Mix(), 0.10),
    "shifted": (
        Mix(
            queues={
                "billing": 10,
                "shipping": 10,
                "returns": 38,
                "technical": 30,
                "account": 6,
                "sales": 6,
            },
            priorities={"low": 8, "normal": 27, "high": 40, "urgent": 25},
            products={
                "laptop": 8,
                "phone": 10,
                "router": 8,
                "printer": 14,
                "camera": 30,
                "headset": 30,
            },
            channels={"email": 15, "chat": 60, "web": 10, "social": 15},
            styles={"plain": 20, "formal": 5, "terse": 10, "chatty": 45, "typo": 20},
            new_topics=0.6,
        ),
        0.30,
    ),
}
"""Mix of the requests and share of wrong answers, by sample."""


def record_lines(records: int, seed: int, mix: Mix, errors: float) -> Iterator[str]:
    """Prediction records as JSON lines, in order of time, after the last training ticket."""
    dice = Dice(seed)
    moment: datetime = START + timedelta(days=200)
    for number in range(1, records + 1):
        moment += timedelta(seconds=dice.number(300, 900))
        labels = draw_labels(dice, mix)
        style = dice.weighted(mix.styles)
        text = write_text(dice, mix, labels, style)
        record = {
            "id": f"p-{seed}-{number:06d}",
            "timestamp": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "release": "simulated",
            "messages": [{"role": "user", "content": text}],
            "output": answer(mislabel(dice, labels, errors)),
            "slices": {
                "channel": dice.weighted(mix.channels),
                "product": labels["product"],
                "language_style": style,
            },
        }
        yield json.dumps(record, ensure_ascii=False)


def write_segments(directory: Path, lines: list[str]) -> None:
    """Write ``segment-0001.jsonl`` and so on."""
    for number, start in enumerate(range(0, len(lines), SEGMENT), 1):
        segment = lines[start : start + SEGMENT]
        write_lines(directory / f"segment-{number:04d}.jsonl", iter(segment))


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Write the shipped production samples.")
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    for offset, (sample, (mix, errors)) in enumerate(MIXES.items()):
        lines = list(record_lines(options.records, options.seed + offset, mix, errors))
        write_segments(options.out / sample, lines)


if __name__ == "__main__":
    main()
