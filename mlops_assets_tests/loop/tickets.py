"""What customers write in the world of the loop, and what would be right to answer.

From the generator that wrote the shipped data (``dataset.synthetic``): the world is a ``Mix``, and
it changes when somebody puts another in its place.
"""

from dataclasses import dataclass

from mlops_assets.dataset.dice import Dice
from mlops_assets.dataset.production import MIXES
from mlops_assets.dataset.synthetic import Mix, answer, draw_labels, write_text

BEFORE = Mix()
"""The world of the training data."""
AFTER = MIXES["shifted"][0]
"""The shipped shift: new topics, at length, through other channels, about other products."""
LATER = Mix(
    queues={"billing": 48, "sales": 30, "account": 10, "shipping": 4, "returns": 4, "technical": 4},
    priorities={"low": 35, "normal": 40, "high": 15, "urgent": 10},
    products={"laptop": 38, "router": 30, "phone": 12, "printer": 8, "camera": 6, "headset": 6},
    channels={"email": 10, "chat": 10, "web": 70, "social": 10},
    styles={"plain": 10, "formal": 65, "terse": 10, "chatty": 5, "typo": 10},
    new_topics=1.0,
)
"""Another shift: formal letters through the website about bills and offers, all of new topics."""


@dataclass(frozen=True)
class Ticket:
    """One message, and what it is really about."""

    text: str
    right: str
    """The answer that would be right, as the model is to write it."""
    slices: dict[str, str]


def write_ticket(dice: Dice, mix: Mix) -> Ticket:
    """The next message of this world."""
    labels, style = draw_labels(dice, mix), dice.weighted(mix.styles)
    text = write_text(dice, mix, labels, style)
    slices = {
        "channel": dice.weighted(mix.channels),
        "product": labels["product"],
        "language_style": style,
    }
    return Ticket(text, answer(labels), slices)
