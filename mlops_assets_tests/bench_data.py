"""Chat rows in any number, the same each time: the shipped generator's tickets, made longer.

A ticket ends with a reference of its own and a sentence of the customer's, so that no text
stands twice among millions and a line has some 400 bytes.
"""

from pathlib import Path

import orjson

from mlops_assets.dataset import phrases
from mlops_assets.dataset.dice import Dice
from mlops_assets.dataset.synthetic import Mix, answer, draw_labels, write_text

SEED = 20261101
ROWS_PER_CUSTOMER = 5


def write_chats(path: Path, rows: int) -> None:
    """Write ``rows`` chat rows as JSON lines, without any fault."""
    dice, mix = Dice(SEED), Mix()
    with path.open("wb") as stream:
        for number in range(rows):
            stream.write(
                orjson.dumps(_chat(dice, mix, number, rows), option=orjson.OPT_APPEND_NEWLINE)
            )


def _chat(dice: Dice, mix: Mix, number: int, rows: int) -> dict[str, object]:
    labels, style = draw_labels(dice, mix), dice.weighted(mix.styles)
    text = write_text(dice, mix, labels, style)
    words = " ".join(f"{dice.pick(phrases.CITIES)} {dice.number(1, 9999)}" for _ in range(4))
    return {
        "id": f"t-{number}",
        "timestamp": f"2026-{number % 12 + 1:02d}-{number % 28 + 1:02d}T12:00:00Z",
        "customer_id": f"c-{dice.number(1, max(rows // ROWS_PER_CUSTOMER, 50))}",
        "channel": dice.weighted(mix.channels),
        "product": labels["product"],
        "language_style": style,
        "messages": [
            {"role": "user", "content": f"{text} Case {number}: {words}."},
            {"role": "assistant", "content": answer(labels)},
        ],
    }
