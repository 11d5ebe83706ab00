"""Writes the shipped preference pairs: tickets with the answer of record and a worse one.

The worse answer is plausible: one of its fields names another label. As in the tickets, 4% of
the answers of record are wrong themselves. Standard library only, the same bytes everywhere.

    python -m mlops_assets.dataset.preferences --rows 3000 --seed 20260102 --out FILE
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from mlops_assets.dataset.dice import Dice
from mlops_assets.dataset.synthetic import LABELS, Mix, answer, sound_tickets, write_lines

KEPT = ("id", "timestamp", "customer_id", "channel", "product", "language_style")


def preference_lines(rows: int, seed: int) -> Iterator[str]:
    """The lines of the shipped file, in the form `prompt`, `chosen`, `rejected`."""
    dice = Dice(seed)
    for ticket in sound_tickets(dice, rows, Mix()):
        asked, answered = (message["content"] for message in ticket["messages"])
        pair = {"prompt": asked, "chosen": answered, "rejected": worse(dice, answered)}
        yield json.dumps({name: ticket[name] for name in KEPT} | pair)


def worse(dice: Dice, chosen: str) -> str:
    """The answer ``chosen`` with another label in one of its fields."""
    labels = json.loads(chosen)
    name = dice.pick(list(LABELS))
    other = dice.pick([value for value in LABELS[name] if value != labels[name]])
    return answer(labels | {name: other})


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Write the shipped preference pairs.")
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    write_lines(options.out, preference_lines(options.rows, options.seed))


if __name__ == "__main__":
    main()
